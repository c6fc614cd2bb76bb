package capabilities

import (
	"net/http"
	"testing"
	"time"
)

// flawlessRate is what a load generator is asked for, so that 200 requests per second are reached on a busy machine too.
const flawlessRate, flawlessReached = 240, 200

// flawless are the examples whose README promises that no request fails.
var flawless = []struct {
	example
	canary, target string
	steps          []string
}{
	{example{dir: "02-all-to-one", apps: []string{"bookinfo.yaml"}}, "v2", reviewsURL, []string{"soak"}},
	{example{dir: "05-weights", apps: []string{"bookinfo.yaml"}}, "v3", reviewsURL, []string{"tenth", "quarter", "half", "full"}},
	{example{dir: "14-breaker-ejection-retry", apps: []string{"bookinfo.yaml"}}, "v3", reviewsURL, []string{"half", "full"}},
	{example{dir: "18-uri-routing", apps: []string{"bookinfo.yaml"}, gateway: true}, "v3", "http://api.example.com/reviews/0", []string{"half", "full"}},
}

// TestNoFailedRequests: in the examples that promise it no request fails at 200 requests per second: while a run is reverted in each
// of its steps, while one ends, and while the version before comes back after it. It is not parallel, so that it runs alone.
func TestNoFailedRequests(t *testing.T) {
	places := make(chan struct{}, 2) // more loads at a time would get in each other's way
	for _, e := range flawless {
		t.Run(e.dir, func(t *testing.T) {
			t.Parallel()
			places <- struct{}{}
			defer func() { <-places }()
			s := newStage(t, e.example)
			from := s.visitor
			if e.gateway {
				from = s.gateway
			}
			from.waitServed(t, "v1", e.target)
			generator, began := from.load(t, flawlessRate, e.target), time.Now()
			for _, step := range e.steps {
				s.pushVersion(t, "rollout.yaml", e.canary)
				s.waitStep(t, "reviews", step)
				s.revert(t)
				s.waitHealthy(t, "reviews", "v1")
			}
			s.pushVersion(t, "rollout.yaml", e.canary)
			s.waitHealthy(t, "reviews", e.canary)
			s.revert(t)
			s.waitHealthy(t, "reviews", "v1")
			from.waitServed(t, "v1", e.target)
			seen, took := generator.Stop(), time.Since(began)
			reached := float64(seen.Total) / took.Seconds()
			t.Logf("%d requests, %.0f a second, versions %v, statuses %v", seen.Total, reached, seen.ByVersion, seen.ByStatus)
			if seen.Failed > 0 || seen.ByStatus[http.StatusOK] != seen.Total || seen.ByVersion[e.canary] == 0 {
				t.Errorf("%d requests failed (statuses %v, last: %v) and %d reached %s; want none to fail and some to reach it",
					seen.Failed, seen.ByStatus, seen.LastError, seen.ByVersion[e.canary], e.canary)
			}
			if reached < flawlessReached {
				t.Errorf("only %.0f requests a second were sent (%d were not, for want of answers), want %d", reached, seen.Skipped, flawlessReached)
			}
		})
	}
}
