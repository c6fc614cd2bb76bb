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

// breaker is one under watch. All but its key and its watch's ID is guarded by the Analyst's mutex.
type breaker struct {
	key types.NamespacedName
	// watch changes only in HostSince, which is as it is since hostTaken.
	watch     pipeline.BreakerWatch
	hostTaken time.Time

	// state is nobody's before the first answer: it is For no watch.
	state pipeline.BreakerState
	// answered is when Prometheus last answered; before that, when the watch began.
	answered time.Time
	// before is how many requests found no endpoint in the window before the run; nil: not known yet.
	before *float64
	// asking: the last poll's answer is still awaited.
	asking    bool
	forgotten bool
}

func newBreaker(key types.NamespacedName, watch pipeline.BreakerWatch, now time.Time) *breaker {
	return &breaker{key: key, watch: watch, hostTaken: now, answered: now}
}

// sameBreaker is the one of the watch that stays, or nil. What names no version does not stay when it is another time
// since when that counts.
func (w *watched) sameBreaker(watch *pipeline.BreakerWatch, now time.Time) *breaker {
	if w == nil || w.breaker == nil || w.breaker.watch.ID != watch.ID {
		return nil
	}
	b := w.breaker
	if !b.watch.HostSince.Equal(watch.HostSince) {
		b.watch.HostSince, b.hostTaken = watch.HostSince, now
		b.state.Trips = slices.DeleteFunc(b.state.Trips, func(t pipeline.Trip) bool { return t.ByHost })
	}
	return b
}

func (b *breaker) lookup(at time.Time) lookup {
	return lookup{watch: b.watch, at: at, answered: b.answered, hostTaken: b.hostTaken}
}

// pollBreakers asks for all breakers once in a second, and returns when it is to be called again; the zero time: when there are any.
func (a *Analyst) pollBreakers(ctx context.Context, now time.Time) time.Time {
	tick := now.Truncate(pollEvery)
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.breakers) == 0 {
		return time.Time{}
	}
	if !a.polled.Equal(tick) { // a clock may be set back
		a.polled = tick
		r := newRound(a.asker)
		for b := range a.breakers {
			if l, first := b.lookup(tick), b.before == nil; !b.asking && l.own().window >= time.Second {
				b.asking = true
				a.work.Go(func() { a.pollBreaker(ctx, r, b, l, first) })
			}
		}
	}
	return tick.Add(pollEvery)
}

// pollBreaker asks for one breaker and takes in the answer; first: what was before the run is not known yet.
func (a *Analyst) pollBreaker(ctx context.Context, r *round, b *breaker, l lookup, first bool) {
	parts := l.parts()
	var base *call
	answer := r.call(ctx, instant(joined(parts), l.at))
	if first && parts[partHost] != "" {
		base = r.call(ctx, instant(lostBefore(l.watch), l.watch.RunStart))
		<-base.done
	}
	<-answer.done
	if a.learnBreaker(ctx, b, l, answer, base) {
		a.wake(b.key)
	}
}

func instant(query string, at time.Time) ask { return ask{query, at.UnixNano(), at.UnixNano(), 0} }

// learnBreaker takes in the answers, and tells whether they are news.
func (a *Analyst) learnBreaker(ctx context.Context, b *breaker, l lookup, answer, base *call) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	b.asking = false
	if ctx.Err() != nil || b.forgotten {
		return false // what was cut off is no evidence
	}
	if base != nil && base.failed == nil {
		if known, ok := readCounts(base.answer, l.watch); ok {
			b.before = new(known.total[""])
		}
	}
	blind, known := see(answer, l.watch)
	before := b.state
	b.state.For, b.state.Blind = b.watch.ID, blind
	switch {
	case blind == "":
		b.state.BlindSince = time.Time{}
	case b.state.BlindSince.IsZero():
		b.state.BlindSince = l.at
	}
	if answer.failed == nil {
		b.answered = l.at
		b.state.Trips = b.judge(known, l)
	}
	a.metrics.breaker(b, known, l)
	return before.BlindSince.IsZero() != b.state.BlindSince.IsZero() || !slices.EqualFunc(before.Trips, b.state.Trips, sameTrip)
}

func sameTrip(x, y pipeline.Trip) bool { return x.Signal == y.Signal && x.ByHost == y.ByHost }

// see reads an answer, and says why nothing can be seen; empty: something can.
func see(answer *call, w pipeline.BreakerWatch) (string, counts) {
	if f := answer.failed; f != nil {
		if f.invalid != "" {
			return "Prometheus refuses the breaker's query: " + f.invalid, counts{}
		}
		return f.message, counts{}
	}
	known, ok := readCounts(answer.answer, w)
	if !ok {
		return "Prometheus gave no answer that can be read", known
	}
	return blindTo(known, w), known
}

// blindTo says what of a watch's signals an answer can not show; empty: it shows what there is.
func blindTo(known counts, w pipeline.BreakerWatch) string {
	_, reported := known.total[partSeen]
	_, overflows := known.total[partOverflow]
	_, ejections := known.total[partEjection]
	from, canary := sourcesOf(w), w.Canary
	byVersion := w.Scope != v1.BreakerHost && (canary.Host == "" || canary.SharesHost)
	switch {
	case byVersion && !from.versions && !overflows && slices.Contains(w.Signals, v1.SignalOverflow):
		return fmt.Sprintf("Prometheus has no %s of version %s's clusters: of a connection that is refused Istio's metrics tell no version, so the callers' proxies have to expose Envoy's (proxyStatsMatcher)",
			from.overflows, canary.Version)
	case overflows || ejections:
	case !reported:
		return fmt.Sprintf("Prometheus has no %s of %s from its callers, and none of Envoy's statistics of its clusters", from.seen, w.Host)
	case byVersion && canary.Labels["version"] == "" && canary.Workload == "":
		return fmt.Sprintf("version %s has neither a label `version` nor a workload, so Istio's metrics can not tell it apart", canary.Version)
	}
	return ""
}

// judge finds the signals that came more often than is borne. What tripped by the canary's own evidence stays tripped.
func (b *breaker) judge(known counts, l lookup) []pipeline.Trip {
	var trips []pipeline.Trip
	for _, signal := range b.watch.Signals {
		if i := slices.IndexFunc(b.state.Trips, func(t pipeline.Trip) bool { return t.Signal == signal && !t.ByHost }); i >= 0 {
			trips = append(trips, b.state.Trips[i])
			continue
		}
		part, count := b.count(signal, known, l)
		if part == partHost && !l.watch.HostSince.Equal(b.watch.HostSince) {
			continue // that was asked before it became another
		}
		if n := int(math.Ceil(count - 1e-6)); n > b.watch.MaxTrips {
			trips = append(trips, pipeline.Trip{
				Signal: signal, Count: n, Within: l.reach(), Time: l.at, Query: l.parts()[part], ByHost: part == partHost,
			})
		}
	}
	return trips
}

// count is how often a signal came in the window, and the part of the query that says so. Where Istio's metrics and Envoy's both
// tell of it, they tell of the same.
func (b *breaker) count(signal v1.BreakerSignal, known counts, l lookup) (string, float64) {
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
		// Less those that would have found no endpoint at the rate of before the run.
		return partHost, known.total[partHost] - *b.before*l.host().window.Seconds()/l.watch.Window.Seconds()
	}
	return "", 0
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
