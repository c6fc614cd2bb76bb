package simulation

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// putBefore puts a route of the name of a driven one in front of all others, as people would by hand.
func (w *world) putBefore(destination map[string]any) {
	w.transcript.line("people", "another route primary in front")
	w.store.edit("people", mainKey, func(o map[string]any) {
		another := map[string]any{
			"name": "primary", "match": []any{map[string]any{"headers": map[string]any{"x-test": map[string]any{"exact": "1"}}}},
			"route": []any{map[string]any{"destination": destination}},
		}
		_ = unstructured.SetNestedSlice(o, append([]any{another}, routesIn(o, "http")...), "spec", "http")
	})
}

// Who gives a driven route's name to another one in mid-run is asked which of them is meant. The traffic stays meanwhile, and no rollback
// leaves the canary to either.
func TestASecondRouteOfTheSameName(t *testing.T) {
	for name, tc := range map[string]struct {
		destination  map[string]any
		before, back string
	}{
		"to the host": {map[string]any{"host": "reviews", "subset": "v9"}, "v9 100", "v1 100"},
		"to another":  {map[string]any{"host": "assets"}, "100", "100"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(1)
			synctest.Test(t, func(*testing.T) {
				w.build(setting{mesh: "rich", foundSubsets: []string{"v1", "v2", "v9"}, spec: parseSpec(baseSpec)})
				w.at(epoch.Add(minute), func() { w.push("v3") })
				w.run(epoch.Add(half))
				w.transcript.on = true
				w.putBefore(tc.destination)
				w.pass(5 * time.Second)
				checkNamesakes(t, w, "primary → "+tc.before, "primary → v1 50 + v3 50")
				const words = "VirtualService reviews has 2 routes named primary"
				checkTold(t, w, 1, words)
				if s := w.rollout().Status; s.Phase != v1.PhaseStalled || s.Reason != v1.ReasonRouteNotFound || !strings.Contains(s.Message, words) || s.Step == nil {
					t.Errorf("%s/%s: %s, step %v", s.Phase, s.Reason, s.Message, s.Step)
				}
				w.push("v1")
				w.pass(5 * time.Second)
				checkNamesakes(t, w, "primary → "+tc.back, "primary → v1 100")
				w.editRoutes(mainKey, func(r map[string]any) {
					if match, _ := r["match"].([]any); len(match) == 1 && r["name"] == "primary" {
						r["name"] = "test"
					}
				})
				w.push("v3")
				w.pass(6 * minute)
				if s := w.rollout().Status; s.Phase != v1.PhaseHealthy || s.Stable != "v3" {
					t.Errorf("%s/%s on %s: %s", s.Phase, s.Reason, s.Stable, s.Message)
				}
				checkNamesakes(t, w, "test → "+strings.Replace(tc.back, "v1", "v3", 1), "primary → v3 100")
			})
			if w.violation != nil {
				t.Errorf("%v\n%s", w.violation, w.transcript.text.String())
			}
		})
	}
}

func checkNamesakes(t *testing.T, w *world, first, other string) {
	t.Helper()
	if routes := strings.Split(w.routes(mainKey), " | "); routes[0] != first || routes[3] != other {
		t.Errorf("routes are %v, want %q and %q\n%s", routes, first, other, w.transcript.text.String())
	}
}
