package simulation

import (
	"fmt"
	"math"
	"time"

	"k8s.io/apimachinery/pkg/types"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// overflowRate is how many requests per second find no place in the pool of a version in a storm, while it has users.
const overflowRate = 5

func init() {
	deeds = append(deeds,
		deed{"a storm on the canary", 4, func(w *world) { w.storm(w.orElse(func(s *v1.RolloutStatus) string { return s.Canary }), true) }},
		deed{"a storm on stable", 3, func(w *world) { w.storm(w.orElse(func(s *v1.RolloutStatus) string { return s.Stable }), true) }},
		deed{"storms end", 6, (*world).endStorms},
	)
	interesting = append(interesting, "return: Trip", "rejected: Trip", "a storm on stable alone", "breaker polled blind", "a trip outside the cadence")
	scripts = append(scripts, script{
		name: "breaker-trips-at-half", last: 6 * minute, ends: "RolledBack/Trip", stable: "v1", breaker: &v1.Breaker{}, story: []act{
			pushes(minute, "v3"),
			{minute + 10*time.Second, func(w *world) { w.storm("v1", true) }}, // nobody minds
			{half, func(w *world) { w.storm("v3", true) }},
		},
	})
}

// storm makes a version's pool overflow, or no longer.
func (w *world) storm(version string, on bool) {
	p := w.prometheus
	if p.storms == nil {
		p.storms = map[string]*timeline[bool]{}
	}
	if p.storms[version] == nil {
		p.storms[version] = &timeline[bool]{}
	}
	p.storms[version].set(w.clock.now, on)
	if on {
		w.transcript.line("mesh", "the pool of %s overflows", version)
		if r := w.rollout(); r != nil && r.Status.Run != nil && version == r.Status.Stable {
			w.sometimes["a storm on stable alone"]++
		}
	}
}

func (w *world) endStorms() {
	for _, version := range versions {
		if w.prometheus.stormy(version, w.clock.now) {
			w.storm(version, false)
		}
	}
}

func (p *prometheus) stormy(version string, t time.Time) bool {
	l := p.storms[version]
	return l != nil && l.at(t)
}

// overflows counts those of a version's users' requests that found no place between two times.
func (p *prometheus) overflows(version string, from, to time.Time) float64 {
	if p.storms[version] == nil || !to.After(from) {
		return 0
	}
	marks := append([]time.Time{from}, p.shares.cuts(from, to)...)
	marks = append(marks, p.storms[version].cuts(from, to)...)
	sortTimes(marks)
	marks = append(marks, to)
	count := 0.0
	for i := range len(marks) - 1 {
		if p.stormy(version, marks[i]) && p.shares.at(marks[i]).users[version] > 0 {
			count += overflowRate * marks[i+1].Sub(marks[i]).Seconds()
		}
	}
	return count
}

// drawBreaker is one that is on, or off.
func (w *world) drawBreaker() *v1.Breaker {
	return []*v1.Breaker{
		{Signals: []v1.BreakerSignal{}}, {}, {Signals: []v1.BreakerSignal{v1.SignalOverflow}, MaxTrips: new(int32(20))}, {Scope: v1.BreakerHost},
	}[w.rng.IntN(4)]
}

// guard is a breaker under the simulated analysis' watch.
type guard struct {
	watch pipeline.BreakerWatch
	state pipeline.BreakerState
}

// setBreaker begins to poll, unless that breaker is polled already.
func (a *analyst) setBreaker(key types.NamespacedName, watch *pipeline.Watch) {
	switch known := a.guards[key]; {
	case watch == nil || watch.Breaker == nil:
		delete(a.guards, key)
	case known == nil || known.watch.ID != watch.Breaker.ID:
		next := &guard{watch: *watch.Breaker, state: pipeline.BreakerState{For: watch.Breaker.ID}}
		a.guards[key] = next
		a.world.after(a.delay(), func() { a.poll(key, next) })
	}
}

// poll looks once, wakes the Rollout when there is news, and comes back in a second.
func (a *analyst) poll(key types.NamespacedName, g *guard) {
	if a.process.dead || a.guards[key] != g {
		return
	}
	w, now := a.world, a.world.clock.now
	switch down := w.prometheus.down.at(now); {
	case down && g.state.BlindSince.IsZero():
		g.state.BlindSince, g.state.Blind = now, "simulated: Prometheus is down"
		w.sometimes["breaker polled blind"]++
		a.process.enqueue(key, 0)
	case !down && !g.state.BlindSince.IsZero():
		g.state.BlindSince, g.state.Blind = time.Time{}, ""
		a.process.enqueue(key, 0)
	}
	if count := w.lostRequests(g.watch, now); len(g.state.Trips) == 0 && g.state.BlindSince.IsZero() && count > g.watch.MaxTrips {
		g.state.Trips = []pipeline.Trip{{Signal: v1.SignalOverflow, Count: count, Time: now, Query: "simulated"}}
		w.transcript.line("prometheus", "%d overflows", count)
		w.sometimes["a trip outside the cadence"]++
		a.process.enqueue(key, 0)
	}
	w.after(time.Second, func() { a.poll(key, g) })
}

// lostRequests are what a breaker counts at a time.
func (w *world) lostRequests(watch pipeline.BreakerWatch, now time.Time) int {
	from := now.Add(-watch.Window)
	if from.Before(watch.Since) {
		from = watch.Since
	}
	count := w.prometheus.overflows(watch.Canary.Version, from, now)
	if watch.Scope == v1.BreakerHost {
		count = 0
		for _, version := range versions {
			count += w.prometheus.overflows(version, from, now)
		}
	}
	return int(math.Ceil(count))
}

// Breaker implements controllers.Analyst.
func (a *analyst) Breaker(key types.NamespacedName) *pipeline.BreakerState {
	if g := a.guards[key]; g != nil {
		state := g.state
		return &state
	}
	return nil
}

// failing names what must take the run back now; empty: nothing.
func (o *oracle) failing() string {
	if gate := o.failingGate(); gate != "" {
		return "gate " + gate + " failed"
	}
	return o.tripping()
}

// tripping names a trip of the run in flight, as far as the process can know it.
func (o *oracle) tripping() string {
	w := o.world
	r := w.rolloutAt(rolloutKey, o.visibleOf(rolloutKey))
	g, live := w.process.analyst.guards[rolloutRef], w.rollout()
	if r == nil || g == nil || live == nil || r.ResourceVersion != live.ResourceVersion || len(g.state.Trips) == 0 ||
		r.Generation != r.Status.ObservedGeneration || r.Status.Run == nil || detached(r) || r.DeletionTimestamp != nil {
		return ""
	}
	if _, ready, _ := o.seen(r.Status.Stable); !ready {
		return ""
	}
	return fmt.Sprintf("trip of %s", g.watch.ID)
}

// checkTrip: a run ends with a trip only after an overflow that counts, and what a fault did does not.
func (o *oracle) checkTrip(before, after *v1.Rollout) {
	a, b := &before.Status, &after.Status
	if a.Run == nil || b.Run != nil || len(b.History) == 0 || b.History[0].Number != a.Run.Number || b.History[0].Verdict != v1.ReasonTrip {
		return // also when a deletion ended the run, of which there is no record
	}
	faults := map[string]bool{}
	for _, s := range before.Spec.Steps {
		faults[s.Name] = s.Fault != nil
	}
	host := before.Spec.Breaker != nil && before.Spec.Breaker.Scope == v1.BreakerHost
	count, from := 0.0, a.Run.StartedAt.Time
	for _, step := range b.History[0].Steps {
		if host || !faults[step.Name] {
			count += o.overflowed(a.Run, host, from, step.FinishedAt.Time)
		}
		from = step.FinishedAt.Time
	}
	if count += o.overflowed(a.Run, host, from, b.History[0].FinishedAt.Time); count == 0 {
		o.world.violated(11, "run %d was rolled back by a trip, and nothing overflowed", a.Run.Number)
	}
}

func (o *oracle) overflowed(run *v1.Run, host bool, from, to time.Time) float64 {
	count := 0.0
	for _, version := range versions {
		if host || version == run.To {
			count += o.world.prometheus.overflows(version, from, to)
		}
	}
	return count
}
