package controllertest

import (
	"slices"
	"strings"
	"testing"

	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

// entries replaces spec.virtualServices.
func (w *world) entries(list string) {
	w.t.Helper()
	var entries []v1.VirtualService
	if err := yaml.UnmarshalStrict([]byte(list), &entries); err != nil {
		w.t.Fatal(err)
	}
	w.edit(func(r *v1.Rollout) { r.Spec.VirtualServices = entries })
}

func (w *world) awaitEvent(reason string) {
	w.t.Helper()
	w.await("event "+reason, func(*v1.Rollout) bool { return slices.Contains(w.events(), reason) })
}

const edgeEntry = "{name: edge, gateways: [books], hosts: [books.example.com], http: [{match: [{uri: {exact: /reviews}}]}]}"

// TestEntryTakenOut: what Sluice made goes with its entry, in mid-run and at rest, and after what is made in its place.
func TestEntryTakenOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated + "virtualServices: [{http: [{timeout: 3s}]}, " + edgeEntry + "]")
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.awaitRoutes("edge", "v1 50, v3 50")
	w.entries("[{http: [{timeout: 3s}]}]")
	w.gone(&networking.VirtualService{}, "edge")
	w.awaitRoutes("reviews", "v1 50, v3 50") // of the new run
	w.awaitEvent("VirtualServiceRemoved")
	w.push("v1")
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.entries("[{name: main, http: [{timeout: 3s}]}]")
	w.gone(&networking.VirtualService{}, "reviews")
	w.awaitRoutes("main", "v1")
	w.await("main alone is driven", func(r *v1.Rollout) bool {
		return len(r.Status.VirtualServices) == 1 && r.Status.VirtualServices[0].Name == "main" && r.Status.Phase == v1.PhaseHealthy
	})
}

// TestEntryThatMovesToGit: whoever applies an object of the same name as its entry goes keeps it.
func TestEntryThatMovesToGit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated + "virtualServices: [{http: [{timeout: 3s}]}, " + edgeEntry + "]")
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	theirs := w.raw("edge")
	theirs.SetManagedFields(nil)
	theirs.SetResourceVersion("")
	if err := w.client.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(theirs), client.FieldOwner("git"), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	w.entries("[{http: [{timeout: 3s}]}]")
	w.awaitEvent("VirtualServiceKept")
	w.await("it is told why", func(r *v1.Rollout) bool {
		return slices.ContainsFunc(r.Status.SkippedRoutes, func(skipped string) bool {
			return strings.Contains(skipped, "field manager git has fields of its spec")
		})
	})
	w.push("v3")
	w.awaitRoutes("edge", "v1 50, v3 50")
	w.entries("[{http: [{timeout: 3s}]}, {name: edge}]") // and from then on it is like one that people made
	w.await("it is adopted", func(r *v1.Rollout) bool {
		return r.Status.Phase == v1.PhaseProgressing && slices.ContainsFunc(r.Status.VirtualServices, func(vs v1.ManagedVirtualService) bool { return vs.Name == "edge" && !vs.Created })
	})
}

// TestAdoptedEntryTakenOut: its routes go on leading to stable, and that is told.
func TestAdoptedEntryTakenOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.adopt()
	w.rollout(gated + "virtualServices: [{name: reviews}, {name: edge}]")
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.entries("[{name: reviews}]")
	w.awaitEvent("RouteReleased")
	r := w.await("edge is not driven", func(r *v1.Rollout) bool {
		return len(r.Status.VirtualServices) == 1 && len(r.Status.SkippedRoutes) == 2
	})
	if got := strings.Join(r.Status.SkippedRoutes, "; "); !strings.Contains(got, "pins subset v1, and spec.virtualServices does not name it") {
		t.Errorf("skips %s", got)
	}
}

// TestNamesakeInMidRun: a route that gets the name of a driven one by hand holds the run, and no way back.
func TestNamesakeInMidRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	vs := w.awaitRoutes("reviews", "v1 50, v3 50")
	exact := &istio.StringMatch{MatchType: &istio.StringMatch_Exact{Exact: "1"}}
	another := &istio.HTTPRoute{
		Name: "primary", Match: []*istio.HTTPMatchRequest{{Headers: map[string]*istio.StringMatch{"x-test": exact}}},
		Route: []*istio.HTTPRouteDestination{{Destination: &istio.Destination{Host: "reviews", Subset: "v1"}}},
	}
	vs.Spec.Http = append([]*istio.HTTPRoute{another}, vs.Spec.Http...)
	if err := w.client.Update(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
	r := w.awaitPhase(v1.PhaseStalled, v1.ReasonRouteNotFound)
	if !strings.Contains(r.Status.Message, "VirtualService reviews has 2 routes named primary") {
		t.Errorf("message %q", r.Status.Message)
	}
	w.awaitRoutes("reviews", "v1; v1 50, v3 50")
	w.push("v1")
	w.awaitRoutes("reviews", "v1; v1")
}

// TestCommandIsIgnored: and that is told.
func TestCommandIsIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.edit(func(r *v1.Rollout) { r.Annotations = map[string]string{v1.CommandAnnotation: "retry v3 1"} })
	w.await("it is told", func(r *v1.Rollout) bool {
		return meta.IsStatusConditionTrue(r.Status.Conditions, v1.ConditionCommandIgnored)
	})
	w.awaitEvent(v1.ConditionCommandIgnored)
}
