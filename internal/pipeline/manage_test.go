package pipeline

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

// routing is one VirtualService with routes, each "key" or "key subset".
func routing(name string, routes ...string) v1.ManagedVirtualService {
	vs := v1.ManagedVirtualService{Name: name}
	for _, route := range routes {
		key, subset, _ := strings.Cut(route, " ")
		vs.Routes = append(vs.Routes, v1.ManagedRoute{Key: key, Subset: subset})
	}
	return vs
}

// driven tells what a status drives: "site: main; edge: all".
func driven(s *v1.RolloutStatus) string {
	var words []string
	for _, vs := range s.VirtualServices {
		var keys []string
		for _, route := range vs.Routes {
			keys = append(keys, route.Key)
		}
		words = append(words, vs.Name+": "+strings.Join(keys, ", "))
	}
	return strings.Join(words, "; ")
}

// adopting is a world in which these were found, all of which a person said v1 serves.
func adopting(t *testing.T, found ...v1.ManagedVirtualService) *world {
	t.Helper()
	w := newWorld(t, weight("half", 50, 0))
	w.in.Mesh.VirtualServices = found
	return w.edit(func(s *v1.RolloutSpec) { s.InitialVersion = "v1" })
}

func checkDriven(t *testing.T, w *world, want string, skipped ...string) {
	t.Helper()
	if got := driven(w.status()); got != want {
		t.Errorf("drives %q, want %q", got, want)
	}
	if diff := cmp.Diff(skipped, w.status().SkippedRoutes); diff != "" {
		t.Errorf("skipped (-want +got):\n%s", diff)
	}
}

// TestAPinStays: a route that was left alone for its pin stays so when that version becomes stable, until people change it.
func TestAPinStays(t *testing.T) {
	w := adopting(t, routing("site", "main v1", "old v2")).settle()
	checkDriven(t, w, "site: main", "site/old: pins subset v2")
	w.ask("v2").untilPhase(v1.PhaseHealthy)
	w.in.Mesh.VirtualServices = []v1.ManagedVirtualService{routing("site", "main v2", "old v2")}
	w.settle()
	checkDriven(t, w, "site: main", "site/old: pins subset v2")
	w.ask("v3").untilPhase(v1.PhaseHealthy)
	checkDriven(t, w, "site: main", "site/old: pins subset v2")
	w.in.Mesh.VirtualServices = []v1.ManagedVirtualService{routing("site", "main v3", "old")}
	w.settle()
	checkDriven(t, w, "site: main")
	w.ask("v2").untilPhase(v1.PhaseHealthy)
	checkDriven(t, w, "site: main, old")
}

// TestSeveralVirtualServices: one without a route to manage is left alone, unless the spec names it.
func TestSeveralVirtualServices(t *testing.T) {
	found := []v1.ManagedVirtualService{routing("edge", "all"), routing("part", "old v2"), routing("site", "main v1")}
	w := adopting(t, found...).settle()
	checkDriven(t, w, "edge: all; site: main", "part/old: pins subset v2")
	w.edit(func(s *v1.RolloutSpec) { s.VirtualServices = []v1.VirtualService{{Name: "part"}, {}} })
	if w.ask("v3").settle(); w.status().Reason != v1.ReasonRouteNotFound || !strings.Contains(w.status().Message, "VirtualService part has no route to manage") {
		t.Errorf("%s: %s", w.status().Reason, w.status().Message)
	}
	w.edit(func(s *v1.RolloutSpec) { s.VirtualServices[0].Routes = []v1.RouteSelector{{Name: "old"}} })
	w.untilPhase(v1.PhaseHealthy)
	checkDriven(t, w, "edge: all; part: old; site: main")
}

// TestReturnTakesAlong: what came to the host since the run is driven by a return as well, and nothing is let go.
func TestReturnTakesAlong(t *testing.T) {
	w := adopting(t, routing("site", "main v1")).settle().ask("v3").untilPhase(v1.PhaseHealthy)
	w.in.Mesh.VirtualServices = []v1.ManagedVirtualService{routing("edge", "all", "new v3", "old v2"), routing("site", "more v3")}
	w.settle()
	checkDriven(t, w, "site: main", "edge/old: pins subset v2")
	w.ask("v1").settle()
	if w.status().Stable != "v1" {
		t.Fatalf("stable %s, %s", w.status().Stable, w.status().Message)
	}
	if got, want := driven(w.status()), "site: main, more; edge: all, new"; got != want {
		t.Errorf("the return drives %q, want %q", got, want)
	}
}

// TestReselect: at rest, what is gone is let go only where the spec names what is left.
func TestReselect(t *testing.T) {
	gone := &Problem{Reason: v1.ReasonRouteNotFound, Message: "site has no route main any more"}
	for name, tc := range map[string]struct {
		entries []v1.VirtualService
		found   []v1.ManagedVirtualService
		survey  *Problem
		problem *Problem
		want    string // what is driven in the end; empty: it stays Stalled
	}{
		"by default":              {found: []v1.ManagedVirtualService{routing("edge", "all v1"), routing("site", "renamed v1")}},
		"named, not its routes":   {entries: []v1.VirtualService{{Name: "site"}, {Name: "edge"}}, found: []v1.ManagedVirtualService{routing("edge", "all v1"), routing("site", "renamed v1")}},
		"its routes are named":    {entries: []v1.VirtualService{{Name: "site", Routes: []v1.RouteSelector{{Name: "renamed"}}}, {Name: "edge"}}, found: []v1.ManagedVirtualService{routing("edge", "all v1"), routing("site", "renamed v9")}, want: "edge: all; site: renamed"},
		"the rest is named":       {entries: []v1.VirtualService{{Name: "edge"}}, found: []v1.ManagedVirtualService{routing("edge", "all v1")}, problem: &Problem{Reason: v1.ReasonVirtualServiceNotFound}, want: "edge: all"},
		"the rest is not there":   {entries: []v1.VirtualService{{Name: "other"}}, survey: &Problem{Reason: v1.ReasonVirtualServiceNotFound}},
		"something else is wrong": {entries: []v1.VirtualService{{Name: "edge"}}, found: []v1.ManagedVirtualService{routing("edge", "all v1")}, problem: &Problem{Reason: v1.ReasonMeshWriteRefused}},
	} {
		t.Run(name, func(t *testing.T) {
			w := adopting(t, routing("edge", "all v1"), routing("site", "main v1")).settle()
			w.in.Mesh.VirtualServices, w.in.Mesh.SurveyProblem, w.in.Mesh.WriteProblem = tc.found, tc.survey, gone
			if tc.problem != nil {
				w.in.Mesh.WriteProblem = tc.problem
			}
			w.in.Written = nil
			w.edit(func(s *v1.RolloutSpec) { s.VirtualServices = tc.entries })
			w.decide()
			if stalled := w.status().Phase == v1.PhaseStalled; stalled != (tc.want == "") {
				t.Errorf("%s/%s", w.status().Phase, w.status().Reason)
			}
			want := tc.want
			if want == "" {
				want = "edge: all; site: main"
			}
			if got := driven(w.status()); got != want {
				t.Errorf("drives %q, want %q", got, want)
			}
		})
	}
}

// TestPinnedSubset: routes that are not driven keep a subset's labels, and so hold a run that would change them.
func TestPinnedSubset(t *testing.T) {
	w := adopting(t, routing("site", "main v1")).settle()
	w.in.Mesh.PinnedSubsets = []string{"v3"}
	w.in.Mesh.Subsets = append(w.in.Mesh.Subsets, v1.Subset{Name: "v3", Labels: map[string]string{"version": "three"}})
	if w.ask("v3").settle(); w.status().Reason != v1.ReasonSubsetInUse {
		t.Errorf("%s/%s: %s", w.status().Phase, w.status().Reason, w.status().Message)
	}
	w.in.Mesh.PinnedSubsets = nil
	w.settle().untilPhase(v1.PhaseHealthy)
	// Not even a return to a proven version changes what others send to.
	w.in.Mesh.PinnedSubsets = []string{"v1"}
	w.in.Mesh.Subsets = []v1.Subset{{Name: "v1", Labels: map[string]string{"version": "one"}}}
	if w.ask("v1").settle(); w.status().Reason != v1.ReasonSubsetInUse || w.status().Stable != "v3" {
		t.Errorf("%s/%s on %s: %s", w.status().Phase, w.status().Reason, w.status().Stable, w.status().Message)
	}
}

func TestSkippedRoutesAreBounded(t *testing.T) {
	routes := []string{"main v1"}
	for i := range 200 {
		routes = append(routes, fmt.Sprintf("pinned-%d-%s v3", i, strings.Repeat("x", 40)))
	}
	w := adopting(t, routing("site", routes...))
	for range 200 {
		w.in.Mesh.SkippedRoutes = append(w.in.Mesh.SkippedRoutes, "site/split: splits already")
	}
	w.settle()
	skipped := w.status().SkippedRoutes
	if n := len(strings.Join(skipped, "")); n > skippedLimit+20 {
		t.Errorf("%d bytes of skipped routes", n)
	}
	if last := skipped[len(skipped)-1]; !strings.HasPrefix(skipped[0], "site/pinned-0") || last != fmt.Sprintf("and %d more", 401-len(skipped)) {
		t.Errorf("from %q to %q", skipped[0], last)
	}
	// A pin that found no room on the list stays one.
	w.ask("v3").untilPhase(v1.PhaseHealthy)
	w.ask("v2").untilPhase(v1.PhaseHealthy)
	if got := driven(w.status()); got != "site: main" {
		t.Errorf("drives %q", got)
	}
}

func TestTooManyRoutesToKeep(t *testing.T) {
	var routes []string
	for i := range 200 {
		routes = append(routes, fmt.Sprintf("route-%d v1", i))
	}
	w := adopting(t, routing("site", routes...)).settle()
	if s := w.status(); s.Reason != v1.ReasonInvalidSpec || s.Traffic != nil || !strings.Contains(s.Message, "name fewer in spec.virtualServices") {
		t.Errorf("%s/%s: %s", s.Phase, s.Reason, s.Message)
	}
	w.edit(func(s *v1.RolloutSpec) {
		s.VirtualServices = []v1.VirtualService{{Name: "site", Routes: []v1.RouteSelector{{Name: "route-0"}}}}
	})
	w.in.Mesh.VirtualServices = []v1.ManagedVirtualService{routing("site", routes[0])}
	w.settle()
	checkDriven(t, w, "site: route-0")
}
