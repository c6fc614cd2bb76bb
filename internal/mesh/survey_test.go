package mesh

import (
	"bytes"
	stdcmp "cmp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

// parseAll reads documents that hold only name and spec.
func parseAll(t testing.TB, kind, documents string) []*unstructured.Unstructured {
	t.Helper()
	var all []*unstructured.Unstructured
	for _, document := range bytes.Split([]byte(documents), []byte("\n---\n")) {
		if len(bytes.TrimSpace(document)) == 0 {
			continue
		}
		header := "apiVersion: networking.istio.io/v1\nkind: " + kind + "\n"
		all = append(all, parseObject(t, append([]byte(header), document...)))
	}
	return all
}

func parseRollout(t testing.TB, text string) *v1.Rollout {
	t.Helper()
	r := &v1.Rollout{}
	if err := yaml.UnmarshalStrict([]byte(text), r); err != nil {
		t.Fatal(err)
	}
	return r
}

const (
	plainReviews = `
metadata: {name: reviews, namespace: bookinfo}
spec: {hosts: [reviews], http: [{name: primary, route: [{destination: {host: reviews, subset: v1}}]}]}`
	plainRule = `
metadata: {name: reviews, namespace: bookinfo}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: bare}, {name: odd, labels: {n: 1}}]}`
	edge = `
metadata: {name: edge, namespace: bookinfo}
spec: {hosts: [book.example.com], gateways: [gw], http: [{route: [{destination: {host: reviews.bookinfo.svc.cluster.local}, weight: 100}]}]}`
	ratings = `
metadata: {name: ratings, namespace: bookinfo}
spec: {hosts: [ratings], http: [{route: [{destination: {host: ratings}}]}]}`
)

func TestSurvey(t *testing.T) {
	primary := []v1.ManagedVirtualService{{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1"}}}}
	twin := []v1.ManagedVirtualService{{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1", Namesakes: 1}}}}
	for name, tc := range map[string]struct {
		spec            string // more of the Rollout's spec
		services, rules string
		want            Surveyed
		problem         string // what the message must say
		reason          string // of the problem, if it is no HostConflict
	}{
		"nothing there": {},
		"one of each": {
			services: plainReviews + "\n---\n" + ratings, rules: plainRule,
			want: Surveyed{
				VirtualServices: primary, DestinationRule: &v1.ManagedDestinationRule{Name: "reviews"},
				Subsets: []v1.Subset{{Name: "v1", Labels: map[string]string{"version": "v1"}}, {Name: "bare"}, {Name: "odd"}},
			},
		},
		"behind a gateway, without a name": {
			services: edge,
			want: Surveyed{VirtualServices: []v1.ManagedVirtualService{{Name: "edge", Routes: []v1.ManagedRoute{
				{Key: "#74234e98", Weighted: true},
			}}}},
		},
		"routes that can not be driven": {
			services: `
metadata: {name: reviews, namespace: bookinfo}
spec:
  hosts: [reviews]
  http:
  - {name: mixed, match: [{uri: {prefix: /m}}], route: [{destination: {host: reviews}, weight: 50}, {destination: {host: ratings}, weight: 50}]}
  - {name: split, match: [{uri: {prefix: /s}}], route: [{destination: {host: reviews, subset: v1}, weight: 50}, {destination: {host: reviews, subset: v2}, weight: 50}]}
  - {name: gone, redirect: {uri: /}}
  - {name: sluice-match-other-0, route: [{destination: {host: reviews, subset: v9}}]}
  - {name: elsewhere, route: [{destination: {host: reviews.bookinfo}}]}
  - {name: primary, route: [{destination: {host: reviews, subset: v1}}]}
  - {name: primary, route: [{destination: {host: reviews, subset: v2}}]}`,
			want: Surveyed{
				VirtualServices: twin, SplitRoutes: true, SkippedRoutes: []string{
					"reviews/mixed: has destinations on several hosts", "reviews/split: splits already",
					"reviews/primary: another route of this name or match comes before it",
				},
			},
		},
		"tcp and tls are left alone": {
			services: `
metadata: {name: raw, namespace: bookinfo}
spec: {hosts: [reviews.example.com], tcp: [{route: [{destination: {host: reviews}}]}], tls: [{route: [{destination: {host: reviews}}]}]}`,
			want: Surveyed{SkippedRoutes: []string{
				"raw/#74234e98: stands under tcp, protocol HTTP drives routes under http",
				"raw/#74234e98: stands under tls, protocol HTTP drives routes under http",
			}},
		},
		"a VirtualService that another Rollout's fault brought": {
			services: strings.NewReplacer("name: reviews,", "name: page-fault-reviews,", "http: [", "http: [{name: sluice-fault-page-0, route: [{destination: {host: reviews}}]}, ").Replace(plainReviews),
			problem:  "VirtualService page-fault-reviews was made for the fault of Rollout page on reviews and goes with it",
		},
		"a delegate, and what delegates to it": {
			services: "metadata: {name: part, namespace: bookinfo}\nspec: {http: [{name: primary, route: [{destination: {host: reviews, subset: v1}}]}]}\n---\n" +
				"metadata: {name: root, namespace: bookinfo}\nspec: {hosts: [book.example.com], gateways: [gw], http: [{delegate: {name: part}}]}",
			want: Surveyed{VirtualServices: []v1.ManagedVirtualService{{Name: "part", Routes: primary[0].Routes}}},
		},
		"hosts with a wildcard route here": {
			services: strings.ReplaceAll(plainReviews, "hosts: [reviews]", `hosts: ["*.bookinfo.svc.cluster.local"]`), want: Surveyed{VirtualServices: primary},
		},
		"the host in full": {
			services: strings.ReplaceAll(plainReviews, "[reviews]", "[reviews.bookinfo.svc.cluster.local]"), want: Surveyed{VirtualServices: primary},
		},
		"one for the mesh, one for a gateway": {
			services: plainReviews + "\n---\n" + edge,
			want:     Surveyed{VirtualServices: []v1.ManagedVirtualService{{Name: "edge", Routes: []v1.ManagedRoute{{Key: "#74234e98", Weighted: true}}}, primary[0]}},
		},
		"two for the mesh": {
			services: plainReviews + "\n---\n" + strings.ReplaceAll(plainReviews, "name: reviews", "name: twin"),
			want:     Surveyed{VirtualServices: []v1.ManagedVirtualService{primary[0], {Name: "twin", Routes: primary[0].Routes}}},
		},
		"two for the mesh, one of them to be managed": {
			spec: ", virtualServices: [{name: reviews}]", services: plainReviews + "\n---\n" + strings.ReplaceAll(plainReviews, "name: reviews", "name: twin"),
			problem: "VirtualServices reviews and twin both bind host reviews on gateway mesh, and twin is not managed",
		},
		"two for the mesh, one by a wildcard": {
			spec: ", virtualServices: [{name: wild}]", problem: "VirtualServices wild and reviews both bind host reviews on gateway mesh",
			services: plainReviews + "\n---\n" + strings.NewReplacer("name: reviews", "name: wild", "[reviews]", `["*.svc.cluster.local"]`).Replace(plainReviews),
		},
		"two for one gateway, one of them to be managed": {
			spec: ", virtualServices: [{name: reviews}]", problem: "VirtualServices reviews and twin both bind host reviews on gateway bookinfo/gw",
			services: strings.ReplaceAll(plainReviews, "hosts: [reviews]", "hosts: [reviews], gateways: [gw]") + "\n---\n" +
				strings.NewReplacer("name: reviews", "name: twin", "hosts: [reviews]", "hosts: [reviews], gateways: [./gw]").Replace(plainReviews),
		},
		"one for a gateway, another binds the host's name": {
			services: edge + "\n---\n" + strings.ReplaceAll(ratings, "[ratings]", "[reviews]"),
			want:     Surveyed{VirtualServices: []v1.ManagedVirtualService{{Name: "edge", Routes: []v1.ManagedRoute{{Key: "#74234e98", Weighted: true}}}}},
		},
		"one for the mesh, another binds the host's name there": {
			services: plainReviews + "\n---\n" + strings.ReplaceAll(ratings, "[ratings]", "[reviews]"),
			problem:  "VirtualServices reviews and ratings both bind host reviews on gateway mesh, and ratings is not managed",
		},
		"a redirect hides a route of its name": {
			services: strings.ReplaceAll(plainReviews, "http: [", "http: [{name: primary, redirect: {uri: /}}, "),
			want: Surveyed{VirtualServices: []v1.ManagedVirtualService{{Name: "reviews"}}, SkippedRoutes: []string{
				"reviews/primary: another route of this name or match comes before it",
			}},
		},
		"bound without a route": {services: strings.ReplaceAll(ratings, "[ratings]", "[reviews]"), problem: "VirtualService ratings binds host reviews but has no HTTP route to it"},
		"bound on a gateway only": {
			services: plainReviews + "\n---\n" + strings.ReplaceAll(ratings, "hosts: [ratings]", "gateways: [gw], hosts: [reviews]"),
			want:     Surveyed{VirtualServices: primary},
		},
		"hosts of a wrong type":     {services: "metadata: {name: a}\nspec: {hosts: 1}\n---\nmetadata: {name: b}\nspec: {hosts: [reviews], gateways: 1}"},
		"another name is asked for": {spec: ", virtualServices: [{name: mine}]", services: plainReviews, reason: v1.ReasonVirtualServiceNotFound, problem: "spec.virtualServices names mine, which is not there, and reviews routes to reviews"},
		"the name to make is taken": {services: strings.ReplaceAll(ratings, "name: ratings", "name: reviews"), problem: "VirtualService reviews is there already, for another host"},
		"the name asked for is taken": {
			spec: ", virtualServices: [{name: ratings}]", services: ratings, problem: "VirtualService ratings is there already",
		},
		"two rules":             {rules: plainRule + "\n---\n" + strings.ReplaceAll(plainRule, "name: reviews", "name: second"), problem: "DestinationRules reviews, second are all for host reviews"},
		"another rule is named": {spec: ", destinationRule: {name: mine}", rules: plainRule, problem: "spec.destinationRule names mine"},
		"a rule of that name for another host": {
			rules: strings.ReplaceAll(plainRule, "host: reviews", "host: ratings"), problem: "DestinationRule reviews is there already, for another host",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := parseRollout(t, "metadata: {name: reviews, namespace: bookinfo}\nspec: {host: reviews, version: v3"+tc.spec+"}")
			got := Survey(r, parseAll(t, "VirtualService", tc.services), parseAll(t, "DestinationRule", tc.rules))
			if tc.problem != "" {
				checkProblem(t, got.Problem, stdcmp.Or(tc.reason, v1.ReasonHostConflict), tc.problem)
				return
			}
			got.PinnedSubsets = nil // see TestPinnedSubsets
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestPinnedSubsets: what the Rollout drives and what it inserted pins nothing.
func TestPinnedSubsets(t *testing.T) {
	services := parseAll(t, "VirtualService", `
metadata: {name: reviews, namespace: bookinfo}
spec:
  http:
  - {name: sluice-match-reviews-0, route: [{destination: {host: reviews, subset: copy}}]}
  - {name: primary, route: [{destination: {host: reviews, subset: driven}}], mirrors: [{destination: {host: reviews, subset: canary}}]}
  - {name: old, route: [{destination: {host: reviews, subset: old}}]}
  tcp: [{route: [{destination: {host: reviews, subset: raw}}]}]
---
metadata: {name: made, namespace: bookinfo}
spec: {http: [{name: primary, route: [{destination: {host: reviews, subset: driven}}]}]}
---
metadata: {name: empty, namespace: bookinfo}
---
metadata: {name: other, namespace: bookinfo}
spec: {http: [{name: sluice-fault-ratings-0, route: [{destination: {host: reviews, subset: other}}]}]}`)
	r := parseRollout(t, `
metadata: {name: reviews, namespace: bookinfo}
spec: {host: reviews, version: v3}
status: {virtualServices: [{name: reviews, routes: [{key: primary}]}, {name: made, created: true}, {name: empty}]}`)
	before := services[0].DeepCopy()
	if diff := cmp.Diff([]string{"old", "other", "raw"}, Survey(r, services, nil).PinnedSubsets); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(before, services[0]); diff != "" {
		t.Errorf("the survey changed what it looked at:\n%s", diff)
	}
}

func checkProblem(t *testing.T, got *Problem, reason, says string) {
	t.Helper()
	if got == nil || got.Reason != reason || !strings.Contains(got.Message, says) {
		t.Errorf("problem %+v, want a %s that says %q", got, reason, says)
	}
}

// What the Rollout itself does to the mesh in mid-run is no conflict; a second object for the host is one.
func TestSurveyInMidRun(t *testing.T) {
	const status = `
metadata: {name: reviews, namespace: bookinfo}
spec: {host: reviews, version: v3}
status:
  run: {number: 1, from: v1, to: v3, startedAt: null}
  virtualServices: [{name: site, routes: [{key: primary, subset: v1}]}]
  destinationRule: {name: site}
  faultVirtualService: {name: reviews-fault-ratings, created: true}`
	const site = `
metadata: {name: site, namespace: bookinfo}
spec:
  hosts: [reviews]
  http:
  - {name: sluice-fault-page-0, match: [{headers: {a: {exact: b}}}], fault: {}, route: [{destination: {host: reviews, subset: v1}}]}
  - {name: sluice-match-reviews-0, match: [{headers: {a: {exact: b}}}], route: [{destination: {host: reviews, subset: v3}}]}
  - {name: primary, mirrors: [{destination: {host: reviews, subset: v3}}], route: [{destination: {host: reviews, subset: v1}, weight: 50}, {destination: {host: reviews, subset: v3}, weight: 50}]}`
	const carrier = `
metadata: {name: reviews-fault-ratings, namespace: bookinfo, labels: {app.kubernetes.io/managed-by: sluice}}
spec: {hosts: [ratings], http: [{name: sluice-fault-reviews-0, fault: {}, route: [{destination: {host: ratings}}]}, {name: primary, route: [{destination: {host: ratings}}]}]}`
	rule := strings.Replace(plainRule, "name: reviews", "name: site", 1)
	for name, tc := range map[string]struct{ services, rules, problem string }{
		"split, with copies and a fault elsewhere": {services: site + "\n---\n" + carrier, rules: rule},
		"its routes are gone":                      {services: "metadata: {name: site}\nspec: {hosts: [reviews]}", rules: rule},
		"its VirtualService is gone, one of the Rollout's name is for another host": {
			services: strings.Replace(ratings, "name: ratings", "name: reviews", 1), rules: rule,
		},
		"its rule is gone, one of the Rollout's name is for another host": {
			services: site, rules: strings.Replace(plainRule, "host: reviews", "host: ratings", 1),
		},
		"a second VirtualService for a gateway": {services: site + "\n---\n" + edge, rules: rule},
		"a second VirtualService": {
			services: site + "\n---\n" + plainReviews, rules: rule, problem: "VirtualServices site and reviews both bind host reviews on gateway mesh, and reviews is not managed",
		},
		"a second rule":              {services: site, rules: rule + "\n---\n" + plainRule, problem: "DestinationRules reviews, site are all for host reviews"},
		"its rule has another host":  {services: site, rules: strings.Replace(rule, "host: reviews", "host: ratings", 1), problem: "DestinationRule site is there already, for another host"},
		"bound by one without route": {services: site + "\n---\n" + strings.Replace(ratings, "[ratings]", "[reviews]", 1), rules: rule, problem: "VirtualServices site and ratings both bind host reviews on gateway mesh"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Survey(parseRollout(t, status), parseAll(t, "VirtualService", tc.services), parseAll(t, "DestinationRule", tc.rules)).Problem
			switch {
			case tc.problem == "" && got != nil:
				t.Errorf("problem %+v, want none", got)
			case tc.problem != "" && (got == nil || !strings.Contains(got.Message, tc.problem)):
				t.Errorf("problem %+v, want one that says %q", got, tc.problem)
			}
		})
	}
}

func TestSurveyFault(t *testing.T) {
	named := strings.ReplaceAll(ratings, "name: ratings", "name: reviews-fault-ratings")
	made := strings.ReplaceAll(named, "name: reviews-fault-ratings", "labels: {app.kubernetes.io/managed-by: sluice}, name: reviews-fault-ratings")
	for name, tc := range map[string]struct {
		host, services string
		want           v1.ManagedVirtualService
		problem        string
	}{
		"nothing there":       {host: "ratings", services: plainReviews, want: v1.ManagedVirtualService{Name: "reviews-fault-ratings", Created: true}},
		"spelled in full":     {host: "ratings.bookinfo.svc.cluster.local", want: v1.ManagedVirtualService{Name: "reviews-fault-ratings", Created: true}},
		"no Service":          {host: "api.io", want: v1.ManagedVirtualService{Name: SubsetName("reviews-fault-api.io"), Created: true}},
		"adopted":             {host: "ratings", services: ratings, want: v1.ManagedVirtualService{Name: "ratings"}},
		"made before":         {host: "ratings", services: made, want: v1.ManagedVirtualService{Name: "reviews-fault-ratings", Created: true}},
		"a person's":          {host: "ratings", services: named, want: v1.ManagedVirtualService{Name: "reviews-fault-ratings"}},
		"behind a gateway":    {host: "ratings", services: strings.ReplaceAll(ratings, "hosts: [ratings]", "gateways: [gw], hosts: [a.io]"), want: v1.ManagedVirtualService{Name: "reviews-fault-ratings", Created: true}},
		"two of them":         {host: "ratings", services: ratings + "\n---\n" + named, problem: "[ratings reviews-fault-ratings] all concern fault host ratings"},
		"beside one made":     {host: "ratings", services: ratings + "\n---\n" + made, want: v1.ManagedVirtualService{Name: "ratings"}},
		"the name is taken":   {host: "ratings", services: strings.ReplaceAll(plainReviews, "name: reviews", "name: reviews-fault-ratings"), problem: "reviews-fault-ratings, which would carry the fault on ratings, is there already"},
		"gateways wrong type": {host: "ratings", services: strings.ReplaceAll(ratings, "hosts: [ratings]", "gateways: 1"), want: v1.ManagedVirtualService{Name: "reviews-fault-ratings", Created: true}},
	} {
		t.Run(name, func(t *testing.T) {
			r := parseRollout(t, "metadata: {name: reviews, namespace: bookinfo}\nspec: {host: reviews, version: v3}")
			got, problem := SurveyFault(r, tc.host, parseAll(t, "VirtualService", tc.services))
			if tc.problem != "" {
				if problem == nil || problem.Reason != v1.ReasonHostConflict || !strings.Contains(problem.Message, tc.problem) {
					t.Errorf("problem %+v, want a HostConflict that says %q", problem, tc.problem)
				}
				return
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || problem != nil {
				t.Errorf("problem %+v, -want +got:\n%s", problem, diff)
			}
		})
	}
}

func TestMadeForFaultOf(t *testing.T) {
	named := strings.ReplaceAll(ratings, "name: ratings", "name: reviews-fault-ratings")
	made := strings.ReplaceAll(named, "name: reviews-fault-ratings", "labels: {app.kubernetes.io/managed-by: sluice}, name: reviews-fault-ratings")
	for name, tc := range map[string]struct {
		rollout, service string
		want             bool
	}{
		"made for it":         {"reviews", made, true},
		"in full":             {"reviews", strings.ReplaceAll(made, "[ratings]", "[ratings.bookinfo.svc.cluster.local]"), true},
		"another Rollout's":   {"page", made, false},
		"a person's":          {"reviews", named, false},
		"for another host":    {"reviews", strings.ReplaceAll(made, "[ratings]", "[details]"), false},
		"hosts of wrong type": {"reviews", strings.ReplaceAll(made, "[ratings]", "7"), false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := MadeForFaultOf(tc.rollout, parseAll(t, "VirtualService", tc.service)[0]); got != tc.want {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestReferences(t *testing.T) {
	services := parseAll(t, "VirtualService", `
metadata: {name: all}
spec:
  http:
  - route: [{destination: {host: reviews, subset: a}}, {destination: {host: ratings, subset: no}}, {destination: {host: reviews}}]
    mirror: {host: reviews, subset: b}
  - {mirrors: [{destination: {host: reviews.bookinfo.svc.cluster.local, subset: c}}], route: [{}, 7]}
  tcp: [{route: [{destination: {host: reviews, subset: d}}]}]
  tls: [{route: [{destination: {host: reviews, subset: e}}]}]
---
metadata: {name: none}`)
	want := map[string]bool{"a": true, "b": true, "c": true, "d": true, "e": true}
	if diff := cmp.Diff(want, References(services, "bookinfo", "reviews")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
