package capabilities

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/bookinfo"
)

// Test12CircuitBreaker: twenty users at once go through the host's pool of 100, three through v2's pool of three, where twenty do not, and
// three do not through v3's pool of one, which trips.
func Test12CircuitBreaker(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "12-circuit-breaker", apps: []string{"bookinfo.yaml"}})
	for _, deployment := range []string{"reviews-v1", "reviews-v2", "reviews-v3"} {
		s.Misbehave(deployment, bookinfo.Misbehaviour{Latency: 50 * time.Millisecond}) // so that requests meet
	}
	if seen := s.crowd(t, 20, 5, reviewsURL); seen.statuses[http.StatusOK] != seen.total {
		t.Errorf("with a pool of 100 twenty users saw %s; want 200 alone", seen)
	}
	users := s.users(t, 3, reviewsURL)
	s.pushVersion(t, "rollout.yaml", "v2")
	s.waitHealthy(t, "reviews", "v2")
	if seen := users.leave(); seen.statuses[http.StatusOK] != seen.total || seen.versions["v2"] == 0 {
		t.Errorf("with pools of 100 and of 3 three users saw %s; want 200 alone", seen)
	}
	s.eventually(t, "twenty users do not find place in v2's pool of 3", func() (bool, string) {
		seen := s.crowd(t, 20, 5, reviewsURL)
		return seen.statuses[http.StatusServiceUnavailable] > 0 && seen.versions["v2"] > 0, seen.String()
	})

	users = s.users(t, 3, reviewsURL)
	s.pushVersion(t, "rollout.yaml", "v3")
	r := s.waitRolledBack(t, "reviews", v1.ReasonTrip)
	if !strings.Contains(r.Status.Message, "Overflow") || r.Status.Stable != "v2" {
		t.Errorf("stable %s, message %q; want v2 and Overflow", r.Status.Stable, r.Status.Message)
	}
	s.waitServed(t, "v2", reviewsURL)
	if seen := users.leave(); seen.statuses[http.StatusServiceUnavailable] == 0 || seen.versions["v3"] == 0 || len(seen.statuses) != 2 {
		t.Errorf("with v3's pool of one three users saw %s; want 200 and, until it tripped, 503", seen)
	}
	if seen := s.crowd(t, 3, 20, reviewsURL); seen.statuses[http.StatusOK] != seen.total {
		t.Errorf("after the trip three users saw %s; want 200 alone", seen)
	}
}

// Test13OutlierEjection: v3 answers errors, its endpoints are ejected, and that trips.
func Test13OutlierEjection(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "13-outlier-ejection", apps: []string{"bookinfo.yaml"}})
	s.Misbehave("reviews-v3", bookinfo.Misbehaviour{ErrorRate: 1})
	generator := s.load(t, 40, reviewsURL)
	s.pushVersion(t, "rollout.yaml", "v3")
	r := s.waitRolledBack(t, "reviews", v1.ReasonTrip)
	if !strings.Contains(r.Status.Message, "Ejection") || r.Status.Stable != "v1" {
		t.Errorf("stable %s, message %q; want v1 and Ejection", r.Status.Stable, r.Status.Message)
	}
	s.waitServed(t, "v1", reviewsURL)
	seen := generator.Stop()
	errors, ejected := seen.ByStatus[http.StatusInternalServerError], seen.ByStatus[http.StatusServiceUnavailable]
	if errors == 0 || ejected == 0 || errors > ejected {
		t.Errorf("users saw %v; want few 500 of v3, whose endpoint is ejected at the first, and 503 from then on", seen.ByStatus)
	}
	s.checkEjectionTimes(t)
}

// checkEjectionTimes: at the end of Test13OutlierEjection v1's endpoint is out for 15s once it fails, and v3's, which was out before and
// is well again, still is then: it is out for three minutes.
func (s *stage) checkEjectionTimes(t *testing.T) {
	t.Helper()
	const look = "x-look: v3"
	s.Misbehave("reviews-v3", bookinfo.Misbehaviour{})
	s.kubectl(t, "patch", "virtualservice", "reviews", "--type=json", "-p", `[{"op": "add", "path": "/spec/http/0", "value": {
		"name": "look", "match": [{"headers": {"x-look": {"exact": "v3"}}}], "route": [{"destination": {"host": "reviews", "subset": "v3"}}]}}]`)
	isOut := func(a answer) bool {
		return a.status == http.StatusServiceUnavailable && strings.Contains(a.body, "no healthy upstream")
	}
	s.eventually(t, "v3 is looked at, and is out", func() (bool, string) {
		a := s.get(t, reviewsURL, look)
		return isOut(a), fmt.Sprint(a.status, " ", a.body)
	})
	s.Misbehave("reviews-v1", bookinfo.Misbehaviour{ErrorRate: 1})
	began := time.Now()
	s.waitStatus(t, http.StatusInternalServerError, reviewsURL)
	s.Misbehave("reviews-v1", bookinfo.Misbehaviour{})
	s.waitStatus(t, http.StatusOK, reviewsURL)
	if took := time.Since(began); took < 15*time.Second || took > time.Minute {
		t.Errorf("v1 was out for %s, want 15s", took)
	}
	if a := s.get(t, reviewsURL, look); !isOut(a) {
		t.Errorf("v3 answers %d %s while v1 is back, want it out for three minutes", a.status, a.body)
	}
}

func (s *stage) kubectl(t *testing.T, args ...string) {
	t.Helper()
	if _, err := s.cluster.KubectlRun(t.Context(), append(args, "-n", s.Namespace)...); err != nil {
		t.Fatal(err)
	}
}

// onSickPod: one of v3's pods fails every request that it gets, and it got some.
func onSickPod(t *testing.T, s *stage, at string) {
	t.Helper()
	if at != promoted {
		return
	}
	s.eventually(t, "the sick pod was asked", func() (bool, string) {
		n, err := s.cluster.Query(t.Context(), fmt.Sprintf(
			`sum(istio_requests_total{reporter="destination",destination_workload="reviews-v3-sick",response_code="500",namespace=%q})`, s.Namespace))
		return err == nil && n > 0, fmt.Sprint(n, err)
	})
}
