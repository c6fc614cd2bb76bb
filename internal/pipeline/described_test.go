package pipeline

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

// describes gives the world VirtualServices that the spec describes, each with a hash, and edits the spec.
func (w *world) describes(described ...v1.ManagedVirtualService) *world {
	for i := range described {
		described[i].Created = true
	}
	w.in.Mesh.Described = described
	return w.edit(func(*v1.RolloutSpec) {})
}

func templated(hash string, vs v1.ManagedVirtualService) v1.ManagedVirtualService {
	vs.Template = hash
	return vs
}

func TestDescribedIsManagedBesideWhatIsFound(t *testing.T) {
	w := adopting(t, routing("site", "main v1"))
	w.describes(templated("a", routing("edge", "api", "primary"))).settle()
	checkDriven(t, w, "edge: api, primary; site: main")
	w.in.Mesh.VirtualServices = append(w.in.Mesh.VirtualServices, routing("edge", "api v1", "primary v1", "theirs"))
	w.ask("v3").untilPhase(v1.PhaseHealthy)
	checkDriven(t, w, "edge: api, primary; site: main", "edge/theirs: spec.virtualServices does not describe it")
	if edge := w.status().VirtualServices[0]; !edge.Created || edge.Template != "a" {
		t.Errorf("%+v", edge)
	}
}

// TestDescribedChangesAtRest: at once, and a route that is described no more stays listed until the mesh is without it.
func TestDescribedChangesAtRest(t *testing.T) {
	w := newWorld(t, weight("half", 50, 0)).describes(templated("a", routing("reviews", "api", "primary"))).settle()
	checkDriven(t, w, "reviews: api, primary")
	w.meshOff = true
	w.describes(templated("b", routing("reviews", "v2", "primary")))
	w.decide()
	checkDriven(t, w, "reviews: v2, primary, api")
	w.in.Written = nil
	w.settle()
	checkDriven(t, w, "reviews: v2, primary, api")
	w.meshOff = false
	w.settle()
	checkDriven(t, w, "reviews: v2, primary")
	if w.status().Phase != v1.PhaseHealthy || len(w.weights) != 1 {
		t.Errorf("%s, weights %v", w.status().Phase, w.weights)
	}
}

// TestDescribedChangesInMidRun: back to stable, a new run, and the routes change in between.
func TestDescribedChangesInMidRun(t *testing.T) {
	w := newWorld(t, weight("half", 50, 60), weight("full", 100, 60)).describes(templated("a", routing("reviews", "primary"))).settle()
	w.ask("v3").untilStep("half")
	w.describes(templated("b", routing("reviews", "primary")))
	w.decide()
	if w.status().Traffic.Canary != nil || w.status().Reason != v1.ReasonPlanChanged || w.status().Rejected != nil {
		t.Errorf("%s %s, traffic %+v", w.status().Phase, w.status().Reason, w.status().Traffic)
	}
	if got := w.status().VirtualServices[0].Template; got != "a" {
		t.Errorf("template %s is followed in the write that takes the traffic back", got)
	}
	w.untilStep("half")
	if got := w.status().VirtualServices[0].Template; got != "b" {
		t.Errorf("template %s in the new run", got)
	}
	w.untilPhase(v1.PhaseHealthy)
}

// TestDescribedNoMore: it is from then on like one that people made.
func TestDescribedNoMore(t *testing.T) {
	w := newWorld(t, weight("half", 50, 0)).describes(templated("a", routing("edge", "primary"))).settle()
	w.in.Mesh.VirtualServices = []v1.ManagedVirtualService{routing("edge", "primary v1", "theirs v1")}
	w.describes().settle()
	checkDriven(t, w, "edge: primary, theirs")
	if w.status().VirtualServices[0].Created {
		t.Error("it is still known as one that Sluice made")
	}
	w.in.Mesh.VirtualServices = nil
	w.describes(templated("a", routing("edge", "primary"))).settle()
	w.describes().settle()
	want := []v1.ManagedVirtualService{{Name: "reviews", Created: true}}
	if diff := cmp.Diff(want, w.status().VirtualServices); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
