package simulation

import (
	"fmt"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// stageOf is a step as the oracle reads it off DESIGN.md, not off the pipeline.
type stageOf struct {
	name   string
	weight int32
	hold   time.Duration
	probe  bool
	gates  []expectedGate
}

type expectedGate struct {
	name             string
	window, interval time.Duration
	samples          int
}

func stagesOf(r *v1.Rollout) []stageOf {
	steps, full := slices.Clone(r.Spec.Steps), int32(100)
	reached := false
	for _, s := range steps {
		reached = reached || (s.Weight != nil && *s.Weight == 100)
	}
	if !reached || r.Spec.Soak != nil {
		soak := v1.Step{Name: "soak", Weight: &full}
		if r.Spec.Soak != nil {
			soak.Hold, soak.Gates = r.Spec.Soak.Hold, r.Spec.Soak.Gates
		}
		steps = append(steps, soak)
	}
	var out []stageOf
	weight := int32(0)
	for _, s := range steps {
		if s.Weight != nil {
			weight = *s.Weight
		}
		stage := stageOf{name: s.Name, weight: weight, probe: s.Probe != nil}
		if s.Hold != nil {
			stage.hold = s.Hold.Duration
		}
		exposed := weight > 0 || s.Match != nil || (s.Mirror != nil && s.Mirror.Host == "") || (s.Fault != nil && s.Fault.Traffic != v1.FaultTrafficUnchanged)
		stage.gates = expectedGates(r, s, exposed)
		out = append(out, stage)
	}
	return out
}

func expectedGates(r *v1.Rollout, s v1.Step, exposed bool) []expectedGate {
	gates := r.Spec.Gates
	if gates == nil && (r.Spec.Protocol == "" || r.Spec.Protocol == v1.ProtocolHTTP) {
		gates = []v1.Gate{{Name: "errors", Metric: v1.MetricErrorRate, Max: "1%"}}
	}
	var all []v1.Gate
	for _, g := range gates {
		if s.Fault == nil && (s.UseGates == nil || slices.Contains(s.UseGates, g.Name)) {
			all = append(all, g)
		}
	}
	defaults := v1.GateDefaults{}
	if r.Spec.GateDefaults != nil {
		defaults = *r.Spec.GateDefaults
	}
	var out []expectedGate
	for _, g := range append(all, s.Gates...) {
		if g.Metric != "" && !exposed {
			continue
		}
		e := expectedGate{
			name:     g.Name,
			window:   firstDuration(time.Minute, g.Window, defaults.Window),
			interval: firstDuration(10*time.Second, g.Interval, defaults.Interval),
			samples:  3,
		}
		for _, n := range []*int32{defaults.Samples, g.Samples} {
			if n != nil {
				e.samples = int(*n)
			}
		}
		if g.Query != "" && !pipeline.QueryHasWindow(g.Query) {
			e.window = 0
		}
		out = append(out, e)
	}
	return out
}

func firstDuration(fallback time.Duration, options ...*metav1.Duration) time.Duration {
	for _, d := range options {
		if d != nil {
			return d.Duration
		}
	}
	return fallback
}

// checkAdvance: the step that ends had its traffic, its hold, its gates and its probe, and its canary is available.
func (o *oracle) checkAdvance(r *v1.Rollout) {
	w, step := o.world, r.Status.Step
	if r.Spec.Suspend || detached(r) {
		w.violated(6, "step %s ended while suspended or detached", step.Display)
	}
	if available, _, _ := o.seen(r.Status.Run.To); !available {
		w.violated(5, "step %s ended while %s is not available", step.Display, r.Status.Run.To)
	}
	since := o.clockStart(r)
	if since.IsZero() {
		w.violated(6, "step %s ended and the mesh is not as it says", step.Display)
		return
	}
	stage := stagesOf(r)[step.Index]
	if stage.weight != r.Status.Traffic.Weight {
		w.violated(21, "step %s has weight %d, the spec says %s %d", step.Display, r.Status.Traffic.Weight, stage.name, stage.weight)
	}
	if held := o.decidedAt.Sub(since); held < stage.hold {
		w.violated(6, "step %s ended after %s, its hold is %s", step.Display, held, stage.hold)
	}
	for _, gate := range stage.gates {
		if why := o.missing(gate, since); why != "" {
			w.violated(6, "step %s ended and gate %s %s (applied %s ago)", step.Display, gate.name, why, o.decidedAt.Sub(since))
		}
	}
	if known := w.process.analyst.watches[rolloutRef]; stage.probe && (known == nil || known.probe == nil || !known.probe.Finished) {
		w.violated(6, "step %s ended and its probe has not passed", step.Display)
	}
}

// clockStart is the earliest time from which the step's hold and windows may count; zero while the mesh is not as it says.
func (o *oracle) clockStart(r *v1.Rollout) time.Time {
	w, applied := o.world, r.Status.Step.Applied
	since := o.carriedSince(r.Status.Traffic)
	if since.IsZero() {
		return since
	}
	if since.Before(w.process.started) && applied != nil && applied.Time.Before(since) {
		// The process that repaired the mesh was killed before it could commit so; nobody can know it.
		w.sometimes["repaired and killed before that was committed"]++
		since = applied.Time
	}
	for _, at := range []time.Time{o.stepBegan, o.editedAt()} {
		if at.After(since) {
			since = at
		}
	}
	return since
}

// missing says which evidence a gate lacks at the decision; empty: none.
func (o *oracle) missing(gate expectedGate, since time.Time) string {
	if gate.window == 0 && gate.samples == 1 {
		if o.decidedAt.Before(since.Add(config.PropagationDelay + config.Settle)) {
			return "can not have been sampled yet"
		}
		return ""
	}
	last := o.decidedAt.Add(-config.Settle)
	at := time.Unix(0, last.UnixNano()-last.UnixNano()%int64(gate.interval)).UTC()
	for range gate.samples {
		if at.Add(-gate.window).Before(since.Add(config.PropagationDelay)) {
			return fmt.Sprintf("has fewer than %d samples whose window lies in the step", gate.samples)
		}
		verdict := o.world.process.analyst.delivered[evidence{gate.name, gate.window, at.UnixNano()}]
		if verdict != pipeline.Pass {
			return fmt.Sprintf("was %q at %s", verdict, at.Sub(epoch))
		}
		at = at.Add(-gate.interval)
	}
	return ""
}

// carriedSince is since when the mesh, as far as the process can see it, is as a traffic says; zero when it is not.
func (o *oracle) carriedSince(t *v1.Traffic) time.Time {
	since := o.routedSince(t)
	carriers := o.world.faultCarriers(o.visibleOf)
	if t.Fault == nil || t.Fault.Host == "" {
		if len(carriers) > 0 {
			return time.Time{}
		}
		return since
	}
	if len(carriers) == 0 || since.IsZero() {
		return time.Time{}
	}
	key := keyOf(carriers[0])
	stands := tail(o.world.store.histories[key], o.visibleOf(key), func(v version) bool { return faultStands(v.object) })
	if stands.After(since) {
		return stands
	}
	return since
}

// routedSince is the same of the host's own VirtualServices.
func (o *oracle) routedSince(t *v1.Traffic) time.Time {
	var since time.Time
	for _, key := range drivenKeys(&o.world.rollout().Status) {
		one := tail(o.world.store.histories[key], o.visibleOf(key), func(v version) bool { return v.object != nil && carries(v.object, t) })
		if one.IsZero() {
			return one
		}
		if one.After(since) {
			since = one
		}
	}
	return since
}

// tail is the time of the first version of the latest unbroken series that holds, up to a position; zero when the last one does not.
func tail(history []version, position int64, holds func(version) bool) time.Time {
	var since time.Time
	for i := len(history) - 1; i >= 0; i-- {
		if history[i].rv > position {
			continue
		}
		if !holds(history[i]) {
			break
		}
		since = history[i].at
	}
	return since
}

// editedAt is when the steps or gates were last edited.
func (o *oracle) editedAt() time.Time {
	var last time.Time
	var before *v1.RolloutSpec
	generation := int64(0)
	for _, v := range o.world.store.histories[rolloutKey] {
		if v.object == nil || v.object.GetGeneration() == generation {
			continue
		}
		generation = v.object.GetGeneration()
		spec := &o.world.rolloutAt(rolloutKey, v.rv).Spec
		if before != nil && !samePlan(before, spec) {
			last = v.at
		}
		before = spec
	}
	return last
}

func samePlan(a, b *v1.RolloutSpec) bool {
	pick := func(s *v1.RolloutSpec) map[string]any {
		return toJSON(&v1.Rollout{Spec: v1.RolloutSpec{Steps: s.Steps, Gates: s.Gates, GateDefaults: s.GateDefaults, Soak: s.Soak}})
	}
	x, y := pick(a), pick(b)
	return maps.EqualFunc(x, y, func(p, q any) bool { return fmt.Sprint(p) == fmt.Sprint(q) })
}
