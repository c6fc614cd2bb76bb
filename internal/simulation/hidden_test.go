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

const slowRatings = `{name: f, hold: 1m, fault: {host: ratings, match: [{headers: {end-user: {exact: jason}}}], delay: {fixedDelay: 7s}}, probe: {url: "http://books.example.com/"}}`

func TestASecondVirtualServiceForTheFaultsHostStopsTheTest(t *testing.T) {
	inFault(t, setting{mesh: "simple", foundSubsets: []string{"v1"}, ratings: true}, slowRatings, func(w *world) {
		w.hides(t, "ratings", "f", time.Minute)
	})
}

// A fault moves to a VirtualService that comes for its host where it stands on one that was made for it, or that only routes there.
func TestAFaultMovesToWhereCallersMeetIt(t *testing.T) {
	for name, found := range map[string]bool{"from one that was made": false, "from one that routes there": true} {
		t.Run(name, func(t *testing.T) {
			inFault(t, setting{mesh: "simple", foundSubsets: []string{"v1"}, ratings: found}, slowRatings, func(w *world) {
				if found {
					w.store.edit("people", ratingsKey, func(o map[string]any) {
						o["spec"].(map[string]any)["hosts"] = []any{"stars.example.com"}
					})
				}
				w.add("people", strings.ReplaceAll(secondOf, "HOST", "ratings"))
				before := w.store.live(secondKey)
				w.pass(55 * time.Second)
				carriers := w.faultCarriers(w.now)
				if s := w.rollout().Status; s.Step == nil || s.Step.Name != "f" || s.Phase != v1.PhaseProgressing || len(carriers) != 1 || carriers[0].GetName() != "second" {
					t.Fatalf("%s/%s: %s, step %+v, faults on %d", s.Phase, s.Reason, s.Message, s.Step, len(carriers))
				}
				w.pass(2 * minute)
				if s := w.rollout().Status; s.Stable != "v3" || len(w.faultCarriers(w.now)) > 0 || w.store.live(ratingsKey) == nil != !found {
					t.Errorf("stable %s, %s/%s: %s", s.Stable, s.Phase, s.Reason, s.Message)
				}
				if diff := changedRoutes(before, w.store.live(secondKey)); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

// Nothing is made in the place of a VirtualService of people's that carried a fault and is gone.
func TestAFaultWhoseVirtualServiceIsGone(t *testing.T) {
	inFault(t, setting{mesh: "simple", foundSubsets: []string{"v1"}, ratings: true}, slowRatings, func(w *world) {
		w.removeByHand(ratingsKey)
		w.pass(2 * minute)
		if s := w.rollout().Status; s.Phase != v1.PhaseStalled || s.Reason != v1.ReasonVirtualServiceNotFound || s.Step == nil || w.faultSomewhere() {
			t.Errorf("%s/%s: %s, step %+v", s.Phase, s.Reason, s.Message, s.Step)
		}
	})
}
