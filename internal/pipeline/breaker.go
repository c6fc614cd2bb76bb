package pipeline

import (
	"fmt"
	"slices"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

const (
	// defaultBreakerWindow is that of spec.breaker.window.
	defaultBreakerWindow = 30 * time.Second
	// blindAfter is how long the breaker may see nothing before that is told.
	blindAfter = time.Minute
	// scrapedWithin is how late Prometheus may know what happened.
	scrapedWithin = time.Minute
)

// defaultSignals are those of spec.breaker.signals.
var defaultSignals = []v1.BreakerSignal{v1.SignalOverflow, v1.SignalEjection}

// BreakerWatch is what the analysis watches for outside the step cadence, for as long as a run is in flight.
type BreakerWatch struct {
	// ID changes with everything below but HostSince.
	ID       string
	Signals  []v1.BreakerSignal
	Scope    v1.BreakerScope
	Window   time.Duration
	MaxTrips int
	// Since bounds what counts: nothing that happened before it.
	Since time.Time
	// Aftermath: a fault, or another run of this version, ended shortly before Since, so that a counter's last value before it may
	// be older than what that did.
	Aftermath bool
	// HostSince is since when requests that found no endpoint of the host (UH) are the canary's; zero: they are not.
	HostSince time.Time
	// RunStart ends the window that UH is compared with.
	RunStart time.Time
	// Host (as in the spec) and Namespace, the canary as metrics name it, and its subset.
	Host, Namespace string
	Canary          GateTarget
	Subset          string
	// Protocol of the routes: which of the mesh's metrics tell of them.
	Protocol v1.Protocol
}

// BreakerState is what the analysis has seen of a breaker.
type BreakerState struct {
	// For is the ID of the watch that it is about; a state about another one is not used.
	For string
	// Trips are the signals of which there were more than MaxTrips in the window.
	Trips []Trip
	// BlindSince is since when nothing can be seen, zero while it can; Blind says why.
	BlindSince time.Time
	Blind      string
}

// Trip is one signal's evidence.
type Trip struct {
	Signal v1.BreakerSignal
	// Count Within so long before Time: the watch's window, or more where Prometheus did not answer for longer.
	Count  int
	Within time.Duration
	Time   time.Time
	Query  string
	// ByHost: the requests name no version; they are the canary's only where the watch has a HostSince.
	ByHost bool
}

// watchBreaker adds the breaker to what is measured, in whatever phase the run is.
func (d *draft) watchBreaker() {
	if d.status.Run == nil || d.status.Phase == v1.PhaseDetached {
		return
	}
	if w := d.breakerWatch(resolvePlan(d.rollout)); w != nil {
		if d.watch == nil {
			d.watch = &Watch{}
		}
		d.watch.Breaker = w
	}
}

// breakerWatch says what to watch for now; nil: the breaker is off, or a fault stands whose consequences are not the canary's.
func (d *draft) breakerWatch(plan []stage) *BreakerWatch {
	run, spec := d.status.Run, valueOr(d.rollout.Spec.Breaker, v1.Breaker{})
	w := &BreakerWatch{
		Signals: d.breakerSignals(), Scope: v1.BreakerCanary, Window: durationOr(spec.Window, defaultBreakerWindow),
		MaxTrips: int(valueOr(spec.MaxTrips, 0)), Since: run.StartedAt.Time, RunStart: run.StartedAt.Time,
		Host: d.rollout.Spec.Host, Namespace: d.rollout.Namespace, Canary: d.canaryTarget(), Subset: d.canarySubset(),
		Protocol: d.rollout.Spec.Protocol,
	}
	if len(w.Signals) == 0 {
		return nil
	}
	if spec.Scope == v1.BreakerHost {
		w.Scope, w.HostSince = v1.BreakerHost, w.Since
	} else {
		if d.status.Traffic.Fault != nil {
			return nil
		}
		end, counts := d.afterFault(plan)
		if !counts {
			return nil
		}
		if ran := d.afterRun(); ran.After(end) {
			w.Aftermath, end = true, ran
		}
		if end.After(w.Since) {
			w.Aftermath, w.Since = true, end
		}
		if w.HostSince = d.exposedSince(plan); !w.HostSince.IsZero() && w.HostSince.Before(w.Since) {
			w.HostSince = w.Since
		}
	}
	// Times that were read back are in another location, and the same.
	w.Since, w.RunStart = w.Since.UTC(), w.RunStart.UTC()
	hostSince := w.HostSince
	w.HostSince = time.Time{}
	w.ID = hash(w)
	w.HostSince = hostSince.UTC()
	return w
}

// breakerSignals are those of the spec; where it says nothing of a breaker, the default ones if the rule has one.
func (d *draft) breakerSignals() []v1.BreakerSignal {
	switch b := d.rollout.Spec.Breaker; {
	case b == nil && !d.in.Mesh.Breakers[""] && !d.in.Mesh.Breakers[d.canaryPool()]:
		return nil
	case b == nil || b.Signals == nil:
		return defaultSignals
	default:
		return b.Signals
	}
}

// canaryPool names the canary among the mesh's breakers: by its subset, or by the full name of its own host.
func (d *draft) canaryPool() string {
	if host := d.in.Versions[d.status.Run.To].Host; host != "" {
		return v1.HostKey(host, d.rollout.Namespace)
	}
	return d.canarySubset()
}

func (d *draft) canarySubset() string {
	if t := d.status.Traffic; t != nil && t.Canary != nil {
		return t.Canary.Subset
	}
	return d.target(d.status.Run.To).Subset
}

// afterFault is from when on what the last fault step did is over; the zero time without one. false: it may not be over yet. One
// delay is for the write that takes the fault away, one for the mesh to obey.
func (d *draft) afterFault(plan []stage) (time.Time, bool) {
	for i := d.passed(plan) - 1; i >= 0; i-- {
		if plan[i].fault == nil {
			continue
		}
		end := d.status.Run.Steps[i].FinishedAt.Add(2 * d.in.PropagationDelay)
		if i < int(d.status.Step.Index)-1 {
			return end, true
		}
		applied, ok := d.applied()
		if obeyed := applied.Add(d.in.PropagationDelay); obeyed.After(end) {
			end = obeyed
		}
		return end, ok
	}
	return time.Time{}, true
}

// afterRun is from when on what the run before this one did to the same version is over; the zero time if that is long ago.
func (d *draft) afterRun() time.Time {
	run, history := d.status.Run, d.status.History
	if len(history) == 0 || history[0].To != run.To || run.StartedAt.Sub(history[0].FinishedAt.Time) > scrapedWithin {
		return time.Time{}
	}
	return history[0].FinishedAt.Add(2 * d.in.PropagationDelay)
}

// passed is how many steps of the plan lie behind, of which there are records.
func (d *draft) passed(plan []stage) int {
	if d.status.Step == nil {
		return 0
	}
	return min(int(d.status.Step.Index), len(plan), len(d.status.Run.Steps))
}

// exposedSince is since when users have been on the canary without a break; zero while they are not, and while stable has no
// ready endpoint, since then requests that find none may be stable's.
func (d *draft) exposedSince(plan []stage) time.Time {
	if d.status.Step == nil || !d.status.Traffic.ExposedToUsers() || d.in.Versions[d.status.Run.From].Ready == 0 {
		return time.Time{}
	}
	since := d.status.Step.StartedAt.Time
	if d.passed(plan) < int(d.status.Step.Index) {
		return since
	}
	for i := d.passed(plan) - 1; i >= 0; i-- {
		if !plan[i].traffic(v1.Target{}, v1.Target{}).ExposedToUsers() {
			break
		}
		since = d.status.Run.Steps[i].StartedAt.Time
	}
	return since
}

// breakerState is what was seen of the breaker as it is now.
func (d *draft) breakerState(plan []stage) (BreakerState, *BreakerWatch) {
	if w := d.breakerWatch(plan); w != nil && d.in.Breaker != nil && d.in.Breaker.For == w.ID {
		return *d.in.Breaker, w
	}
	return BreakerState{}, nil
}

// tripped: the mesh's circuit breakers acted on the canary more often than is borne.
func (d *draft) tripped(plan []stage) *cause {
	state, w := d.breakerState(plan)
	at := slices.IndexFunc(state.Trips, func(t Trip) bool {
		return t.Count > w.MaxTrips && (!t.ByHost || !w.HostSince.IsZero())
	})
	if at < 0 {
		return nil
	}
	trip, where := state.Trips[at], "before its first step"
	within := max(trip.Within, w.Window)
	if step := d.status.Step; step != nil {
		where = "at step " + step.Display
	}
	message := fmt.Sprintf("breaker tripped: %s %d > %d in %s", trip.Signal, trip.Count, w.MaxTrips, within)
	switch {
	case w.Scope == v1.BreakerHost:
		message += " on the whole host"
	case trip.ByHost:
		message += " (attributed by host)"
	}
	return &cause{
		reason: v1.ReasonTrip, rejects: true, message: message + " " + where,
		failure: v1.Failure{
			Gate: "breaker " + string(trip.Signal), Query: trip.Query, Time: microTime(trip.Time),
			Value: fmt.Sprintf("%d in %s", trip.Count, within), Limit: fmt.Sprint(w.MaxTrips),
		},
	}
}

// noteBlindness tells, once, that the breaker has seen nothing for long, and that it sees again. Nothing is rejected for that.
func (d *draft) noteBlindness(plan []stage) {
	state, w := d.breakerState(plan)
	run := d.status.Run
	switch told := state.BlindSince.Add(blindAfter); {
	case w == nil:
	case state.BlindSince.IsZero():
		if run.BreakerBlind {
			d.event(false, "BreakerSees", "the breaker sees what happens to %s again", run.To)
		}
		run.BreakerBlind = false
	case d.in.Now.Before(told):
		d.wake(told)
	case !run.BreakerBlind:
		run.BreakerBlind = true
		d.event(true, "BreakerBlind", "the breaker has seen nothing of %s for %s: %s; gates go on judging", run.To, blindAfter, state.Blind)
	}
}
