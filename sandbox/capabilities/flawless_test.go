package capabilities

import (
	"net/http"
	"sync"
	"testing"
	"time"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/load"
)

// flawlessRate is what a load generator is asked for, so that 200 requests per second are reached on a busy machine too.
const flawlessRate, flawlessReached = 240, 200

// flawlessLoads is how many of these loads go on at a time: more would get in each other's way.
const flawlessLoads = 3

// walk takes an example's Rollout, from the version that Git names, through all that users could notice.
type walk struct {
	example
	// canary is the version that is pushed; target is what clients ask for, at the gateway where the example has one.
	canary, target string
	// token is the file of examples/ with the token that the requests bear; "" is none.
	token string
	// look is at more than the shares; nil is at nothing.
	look look
}

// look is at what else is so: atRest, in each step by its name, where the run waits for it, when the canary is promoted, and when
// the version before has returned. Requests go on.
type look func(t *testing.T, s *stage, at string)

const atRest, promoted, returned = "at rest", "promoted", "returned"

// flawless are the examples whose README promises that no request fails, those that take longest first.
var flawless = []walk{
	{example: example{dir: "05-weights", apps: []string{"bookinfo.yaml"}}, canary: "v3", target: reviewsURL},
	{example: example{dir: "in-place"}, canary: "v2", target: reviewsURL, look: onDeployments},
	{example: example{dir: "20-service-entry", apps: []string{"partner.yaml"}}, canary: "v2", target: partner, look: onPartner},
	{example: example{dir: "14-breaker-ejection-retry", apps: []string{"bookinfo.yaml"}}, canary: "v3", target: reviewsURL, look: onSickPod},
	{example: example{dir: "18-uri-routing", apps: []string{"bookinfo.yaml"}, gateway: true}, canary: "v3", target: reviewsAtGateway, look: onRoutes()},
	{example: example{dir: "21-egress", apps: []string{"bookinfo.yaml"}, configuration: true}, canary: "v3", target: reviewsURL, look: onEgress},
	{
		example: example{dir: "22-authorization", apps: []string{"bookinfo.yaml"}, configuration: true},
		canary:  "v3", target: reviewsURL, token: "22-authorization/customer.jwt", look: onPolicies,
	},
	{example: example{dir: "23-mtls", apps: []string{"bookinfo.yaml"}, configuration: true}, canary: "v3", target: reviewsURL, look: onMutualTLS},
	{example: example{dir: "26-rate-limit", apps: []string{"bookinfo.yaml"}, configuration: true}, canary: "v3", target: reviewsURL, look: onRateLimit},
	{example: example{dir: "02-all-to-one", apps: []string{"bookinfo.yaml"}}, canary: "v2", target: reviewsURL},
}

// TestNoFailedRequests: in the examples that promise it no request fails at 200 requests per second: while a run is reverted in each
// of its steps, while one ends, and while the version before comes back after it. In each step clients get the share that it names.
// It is not parallel, so that it runs alone.
func TestNoFailedRequests(t *testing.T) {
	next := make(chan walk)
	var walks sync.WaitGroup
	for range flawlessLoads {
		walks.Go(func() {
			for w := range next {
				t.Run(w.dir, w.run)
			}
		})
	}
	for _, w := range flawless {
		next <- w
	}
	close(next)
	walks.Wait()
}

func (w walk) run(t *testing.T) {
	s := newStage(t, w.example)
	from := s.visitor
	if w.gateway {
		from = s.gateway
	}
	if w.token != "" {
		from.bears = []string{s.bearer(t, w.token)}
	}
	from.waitServed(t, s.rollouts(t)[0].Spec.Version, w.target)
	generator, began := from.load(t, flawlessRate, w.target), time.Now()
	w.through(t, s, from)
	w.judge(t, generator.Stop(), time.Since(began))
}

// through reverts a run in each of its steps, has one end, and reverts that.
func (w walk) through(t *testing.T, s *stage, from visitor) {
	t.Helper()
	rollout := s.rollouts(t)[0]
	name, first := rollout.Name, rollout.Spec.Version
	w.lookAt(t, s, atRest)
	for _, step := range stepsOf(rollout.Spec) {
		s.pushVersion(t, "rollout.yaml", w.canary)
		s.stayIn(t, name, step.Name)
		w.waitShare(t, from, first, step.Weight)
		w.lookAt(t, s, step.Name)
		s.revert(t)
		s.waitHealthy(t, name, first)
		s.goOn(t, name)
	}
	s.pushVersion(t, "rollout.yaml", w.canary)
	s.waitHealthy(t, name, w.canary)
	from.waitServed(t, w.canary, w.target)
	w.lookAt(t, s, promoted)
	s.revert(t)
	s.waitHealthy(t, name, first)
	from.waitServed(t, first, w.target)
	w.lookAt(t, s, returned)
}

// waitShare waits until clients get the canary by its weight; a step without one says nothing of that.
func (w walk) waitShare(t *testing.T, from visitor, stable string, weight *int32) {
	t.Helper()
	switch {
	case weight == nil:
	case *weight == 100:
		from.waitServed(t, w.canary, w.target)
	default:
		share := float64(*weight) / 100
		from.waitSplit(t, map[string]float64{stable: 1 - share, w.canary: share}, w.target)
	}
}

func (w walk) lookAt(t *testing.T, s *stage, at string) {
	t.Helper()
	if w.look != nil {
		w.look(t, s, at)
	}
}

// judge what the users of the whole walk saw.
func (w walk) judge(t *testing.T, seen load.Counts, took time.Duration) {
	t.Helper()
	reached := float64(seen.Total) / took.Seconds()
	t.Logf("%d requests, %.0f a second, versions %v, statuses %v", seen.Total, reached, seen.ByVersion, seen.ByStatus)
	if seen.Failed > 0 || seen.ByStatus[http.StatusOK] != seen.Total || seen.ByVersion[w.canary] == 0 {
		t.Errorf("%d requests failed (statuses %v, last: %v) and %d reached %s; want none to fail and some to reach it",
			seen.Failed, seen.ByStatus, seen.LastError, seen.ByVersion[w.canary], w.canary)
	}
	if reached < flawlessReached {
		t.Errorf("only %.0f requests a second were sent (%d were not, for want of answers), want %d", reached, seen.Skipped, flawlessReached)
	}
}

// stepsOf are a Rollout's steps, and its soak as the last one.
func stepsOf(spec v1.RolloutSpec) []v1.Step {
	steps := spec.Steps
	if spec.Soak != nil {
		all := int32(100)
		steps = append(steps, v1.Step{Name: "soak", Weight: &all})
	}
	return steps
}
