package analysis

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// pollEvery is how often breakers are looked at.
const pollEvery = time.Second

// breaker is one under watch. What stands above state never changes; the rest is guarded by the Analyst's mutex.
type breaker struct {
	key   types.NamespacedName
	watch pipeline.BreakerWatch

	state pipeline.BreakerState
	// before is how many requests found no endpoint in the window before the run; nil: not known yet.
	before *float64
	// asking: the last poll's answer is still awaited.
	asking    bool
	forgotten bool
}

func newBreaker(key types.NamespacedName, watch pipeline.BreakerWatch) *breaker {
	return &breaker{key: key, watch: watch, state: pipeline.BreakerState{For: watch.ID}}
}

// sameBreaker is the one of the watch that stays as it is, or nil.
func (w *watched) sameBreaker(watch *pipeline.BreakerWatch) *breaker {
	if w == nil || w.breaker == nil || w.breaker.watch.ID != watch.ID {
		return nil
	}
	return w.breaker
}

// pollBreakers asks for all breakers once in a second, and returns when it is to be called again; the zero time: when there are any.
func (a *Analyst) pollBreakers(ctx context.Context, now time.Time) time.Time {
	tick := now.Truncate(pollEvery)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.breakers) == 0 {
		return time.Time{}
	}
	if a.polled.Before(tick) {
		a.polled = tick
		r := newRound(a.asker)
		for b := range a.breakers {
			if !b.asking {
				b.asking = true
				a.work.Go(func() { a.pollBreaker(ctx, r, b, tick) })
			}
		}
	}
	return tick.Add(pollEvery)
}

// pollBreaker asks for one breaker and takes in the answer.
func (a *Analyst) pollBreaker(ctx context.Context, r *round, b *breaker, at time.Time) {
	l := lookup{watch: b.watch, at: at}
	parts := l.parts()
	var answer, base *call
	if len(parts) > 0 {
		answer = r.call(ctx, instant(joined(parts), at))
	}
	a.mu.Lock()
	missing := b.before == nil && parts[partHost] != ""
	a.mu.Unlock()
	if missing {
		base = r.call(ctx, instant(lostBefore(b.watch), b.watch.RunStart))
	}
	for _, c := range []*call{answer, base} {
		if c != nil {
			<-c.done
		}
	}
	if a.learnBreaker(ctx, b, parts, answer, base, at) {
		a.wake(b.key)
	}
}

func instant(query string, at time.Time) ask { return ask{query, at.UnixNano(), at.UnixNano(), 0} }

// learnBreaker takes in the answers, and tells whether they are news.
func (a *Analyst) learnBreaker(ctx context.Context, b *breaker, parts map[string]string, answer, base *call, at time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	b.asking = false
	if ctx.Err() != nil || b.forgotten || answer == nil {
		return false // what was cut off is no evidence
	}
	if base != nil && base.failed == nil {
		if known, ok := readCounts(base.answer, b.watch); ok {
			b.before = new(known.total[""])
		}
	}
	blind, known := b.see(answer)
	before := b.state
	b.state.Blind = blind
	switch {
	case blind == "":
		b.state.BlindSince = time.Time{}
	case b.state.BlindSince.IsZero():
		b.state.BlindSince = at
	}
	if answer.failed == nil {
		b.state.Trips = b.judge(known, parts, at)
	}
	a.metrics.breaker(b, known, at)
	return before.BlindSince.IsZero() != b.state.BlindSince.IsZero() || !slices.EqualFunc(before.Trips, b.state.Trips, sameTrip)
}

func sameTrip(x, y pipeline.Trip) bool { return x.Signal == y.Signal && x.ByHost == y.ByHost }

// see reads an answer, and says why nothing can be seen; empty: something can.
func (b *breaker) see(answer *call) (string, counts) {
	if f := answer.failed; f != nil {
		if f.invalid != "" {
			return "Prometheus refuses the breaker's query: " + f.invalid, counts{}
		}
		return f.message, counts{}
	}
	known, ok := readCounts(answer.answer, b.watch)
	_, reported := known.total[partSeen]
	_, overflows := known.total[partOverflow]
	_, ejections := known.total[partEjection]
	canary := b.watch.Canary
	switch {
	case !ok:
		return "Prometheus gave no answer that can be read", known
	case overflows || ejections:
	case !reported:
		return fmt.Sprintf("Prometheus has no %s of %s from its callers, and none of Envoy's statistics of its clusters", requests, b.watch.Host), known
	case b.watch.Scope != v1.BreakerHost && canary.Labels["version"] == "" && canary.Workload == "":
		return fmt.Sprintf("version %s has neither a label `version` nor a workload, so Istio's metrics can not tell it apart", canary.Version), known
	}
	return "", known
}

// judge finds the signals that came more often than is borne. What tripped by the canary's own evidence stays tripped.
func (b *breaker) judge(known counts, parts map[string]string, at time.Time) []pipeline.Trip {
	var trips []pipeline.Trip
	for _, signal := range b.watch.Signals {
		if i := slices.IndexFunc(b.state.Trips, func(t pipeline.Trip) bool { return t.Signal == signal && !t.ByHost }); i >= 0 {
			trips = append(trips, b.state.Trips[i])
			continue
		}
		part, count := b.count(signal, known, at)
		if n := int(math.Ceil(count - 1e-6)); n > b.watch.MaxTrips {
			trips = append(trips, pipeline.Trip{
				Signal: signal, Count: n, Time: at, Query: parts[part], ByHost: part == partHost,
			})
		}
	}
	return trips
}

// count is how often a signal came in the window, and the part of the query that says so. Where Istio's metrics and Envoy's both
// tell of it, they tell of the same.
func (b *breaker) count(signal v1.BreakerSignal, known counts, at time.Time) (string, float64) {
	switch signal {
	case v1.SignalOverflow:
		if known.total[partOverflow] > known.flagged[flagOverflow] {
			return partOverflow, known.total[partOverflow]
		}
		return partRequests, known.flagged[flagOverflow]
	case v1.SignalRetryLimit:
		return partRequests, known.flagged[flagRetryLimit]
	case v1.SignalEjection:
		// That Envoy says "none" does not mean that the callers' proxies do: any proxy of the mesh has the cluster.
		n := known.total[partEjection]
		elsewhere := b.watch.Scope != v1.BreakerHost && known.total[partElsewhere] > 0
		if n > 0 || b.before == nil || elsewhere {
			return partEjection, n
		}
		return partHost, known.total[partHost] - b.expected(at)
	}
	return "", 0
}

// expected is how many requests would have found no endpoint at the rate of before the run.
func (b *breaker) expected(at time.Time) float64 {
	window := lookup{watch: b.watch, at: at}.window(b.watch.HostSince)
	return *b.before * window.Seconds() / b.watch.Window.Seconds()
}

// Breaker returns what was seen of a Rollout's breaker; nil when none is watched. The caller may keep it.
func (a *Analyst) Breaker(key types.NamespacedName) *pipeline.BreakerState {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.watches[key]
	if w == nil || w.breaker == nil {
		return nil
	}
	state := w.breaker.state
	state.Trips = slices.Clone(state.Trips)
	return &state
}
