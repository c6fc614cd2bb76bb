package controllertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// atGateway is reached from outside: a redirect, a route that pins v2, and one that sends to v1.
const atGateway = `
hosts: [www.example.com]
gateways: [public/www]
http:
- {match: [{uri: {exact: /}}], redirect: {uri: /reviews}}
- {name: old.api, match: [{uri: {prefix: /v0}}], route: [{destination: {host: reviews, subset: v2}}]}
- match: [{uri: {prefix: /reviews}, port: 8080}]
  rewrite: {uri: /}
  route: [{destination: {host: reviews, subset: v1}, headers: {request: {set: {x-entry: www}}}}]
`

// adopt makes the VirtualService reviews for the mesh and edge for a gateway, and their rule.
func (w *world) adopt() {
	w.t.Helper()
	w.create(&networking.VirtualService{ObjectMeta: metav1.ObjectMeta{Name: "reviews"}, Spec: *routeTo("reviews", "v1")})
	w.createRaw("edge", atGateway)
	w.create(&networking.DestinationRule{ObjectMeta: metav1.ObjectMeta{Name: "reviews"}, Spec: *subsetOf("reviews", "v1")})
}

// createRaw makes a VirtualService from the YAML of its spec, fields that Istio does not know included.
func (w *world) createRaw(name, spec string) {
	w.t.Helper()
	raw := &unstructured.Unstructured{Object: map[string]any{}}
	raw.SetGroupVersionKind(networking.SchemeGroupVersion.WithKind("VirtualService"))
	raw.SetName(name)
	var fields map[string]any
	if err := yaml.Unmarshal([]byte(spec), &fields); err != nil {
		w.t.Fatal(err)
	}
	raw.Object["spec"] = fields
	w.create(raw)
}

func (w *world) raw(name string) *unstructured.Unstructured {
	w.t.Helper()
	raw := &unstructured.Unstructured{}
	raw.SetGroupVersionKind(networking.SchemeGroupVersion.WithKind("VirtualService"))
	if err := w.client.Get(w.t.Context(), w.key(name), raw); err != nil {
		w.t.Fatal(err)
	}
	return raw
}

// TestTwoVirtualServices: both are driven alike, a rollback writes each once, and both are as they were in the end.
func TestTwoVirtualServices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.adopt()
	before := map[string]any{"reviews": w.raw("reviews").Object["spec"], "edge": w.raw("edge").Object["spec"]}
	w.rollout(gated)
	r := w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	if want := []string{"edge/old.api: pins subset v2"}; !slices.Equal(r.Status.SkippedRoutes, want) {
		t.Errorf("skipped %q, want %q", r.Status.SkippedRoutes, want)
	}
	w.push("v3")
	w.awaitRoutes("reviews", "v1 50, v3 50")
	w.awaitRoutes("edge", "; v2; v1 50, v3 50")
	w.await("the step's last write is acknowledged", func(r *v1.Rollout) bool { return r.Status.Step != nil && r.Status.Step.Applied != nil })
	generations := map[string]int64{"reviews": w.raw("reviews").GetGeneration(), "edge": w.raw("edge").GetGeneration()}
	w.evidence(pipeline.Fail)
	w.awaitPhase(v1.PhaseRolledBack, v1.ReasonGateFailed)
	w.awaitRoutes("reviews", "v1")
	w.awaitRoutes("edge", "; v2; v1")
	for name, generation := range generations {
		got := w.raw(name)
		if got.GetGeneration() != generation+1 {
			t.Errorf("the rollback wrote VirtualService %s %d times, want once", name, got.GetGeneration()-generation)
		}
		if diff := cmp.Diff(before[name], got.Object["spec"]); diff != "" {
			t.Errorf("the run left something on VirtualService %s (-before +after):\n%s", name, diff)
		}
	}
}

// TestNamedRoutes: each way in which what spec.virtualServices names does not fit stalls with its reason, writes nothing, and is
// over as soon as the spec or the mesh is right.
func TestNamedRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.adopt()
	w.createRaw("mixed", "{hosts: [mixed.example.com], http: [{name: both, route: [{destination: {host: reviews}, weight: 50}, {destination: {host: other}, weight: 50}]}]}")
	written := w.versions()
	w.rollout("host: reviews\nversion: v1\nsteps: []\nvirtualServices: [{name: gone}]\n")
	w.awaitPhase(v1.PhaseStalled, v1.ReasonVirtualServiceNotFound)
	for _, tc := range []struct{ entries, reason, says string }{
		{"[{name: reviews, routes: [{name: main}]}]", v1.ReasonRouteNotFound, "VirtualService reviews has no route to reviews of name main"},
		{"[{name: mixed, routes: [{name: both}]}]", v1.ReasonMixedRoute, "route both of VirtualService mixed"},
		{"[{name: reviews}, {name: edge, routes: [{port: 80}]}]", v1.ReasonRouteNotFound, "of port 80"},
	} {
		w.manages(tc.entries)
		r := w.await(tc.reason, func(r *v1.Rollout) bool {
			return r.Status.Reason == tc.reason && r.Status.ObservedGeneration == r.Generation
		})
		if !strings.Contains(r.Status.Message, tc.says) {
			t.Errorf("%s: message %q, want one that says %q", tc.entries, r.Status.Message, tc.says)
		}
	}
	for name, version := range w.versions() {
		if !strings.Contains(name, "Rollout") && written[name] != version {
			t.Errorf("%s was written", name)
		}
	}
	w.manages("[{name: reviews}, {name: edge, routes: [{port: 8080}]}]")
	r := w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	if got := len(r.Status.VirtualServices); got != 2 {
		t.Errorf("%d VirtualServices are managed, want 2: %+v", got, r.Status.VirtualServices)
	}
}

// manages sets spec.virtualServices.
func (w *world) manages(entries string) {
	w.t.Helper()
	var parsed []v1.VirtualService
	if err := yaml.UnmarshalStrict([]byte(entries), &parsed); err != nil {
		w.t.Fatal(err)
	}
	w.edit(func(r *v1.Rollout) { r.Spec.VirtualServices = parsed })
}

// TestSecondVirtualService: in mid-run another one for a gateway is no conflict, one for the mesh is, until it is gone. A driven one
// that was taken away for good is let go when the spec names what is left.
func TestSecondVirtualService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.adopt()
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.awaitRoutes("edge", "; v2; v1 50, v3 50")
	twin := &networking.VirtualService{ObjectMeta: metav1.ObjectMeta{Name: "twin"}, Spec: *routeTo("reviews", "v1")}
	w.create(twin)
	r := w.awaitPhase(v1.PhaseStalled, v1.ReasonHostConflict)
	if !strings.Contains(r.Status.Message, "twin is not managed") {
		t.Errorf("message %q does not name the second one", r.Status.Message)
	}
	if err := w.client.Delete(t.Context(), twin); err != nil {
		t.Fatal(err)
	}
	other := &networking.VirtualService{ObjectMeta: metav1.ObjectMeta{Name: "other"}, Spec: *routeTo("reviews", "v1")}
	other.Spec.Gateways = []string{"public/other"}
	w.create(other)
	w.await("the run goes on", func(r *v1.Rollout) bool { return r.Status.Phase == v1.PhaseProgressing })
	w.push("v1")
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)

	if err := w.client.Delete(t.Context(), w.raw("edge")); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(v1.PhaseStalled, v1.ReasonVirtualServiceNotFound)
	w.manages("[{name: reviews}]")
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.gone(&networking.VirtualService{}, "edge")
}

// TestNamesThatAreTaken: what bears the name of something that is to be made, for another host, is told of, and its end is noticed.
func TestNamesThatAreTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	routing := &networking.VirtualService{ObjectMeta: metav1.ObjectMeta{Name: "reviews"}, Spec: *routeTo("details", "v1")}
	rule := &networking.DestinationRule{ObjectMeta: metav1.ObjectMeta{Name: "reviews"}, Spec: *subsetOf("details", "v1")}
	w.create(routing)
	w.create(rule)
	w.rollout(gated)
	for _, taken := range []struct {
		object client.Object
		says   string
	}{{routing, "VirtualService reviews is there already"}, {rule, "DestinationRule reviews is there already"}} {
		w.await(taken.says, func(r *v1.Rollout) bool {
			return r.Status.Reason == v1.ReasonHostConflict && strings.Contains(r.Status.Message, taken.says)
		})
		if err := w.client.Delete(t.Context(), taken.object); err != nil {
			t.Fatal(err)
		}
	}
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
}

// TestForeignFields: what is not ours, a mirror of its own and other blocks included, outlives a run and a return.
func TestForeignFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(&networking.DestinationRule{ObjectMeta: metav1.ObjectMeta{Name: "reviews"}, Spec: *subsetOf("reviews", "v1")})
	w.create(&networking.VirtualService{
		ObjectMeta: metav1.ObjectMeta{Name: "reviews", Labels: map[string]string{"team": "books"}, Annotations: map[string]string{"note": "1.50"}},
		Spec: istio.VirtualService{
			Hosts: []string{"reviews", "reviews.example.com"}, ExportTo: []string{"."},
			Http: routeTo("reviews", "v1").Http,
			Tcp:  []*istio.TCPRoute{{Route: []*istio.RouteDestination{{Destination: &istio.Destination{Host: "reviews", Subset: "v1"}}}}},
		},
	})
	patch := client.RawPatch("application/json-patch+json", []byte(`[{"op":"add","path":"/spec/http/0/mirrorPercentage","value":{"value":12.5}},
		{"op":"add","path":"/spec/http/0/mirror","value":{"host":"audit"}},{"op":"add","path":"/spec/http/0/route/0/weight","value":100}]`))
	if err := w.client.Patch(t.Context(), w.raw("reviews"), patch); err != nil {
		t.Fatal(err)
	}
	before := w.raw("reviews")
	w.rollout(walk)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.eventually("the own mirror stands beside the step's", func() error {
		if mirrors := fmt.Sprint(w.raw("reviews").Object["spec"]); !strings.Contains(mirrors, "mirrors") || !strings.Contains(mirrors, "audit") {
			return fmt.Errorf("it is %s", mirrors)
		}
		return nil
	})
	w.await("v3 is stable", func(r *v1.Rollout) bool { return r.Status.Stable == "v3" && r.Status.Phase == v1.PhaseHealthy })
	w.push("v1")
	w.await("v1 is stable again", func(r *v1.Rollout) bool { return r.Status.Stable == "v1" && r.Status.Phase == v1.PhaseHealthy })
	after := w.raw("reviews")
	for _, u := range []*unstructured.Unstructured{before, after} {
		for _, field := range []string{"resourceVersion", "generation", "managedFields"} {
			unstructured.RemoveNestedField(u.Object, "metadata", field)
		}
	}
	if diff := cmp.Diff(before.Object, after.Object); diff != "" {
		t.Errorf("(-before +after):\n%s", diff)
	}
}
