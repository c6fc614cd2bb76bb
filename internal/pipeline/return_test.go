package pipeline

import (
	"testing"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// promoted is a world in which v3 was proven and serves, and v1 may be returned to.
func promoted(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, v1.Step{Name: "half", Weight: ptr(int32(50))})
	w.in.Rollout.Spec.Gates = []v1.Gate{}
	w.settle().ask("v3").settle().want(v1.PhaseHealthy, v1.ReasonServing, "v3", 0)
	return w
}

// A git revert takes along what came with the version that it takes back, and what is missing or refused by then keeps no traffic on
// that version: the way back happens, and what is wrong is told afterwards.
func TestInstantReturnWaitsForNothing(t *testing.T) {
	problem := func(reason string) func(*world) {
		return func(w *world) { w.in.Mesh.WriteProblem = &Problem{reason, "simulated"} }
	}
	for name, happens := range map[string]func(*world){
		"labels of the version that is left": func(w *world) {
			v := w.in.Versions["v3"]
			v.Labels = map[string]string{"version": "v3", "release": "3"}
			w.in.Versions["v3"] = v
		},
		"destination of the version that is left": func(w *world) {
			v := w.in.Versions["v3"]
			v.Host, v.Subset = "reviews-v3", ""
			w.in.Versions["v3"] = v
		},
		"a VirtualService is gone":  problem(v1.ReasonVirtualServiceNotFound),
		"a route is gone":           problem(v1.ReasonRouteNotFound),
		"the last write is refused": problem(v1.ReasonMeshWriteRefused),
	} {
		t.Run(name, func(t *testing.T) {
			w := promoted(t)
			happens(w)
			w.in.Now = w.in.Now.Add(time.Minute)
			w.ask("v1").decide()
			if s := w.status(); s.Stable != "v1" || s.Traffic.Stable.Version != "v1" || !w.last.Rollback {
				t.Errorf("stable %s, traffic to %s, %s/%s: %s", s.Stable, s.Traffic.Stable.Version, s.Phase, s.Reason, s.Message)
			}
		})
	}
	t.Run("what can not be read is not judged", func(t *testing.T) {
		w := promoted(t)
		p := &Problem{v1.ReasonForbidden, "simulated"}
		w.in.Mesh.WriteProblem, w.in.Mesh.SurveyProblem = p, p
		w.ask("v1").decide()
		if s := w.status(); s.Stable != "v3" || s.Reason != v1.ReasonForbidden {
			t.Errorf("stable %s, %s/%s: %s", s.Stable, s.Phase, s.Reason, s.Message)
		}
	})
}
