package analysis

import (
	"context"
	"fmt"
	"math"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

const (
	defaultProbeInterval = time.Second
	// minProbes is the least number of requests of a probe, however short its step.
	minProbes = 3
	// maxProbesInFlight bounds how far slow answers let the requests of one probe pile up.
	maxProbesInFlight = 16
)

// probe is a probe under way. result is guarded by the Analyst's mutex, as are started and stop.
type probe struct {
	watch   pipeline.ProbeWatch
	result  pipeline.ProbeResult
	started bool
	stop    context.CancelFunc
}

func newProbe(id string, watch pipeline.ProbeWatch) *probe {
	return &probe{watch: watch, result: pipeline.ProbeResult{For: id}, stop: func() {}}
}

// tally decides a probe from the number of its requests: planned, made and succeeded.
type tally struct {
	planned, made, succeeded int
	// minSuccess is a share from 0 to 1.
	minSuccess float64
}

// failed: even if all requests to come succeeded, the share would be missed.
func (t tally) failed() bool { return t.planned-(t.made-t.succeeded) < t.needed() }

// finished: all were made and enough succeeded.
func (t tally) finished() bool { return t.made >= t.planned && !t.failed() }

// needed is the least number of successes; the small term takes back what multiplying floats adds (95% of 20 is 19).
func (t tally) needed() int { return int(math.Ceil(t.minSuccess*float64(t.planned) - 1e-9)) }

// plannedProbes is how many requests fit from start to end, both included.
func plannedProbes(start, end time.Time, interval time.Duration) int {
	if end.Before(start) {
		return minProbes
	}
	return max(minProbes, int(end.Sub(start)/interval)+1)
}

// PlannedProbes is how many requests a probe makes that begins at its start, and what lies between two of them. The first is made at the
// start, and the step does not end before the last one is answered.
func PlannedProbes(watch pipeline.ProbeWatch) (requests int, interval time.Duration) {
	interval = probeInterval(watch.Spec)
	return plannedProbes(watch.Start, watch.End, interval), interval
}

func probeInterval(spec v1.Probe) time.Duration {
	if spec.Interval == nil || spec.Interval.Duration <= 0 {
		return defaultProbeInterval
	}
	return spec.Interval.Duration
}

func minSuccess(spec v1.Probe) (float64, error) {
	if spec.MinSuccess == "" {
		return 1, nil
	}
	share, _, err := parseLimit(spec.MinSuccess)
	if err != nil || share < 0 || share > 1 {
		return 0, fmt.Errorf(`probe: minSuccess: %q; a percentage from "0%%" to "100%%" is expected`, spec.MinSuccess)
	}
	return share, nil
}

// startProbe begins a watch's probe, unless it was begun or nothing runs yet. The mutex is held.
func (a *Analyst) startProbe(key types.NamespacedName, w *watched) {
	if a.running == nil || w.probe == nil || w.probe.started {
		return
	}
	p := w.probe
	ctx, cancel := context.WithCancel(a.running)
	p.started, p.stop = true, cancel
	a.work.Go(func() {
		defer cancel()
		update := func(change func(*pipeline.ProbeResult)) {
			a.mu.Lock()
			defer a.mu.Unlock()
			change(&p.result)
		}
		if a.prober.run(ctx, p.watch, update) && ctx.Err() == nil {
			a.wake(key)
		}
	})
}

// prober makes the requests of probes.
type prober struct {
	policy ProbePolicy
	clock  clock.Clock
	client requester
}

// attempt is a request that was made: failure is empty when it succeeded, and refused is set when it may not be made at all.
type attempt struct{ failure, refused string }

// run makes a probe's requests, one each interval, and returns true once its result is decided, false when ctx ended before.
// A request does not wait for the answer to the one before, so that a slow version is asked as often as a fast one.
func (p *prober) run(ctx context.Context, watch pipeline.ProbeWatch, update func(func(*pipeline.ProbeResult))) bool {
	share, err := minSuccess(watch.Spec)
	if err == nil {
		err = p.policy.check(watch.Spec.URL)
	}
	if err != nil {
		update(func(r *pipeline.ProbeResult) { r.Refused = tidy(err.Error()) })
		return true
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // the requests in flight end with the decision
	start := later(watch.Start, p.clock.Now())
	s := series{
		prober: p, spec: watch.Spec, interval: probeInterval(watch.Spec), next: start, end: watch.End,
		attempts: make(chan attempt, maxProbesInFlight),
	}
	s.tally = tally{planned: plannedProbes(start, watch.End, s.interval), minSuccess: share}
	for ctx.Err() == nil {
		a, ok := s.step(ctx)
		if !ok {
			continue
		}
		update(func(r *pipeline.ProbeResult) { s.count(a, r) })
		if a.refused != "" || s.tally.failed() || s.tally.finished() {
			return true
		}
	}
	return false
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// series is the requests of one probe.
type series struct {
	prober   *prober
	spec     v1.Probe
	interval time.Duration
	next     time.Time
	end      time.Time
	tally    tally
	begun    int
	attempts chan attempt
}

// step waits for what comes first: the time of the next request, which it then begins, or an answer, which it returns.
func (s *series) step(ctx context.Context) (attempt, bool) {
	var alarm <-chan time.Time
	if s.begun < s.tally.planned && s.begun-s.tally.made < maxProbesInFlight {
		wait := s.next.Sub(s.prober.clock.Now())
		if wait <= 0 {
			s.begin(ctx)
			return attempt{}, false
		}
		timer := s.prober.clock.NewTimer(wait)
		defer timer.Stop()
		alarm = timer.C()
	}
	select {
	case <-ctx.Done():
		return attempt{}, false
	case <-alarm:
		return attempt{}, false
	case a := <-s.attempts:
		return a, true
	}
}

func (s *series) begin(ctx context.Context) {
	s.begun++
	now := s.prober.clock.Now()
	s.next = later(s.next.Add(s.interval), now)
	// Answers so slow that requests had to wait take some of them out of the plan: the step does not get longer.
	if s.begun >= minProbes && now.After(s.end) {
		s.tally.planned = s.begun
	}
	go func() { s.attempts <- s.prober.client.request(ctx, s.spec) }() // never blocks: there is a place for each in flight
}

func (s *series) count(a attempt, r *pipeline.ProbeResult) {
	s.tally.made++
	if a.failure == "" && a.refused == "" {
		s.tally.succeeded++
	} else {
		r.LastFailure = a.failure
	}
	r.Total, r.Succeeded, r.Refused = s.tally.made, s.tally.succeeded, a.refused
	r.Failed, r.Finished = s.tally.failed() && a.refused == "", s.tally.finished() && a.refused == ""
}
