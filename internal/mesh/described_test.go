package mesh

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

const describing = `
metadata: {name: reviews, namespace: bookinfo}
spec:
  host: reviews
  version: v3
  virtualServices:
  - http: [{timeout: 0.5s, retries: {attempts: 2, perTryTimeout: 5s, retryOn: 5xx}}]
  - name: reviews-edge
    gateways: [bookinfo-gateway]
    hosts: [reviews.example.com]
    exportTo: ["."]
    http:
    - name: old-path
      match: [{uri: {prefix: /v1/reviews}}]
      rewrite: {uri: /reviews}
      headers: {request: {add: {x-old: "yes"}}, response: {remove: [server]}}
    - match: [{uri: {prefix: /reviews}}, {uri: {exact: /}}]
      corsPolicy: {allowOrigins: [{exact: "https://example.com"}], maxAge: 24h}
    - match: [{method: {exact: GET}}]
`

const describingTCP = `
metadata: {name: tcp-echo, namespace: echo}
spec:
  host: tcp-echo
  port: {number: 9000}
  protocol: TCP
  version: v2
  virtualServices:
  - {gateways: [tcp-gateway], hosts: ["*"]}
  - {name: both, gateways: [other-gateway], hosts: ["*"], tcp: [{match: [{port: 31400}]}]}
`

const describingTLS = `
metadata: {name: api, namespace: echo}
spec:
  host: api
  protocol: TLS
  version: v2
  virtualServices:
  - {gateways: [tls-gateway], hosts: [api.example.com]}
  - {name: two, gateways: [two], hosts: ["*"], tls: [{match: [{port: 443, sniHosts: [a.example.com]}]}]}
`

// atRest is a Rollout with what it describes in its status, and all traffic on v1.
func atRest(t *testing.T, text string) *v1.Rollout {
	t.Helper()
	r := &v1.Rollout{}
	if err := yaml.UnmarshalStrict([]byte(text), r); err != nil {
		t.Fatal(err)
	}
	r.Status.Traffic = &v1.Traffic{Stable: v1.Target{Version: "v1", Subset: "v1"}}
	r.Status.VirtualServices = described(r)
	return r
}

// renderNamed renders a driven VirtualService, and its rendering again.
func renderNamed(t *testing.T, r *v1.Rollout, name string, found *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	managed := managedOf(r, name)
	if managed == nil {
		t.Fatalf("%s is not driven", name)
	}
	got, problem := VirtualService(r, *managed, found)
	if problem != nil {
		t.Fatalf("%+v", problem)
	}
	if again, problem := VirtualService(r, *managed, got); problem != nil || !cmp.Equal(got, again) {
		t.Errorf("rendering twice changes something: %+v\n%s", problem, cmp.Diff(got, again))
	}
	return got
}

func wantSpec(t *testing.T, got *unstructured.Unstructured, want string) {
	t.Helper()
	data, err := yaml.Marshal(specOf(got))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.TrimLeft(want, "\n"), string(data)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestDescribedIsMadeWhole(t *testing.T) {
	r := atRest(t, describing)
	wantSpec(t, renderNamed(t, r, "reviews", nil), `
gateways:
- mesh
hosts:
- reviews
http:
- name: primary
  retries:
    attempts: 2
    perTryTimeout: 5s
    retryOn: 5xx
  route:
  - destination:
      host: reviews
      subset: v1
  timeout: 0.500s
`)
	edge := renderNamed(t, r, "reviews-edge", nil)
	if !isOurs(edge) {
		t.Errorf("labels %v do not tell who made it", edge.GetLabels())
	}
	wantSpec(t, edge, `
exportTo:
- .
gateways:
- bookinfo-gateway
hosts:
- reviews.example.com
http:
- headers:
    request:
      add:
        x-old: "yes"
    response:
      remove:
      - server
  match:
  - uri:
      prefix: /v1/reviews
  name: old-path
  rewrite:
    uri: /reviews
  route:
  - destination:
      host: reviews
      subset: v1
- corsPolicy:
    allowOrigins:
    - exact: https://example.com
    maxAge: 86400s
  match:
  - uri:
      prefix: /reviews
  - uri:
      exact: /
  name: primary
  route:
  - destination:
      host: reviews
      subset: v1
- match:
  - method:
      exact: GET
  name: primary-44023141
  route:
  - destination:
      host: reviews
      subset: v1
`)
}

func TestDescribedTCPAndTLS(t *testing.T) {
	r := atRest(t, describingTCP)
	wantSpec(t, renderNamed(t, r, "tcp-echo", nil), `
gateways:
- tcp-gateway
hosts:
- '*'
tcp:
- route:
  - destination:
      host: tcp-echo
      port:
        number: 9000
      subset: v1
`)
	wantSpec(t, renderNamed(t, r, "both", nil), `
gateways:
- other-gateway
hosts:
- '*'
tcp:
- match:
  - port: 31400
  route:
  - destination:
      host: tcp-echo
      port:
        number: 9000
      subset: v1
`)
	r = atRest(t, describingTLS)
	for name, sni := range map[string]string{"api": "api.example.com", "two": "a.example.com"} {
		route := asObject(tlsList.of(renderNamed(t, r, name, nil))[0])
		if got := objects(route["match"])[0]["sniHosts"]; !cmp.Equal(got, []any{sni}) || len(objects(route["route"])) != 1 {
			t.Errorf("%s: %v", name, route)
		}
	}
}

func TestDescribedSplits(t *testing.T) {
	r := atRest(t, describing)
	made := renderNamed(t, r, "reviews-edge", nil)
	var jason v1.HTTPMatches
	if err := yaml.Unmarshal([]byte(`[{headers: {end-user: {exact: jason}}}]`), &jason); err != nil {
		t.Fatal(err)
	}
	r.Status.Traffic = &v1.Traffic{
		Stable: v1.Target{Version: "v1", Subset: "v1"}, Canary: &v1.Target{Version: "v3", Subset: "v3"}, Weight: 50, Match: jason,
		Mirror: &v1.MirrorTraffic{Percentage: 100},
	}
	r.Status.VirtualServices[1] = SaveMirrors(r.Status.VirtualServices[1], made)
	half := renderNamed(t, r, "reviews-edge", made)
	var names []string
	for _, route := range httpRoutes(half) {
		names = append(names, text(route, "name"))
		if kind, _ := inserted(route); kind == "" {
			checkSplit(t, r, route)
		}
	}
	want := []string{"sluice-match-reviews-0", "old-path", "sluice-match-reviews-1", "primary", "sluice-match-reviews-2", "primary-44023141"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	if back := renderNamed(t, atRest(t, describing), "reviews-edge", half); !cmp.Equal(made, back) {
		t.Errorf("after the run (-made +back):\n%s", cmp.Diff(made, back))
	}
}

// TestDescribedIsEdited: what the description says comes back, what people added stays.
func TestDescribedIsEdited(t *testing.T) {
	r := atRest(t, describing)
	made := renderNamed(t, r, "reviews-edge", nil)
	edited := made.DeepCopy()
	spec := specOf(edited)
	spec["gateways"], spec["unknown"] = []any{"mesh"}, true
	delete(spec, "exportTo")
	own := object{"name": "own", "directResponse": object{"status": int64(204)}}
	list := httpList.of(edited)
	asObject(list[0])["timeout"] = "3s"
	asObject(list[0])["unknown"] = "kept"
	delete(asObject(list[1]), "corsPolicy")
	spec["http"] = []any{own, list[2], list[0]} // one was taken out, the others change places
	got := renderNamed(t, r, "reviews-edge", edited)
	if diff := cmp.Diff([]string{"own", "old-path", "primary", "primary-44023141"}, routeKeys(httpList.of(got))); diff != "" {
		t.Error(diff)
	}
	want := made.DeepCopy()
	specOf(want)["unknown"] = true
	asObject(httpList.of(want)[0])["unknown"] = "kept"
	specOf(want)["http"] = append([]any{own}, httpList.of(want)...)
	if diff := cmp.Diff(want.Object, got.Object); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestDescribedIsChanged: what is not decided yet is not written; then routes that are described no more go.
func TestDescribedIsChanged(t *testing.T) {
	r := atRest(t, describing)
	made := renderNamed(t, r, "reviews-edge", nil)
	r.Spec.VirtualServices[1].HTTP = slices.Clone(r.Spec.VirtualServices[1].HTTP[1:])
	r.Spec.VirtualServices[1].HTTP[0].CorsPolicy = nil
	if got := renderNamed(t, r, "reviews-edge", made); !cmp.Equal(made, got) {
		t.Errorf("not decided yet:\n%s", cmp.Diff(made, got))
	}
	before := r.Status.VirtualServices[1].Routes
	r.Status.VirtualServices = described(r)
	r.Status.VirtualServices[1].Routes = append(r.Status.VirtualServices[1].Routes, before[0])
	got := renderNamed(t, r, "reviews-edge", made)
	if diff := cmp.Diff([]string{"primary", "primary-44023141"}, routeKeys(httpList.of(got))); diff != "" {
		t.Error(diff)
	}
	if _, kept := httpRoutes(got)[0]["corsPolicy"]; kept {
		t.Errorf("corsPolicy is described no more: %v", httpRoutes(got)[0])
	}
	r.Spec.VirtualServices = nil
	if _, problem := VirtualService(r, r.Status.VirtualServices[1], nil); problem == nil || problem.Reason != v1.ReasonVirtualServiceNotFound {
		t.Errorf("gone, and described no more: %+v", problem)
	}
}

// TestDescribedAfterItWasMade: the one route of a VirtualService that was made without a description, which takes every request, goes
// when routes of other names are described, be it for the Rollout that made it or for one after it.
func TestDescribedAfterItWasMade(t *testing.T) {
	for _, text := range []string{describing, describingTCP, describingTLS} {
		bare := atRest(t, text)
		name := bare.Name
		bare.Spec.VirtualServices = nil
		bare.Status.VirtualServices = []v1.ManagedVirtualService{{Name: name, Created: true}}
		made := renderNamed(t, bare, name, nil)
		for who, before := range map[string][]v1.ManagedVirtualService{"itself": bare.Status.VirtualServices, "an earlier one": nil} {
			r := atRest(t, text)
			r.Spec.VirtualServices = []v1.VirtualService{{
				HTTP: []v1.HTTPRouteTemplate{{Name: "all"}},
				TCP:  []v1.TCPRouteTemplate{{Match: v1.L4Matches{{Port: 31400}}}},
				TLS:  []v1.TLSRouteTemplate{{Match: v1.TLSMatches{{Port: 443, SniHosts: []string{"a.example.com"}}}}},
			}}
			r.Status.VirtualServices = before
			r.Status.VirtualServices = Survey(r, []*unstructured.Unstructured{made}, nil).Described
			got := renderNamed(t, r, name, made)
			want := routeKeys(drivenList(r).of(describedVirtualService(r, r.Described()[0])))
			if diff := cmp.Diff(want, routeKeys(drivenList(r).of(got))); diff != "" {
				t.Errorf("%s, made by %s: -want +got:\n%s", name, who, diff)
			}
		}
	}
}

func TestDescribedConflicts(t *testing.T) {
	const made = "kind: VirtualService\nmetadata: {name: %, namespace: bookinfo, labels: {app.kubernetes.io/managed-by: sluice}}\nspec: "
	const theirs = "kind: VirtualService\nmetadata: {name: %, namespace: bookinfo}\nspec: "
	toReviews := "http: [{route: [{destination: {host: reviews}}]}]}"
	for name, test := range map[string]struct {
		spec   string
		found  []string
		reason string
		says   string
	}{
		"free":        {spec: `[{name: edge, gateways: [gw], hosts: ["*"]}, {name: inner, http: [{timeout: 1s}]}]`},
		"spelled out": {spec: `[{hosts: [reviews, reviews.bookinfo, reviews.bookinfo.svc]}]`},
		"beside ours": {spec: `[{name: edge, gateways: [gw], hosts: ["*"]}, {}]`, found: []string{named(theirs, "own") + "{hosts: [reviews], " + toReviews}},
		"taken back":  {spec: `[{http: [{timeout: 1s}]}]`, found: []string{named(made, "reviews") + "{hosts: [reviews], " + toReviews}},
		"adopted": {
			spec: `[{http: [{timeout: 1s}]}]`, found: []string{named(theirs, "reviews") + "{hosts: [reviews], " + toReviews},
			reason: v1.ReasonInvalidSpec, says: "VirtualService reviews is there and Sluice did not make it",
		},
		"another host's": {
			spec: `[{http: [{timeout: 1s}]}]`, found: []string{named(made, "reviews") + "{hosts: [ratings], http: [{route: [{destination: {host: ratings}}]}]}"},
			reason: v1.ReasonHostConflict, says: "VirtualService reviews is there already, for another host",
		},
		"two of one name": {
			spec: `[{http: [{timeout: 1s}]}, {name: reviews, gateways: [gw]}]`, reason: v1.ReasonInvalidSpec, says: "describes reviews twice",
		},
		"two of one host": {
			spec: `[{name: a, gateways: [mesh, gw]}, {name: b, gateways: [bookinfo/gw], hosts: [reviews.bookinfo.svc.cluster.local]}]`, reason: v1.ReasonHostConflict,
			says: "VirtualServices a, which spec.virtualServices describes, and b both bind host reviews.bookinfo.svc.cluster.local on gateway bookinfo/gw",
		},
		"an unmanaged one": {
			spec:  `[{name: edge, gateways: [gw], hosts: [shop.example.com]}]`,
			found: []string{named(theirs, "shop") + "{gateways: [gw], hosts: [shop.example.com], http: [{route: [{destination: {host: shop}}]}]}"}, reason: v1.ReasonHostConflict,
			says: "VirtualServices edge, which spec.virtualServices describes, and shop both bind host shop.example.com",
		},
		"foreign in the mesh": {
			spec: `[{name: edge, hosts: [reviews.other.svc.cluster.local]}]`, reason: v1.ReasonForeignHost, says: "describes edge for host reviews.other.svc.cluster.local and for all sidecars",
		},
		"same match twice": {
			spec: `[{http: [{name: a}, {match: [{uri: {prefix: /a}}]}, {match: [{uri: {prefix: /b}}]}, {match: [{uri: {prefix: /b}}]}]}]`, reason: v1.ReasonInvalidSpec, says: "two routes primary-",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := &v1.Rollout{}
			text := "metadata: {name: reviews, namespace: bookinfo}\nspec: {host: reviews, version: v3, virtualServices: " + test.spec + "}"
			if err := yaml.UnmarshalStrict([]byte(text), r); err != nil {
				t.Fatal(err)
			}
			var found []*unstructured.Unstructured
			for _, document := range test.found {
				found = append(found, parseObject(t, []byte(document)))
			}
			got := Survey(r, found, nil)
			switch problem := got.Problem; {
			case test.reason == "" && problem == nil:
			case problem == nil || problem.Reason != test.reason || !strings.Contains(problem.Message, test.says):
				t.Errorf("problem %+v, want %s: %s", problem, test.reason, test.says)
			}
		})
	}
}

func named(text, name string) string { return strings.ReplaceAll(text, "%", name) }
