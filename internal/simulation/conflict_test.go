package simulation

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

const conflictSpec = `
host: reviews
version: v1
initialVersion: v1
steps:
- {name: ten, weight: 10, hold: 1m}
- {name: testers, match: [{uri: {regex: "/api/.*x"}}], hold: 10s}
gateDefaults: {window: 20s, interval: 10s, samples: 2, failures: 2, minRequests: 5}
`

// conflicting plays a run of v3 whose second step's match can not be joined to that of a route any more, from a time on.
func conflicting(t *testing.T, since time.Duration, then func(*world)) {
	t.Helper()
	w := newWorld(1)
	w.transcript.on = true
	synctest.Test(t, func(*testing.T) {
		w.build(setting{mesh: "rich", foundSubsets: []string{"v1", "v2", "v9"}, spec: parseSpec(conflictSpec)})
		w.at(epoch.Add(minute), func() { w.push("v3") })
		w.at(epoch.Add(since), func() {
			w.editRoutes(mainKey, func(r map[string]any) {
				if r["name"] == "primary" {
					r["match"] = []any{map[string]any{"uri": map[string]any{"prefix": "/api/v1"}}}
				}
			})
		})
		w.run(epoch.Add(5 * minute))
		then(w)
	})
	if w.violation != nil {
		t.Errorf("%v\n%s", w.violation, w.transcript.text.String())
	}
}

func checkConflict(t *testing.T, w *world, step string) {
	t.Helper()
	s := w.rollout().Status
	if s.Phase != v1.PhaseStalled || s.Reason != v1.ReasonMatchConflict || !strings.Contains(s.Message, "step testers: ") {
		t.Errorf("%s/%s: %s", s.Phase, s.Reason, s.Message)
	}
	if got := s.Step; (got == nil) != (step == "") || (got != nil && got.Name != step) {
		t.Errorf("in step %+v, want %q", got, step)
	}
}

// A run that would stop in a later step does not begin.
func TestConflictIsToldBeforeTheRun(t *testing.T) {
	conflicting(t, 30*time.Second, func(w *world) {
		checkConflict(t, w, "")
		if got := w.routes(mainKey); strings.Contains(got, "v3") {
			t.Errorf("routes are %s", got)
		}
	})
}

// A step whose successor can not be written goes on being judged: users of the canary are not left to themselves.
func TestConflictInMidRunKeepsTheGates(t *testing.T) {
	conflicting(t, 70*time.Second, func(w *world) {
		checkConflict(t, w, "ten")
		if got := w.routes(mainKey); !strings.Contains(got, "v1 90 + v3 10") {
			t.Errorf("routes are %s", got)
		}
		w.prometheus.setErrors("v3", 0.3)
		w.pass(minute)
		if s, got := w.rollout().Status, w.routes(mainKey); s.Reason != v1.ReasonGateFailed || strings.Contains(got, "v3") {
			t.Errorf("%s/%s: %s; routes are %s", s.Phase, s.Reason, s.Message, got)
		}
	})
}
