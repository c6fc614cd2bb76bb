package simulation

import (
	"strings"
	"testing"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// A process that starts with a list from an API server that is behind sees a subset that the rule has no longer. The oracle sees to
// it that no route names that.
func TestStartOnARuleThatIsBehind(t *testing.T) {
	w := atHalf(t, func(w *world) {
		w.push("v1")
		w.pass(5 * time.Second)
		if got := subsetsOf(w.store.live(ruleKey)); got["v3"] != nil {
			t.Fatalf("the rule still holds %v", got)
		}
		w.faults.lags = map[string]time.Duration{kindDestinationRule: 20 * time.Second}
		w.process.dead = true
		w.push("v3")
		w.start()
		w.pass(10 * minute)
	})
	if s := w.rollout().Status; s.Phase != v1.PhaseHealthy || s.Stable != "v3" || !strings.Contains(w.routes(mainKey), toCanary) {
		t.Errorf("%s/%s: %s", s.Phase, s.Reason, s.Message)
	}
}

// A revert does not wait for a cache that has yet to learn of the operator's own last write.
func TestRevertOvertakesALaggingCache(t *testing.T) {
	atHalf(t, func(w *world) {
		w.faults.lags = map[string]time.Duration{kindVirtualService: 30 * time.Second}
		for range 120 {
			if strings.Contains(w.routes(mainKey), "v1 0 + v3 100") {
				break
			}
			w.pass(time.Second)
		}
		w.push("v1")
		w.pass(2 * time.Second)
		if got := w.routes(mainKey); !strings.Contains(got, toStable) {
			t.Errorf("routes are %s, want %s\n%s", got, toStable, w.transcript.text.String())
		}
	})
}
