package capabilities

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/bookinfo"
)

// Test10Timeout: with ratings slow, the new version's users wait for the timeout and no longer, and it is taken back; with ratings
// well, the next one goes through.
func Test10Timeout(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "10-timeout", apps: []string{"bookinfo.yaml"}})
	s.waitServed(t, "v1", reviewsURL)
	s.load(t, 40, reviewsURL)
	s.pushVersion(t, "rollout.yaml", "v2")
	s.timesOutAfter(t, 500*time.Millisecond, reviewsURL)
	r := s.waitRolledBack(t, "reviews", v1.ReasonGateFailed)
	if r.Status.Stable != "v1" || r.Status.LastFailure == nil || r.Status.LastFailure.Gate != "errors" {
		t.Errorf("stable %s, failure %+v; want v1, and the gate errors", r.Status.Stable, r.Status.LastFailure)
	}
	s.waitServed(t, "v1", reviewsURL)

	s.pushEdit(t, "ratings.yaml", "  - fault:\n      delay: {percentage: {value: 100}, fixedDelay: 2s}\n    route:", "  - route:")
	s.pushVersion(t, "rollout.yaml", "v3")
	s.waitHealthy(t, "reviews", "v3")
	s.waitServed(t, "v3", reviewsURL)
}

// Test10TimeoutKept: the timeout of a route that Git holds is there for both versions, in the run and after it.
func Test10TimeoutKept(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "10-timeout-kept", apps: []string{"bookinfo.yaml"}})
	s.pushVersion(t, "rollout.yaml", "v3")
	s.stayIn(t, "reviews", "half")
	s.waitSplit(t, map[string]float64{"v1": 0.5, "v3": 0.5}, reviewsURL)
	slow := bookinfo.Misbehaviour{Latency: 5 * time.Second}
	for _, deployment := range []string{"reviews-v1", "reviews-v3"} {
		s.Misbehave(deployment, slow)
	}
	for range 4 { // of either version
		s.timesOutAfter(t, 500*time.Millisecond, reviewsURL)
	}
	s.pushEdit(t, "mesh.yaml", "timeout: 0.5s", "timeout: 1.5s")
	s.timesOutAfter(t, 1500*time.Millisecond, reviewsURL)
	s.goOn(t, "reviews")
	s.waitHealthy(t, "reviews", "v3")
	s.timesOutAfter(t, 1500*time.Millisecond, reviewsURL)
	s.Misbehave("reviews-v3", bookinfo.Misbehaviour{})
	s.waitServed(t, "v3", reviewsURL)
}

// timesOutAfter waits until a request is answered with 504 after that time, and not much later.
func (s *stage) timesOutAfter(t *testing.T, timeout time.Duration, target string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s times out after %s", target, timeout), func() (bool, string) {
		a := s.get(t, target)
		return a.status == http.StatusGatewayTimeout && a.took >= timeout && a.took < timeout+time.Second,
			fmt.Sprintf("status %d of %q after %s", a.status, a.version, a.took)
	})
}
