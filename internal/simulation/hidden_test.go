package simulation

import (
	"strings"
	"testing"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

const secondOf = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: second}, spec: {hosts: [HOST], http: [{route: [{destination: {host: HOST}}]}]}}"

var secondKey = objectKey{kindVirtualService, namespace, "second"}

// hides has people add a VirtualService for a host for a while, in which the step is held, and after which its clock begins afresh: of
// two for one host sidecars obey one, and nobody knows whose users were where.
func (w *world) hides(t *testing.T, host, step string, hold time.Duration) {
	t.Helper()
	w.add("people", strings.ReplaceAll(secondOf, "HOST", host))
	w.pass(2 * hold)
	in := func() *v1.StepStatus { return w.rollout().Status.Step }
	if s := w.rollout().Status; s.Phase != v1.PhaseStalled || s.Reason != v1.ReasonHostConflict || in() == nil || in().Name != step {
		t.Fatalf("beside another VirtualService: %s/%s: %s, step %+v", s.Phase, s.Reason, s.Message, in())
	}
	w.removeByHand(secondKey)
	w.pass(hold - 5*time.Second)
	if s := w.rollout().Status; in() == nil || in().Name != step || s.Phase == v1.PhaseStalled {
		t.Fatalf("the step did not begin afresh: %s/%s: %s, step %+v", s.Phase, s.Reason, s.Message, in())
	}
	w.pass(20 * time.Second)
	if in() != nil && in().Name == step {
		t.Errorf("the step does not end: %s", w.rollout().Status.Message)
	}
}

func TestASecondVirtualServiceStopsTheClock(t *testing.T) {
	atHalf(t, func(w *world) { w.hides(t, "reviews", "half", 30*time.Second) })
}

func TestASecondVirtualServiceForTheFaultsHostStopsTheTest(t *testing.T) {
	const step = `{name: f, hold: 1m, fault: {host: ratings, match: [{headers: {end-user: {exact: jason}}}], delay: {fixedDelay: 7s}}, probe: {url: "http://books.example.com/"}}`
	for name, found := range map[string]bool{"found": true, "made": false} {
		t.Run(name, func(t *testing.T) {
			inFault(t, setting{mesh: "simple", foundSubsets: []string{"v1"}, ratings: found}, step, func(w *world) {
				w.hides(t, "ratings", "f", time.Minute)
			})
		})
	}
	t.Run("where one only routes there", func(t *testing.T) {
		inFault(t, setting{mesh: "simple", foundSubsets: []string{"v1"}, ratings: true}, step, func(w *world) {
			w.store.edit("people", ratingsKey, func(o map[string]any) {
				o["spec"].(map[string]any)["hosts"] = []any{"stars.example.com"}
			})
			w.hides(t, "ratings", "f", time.Minute)
		})
	})
}
