package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
)

// awaitCanary begins the first step as soon as the canary is available.
func (d *draft) awaitCanary() {
	run := d.status.Run
	canary := d.in.Versions[run.To]
	switch p := firstProblem(d.in.HostProblem, d.in.Mesh.WriteProblem, d.in.Mesh.SurveyProblem, d.overlap(run.To), d.planProblem()); {
	case p != nil:
		d.stall(*p)
	case d.in.Contended != "":
		d.wait(v1.ReasonContended, "%s", d.in.Contended)
	case d.rollout.Spec.Suspend:
		d.wait(v1.ReasonSuspended, "spec.suspend is set: run %d to %s begins when it is cleared", run.Number, run.To)
	case !canary.Found:
		d.stall(d.notFound(run.To))
	case !canary.Available:
		d.wake(run.StartedAt.Add(d.deadline()))
		d.setPhase(v1.PhaseProgressing, v1.ReasonAvailability, fmt.Sprintf("waiting for %s to become available", run.To))
	default:
		plan := resolvePlan(d.rollout)
		if d.faultBusy(&plan[0]) {
			return
		}
		d.beginStep(plan, 0, "")
	}
}

// beginStep commits a step: its traffic, its place in the plan, and a clock that starts when the mesh is written.
func (d *draft) beginStep(plan []stage, index int, evidence string) {
	stage := &plan[index]
	canary := d.target(d.status.Run.To)
	d.status.Traffic = stage.traffic(d.status.Traffic.Stable, canary)
	d.status.Run.Plan = planHashes(d.sharedHash(d.status.Run.To), plan)[:index+2]
	d.status.Step = &v1.StepStatus{Index: int32(index), StartedAt: d.now()}
	d.nameStep(plan)
	if f := stage.fault; f != nil && f.Host != "" {
		carrier := d.in.Mesh.Faults[f.Host].VirtualService
		d.status.FaultVirtualService = &carrier
	}
	d.in.Written, d.in.Samples, d.in.Probe = nil, nil, nil
	d.watch = nil
	message := fmt.Sprintf("step %s: %s", d.status.Step.Display, describe(d.status.Traffic))
	if evidence != "" {
		message += "; " + evidence
	}
	d.event(false, "StepStarted", "%s", message)
	d.setStepPhase(stage, stage.untilWritten())
}

// untilWritten says what a step waits for whose traffic is not in force yet. Where no clock is committed once it is, the gates
// are named from the beginning: nothing else would be written of that step.
func (s *stage) untilWritten() string {
	if len(s.gates) == 0 || s.timed() {
		return "the mesh is being written"
	}
	return s.waitsForGates()
}

func (s *stage) waitsForGates() string {
	names := make([]string, len(s.gates))
	for i := range s.gates {
		names[i] = s.gates[i].Name
	}
	return "waits for gates " + strings.Join(names, ", ")
}

// nameStep writes the step's name and place as the plan has them now: later steps may have come or gone.
func (d *draft) nameStep(plan []stage) {
	step := d.status.Step
	step.Name, step.Total = plan[step.Index].name, int32(len(plan))
	step.Display = fmt.Sprintf("%d/%d %s", step.Index+1, step.Total, step.Name)
}

// describe says a traffic in words.
func describe(t *v1.Traffic) string {
	words := []string{fmt.Sprintf("weight %d", t.Weight)}
	if m := mode(t); m != "" {
		words = append(words, m)
	}
	return strings.Join(words, ", ")
}

func (d *draft) setStepPhase(stage *stage, waitsFor string) {
	phase := v1.PhaseProgressing
	if stage.soak {
		phase = v1.PhaseSoaking
	}
	d.setPhase(phase, v1.ReasonStep, fmt.Sprintf("step %s: %s", d.status.Step.Display, waitsFor))
}

// noteApplied commits when the step's traffic was applied: once it is, and again after the mesh was not as promised. That it was
// not is committed before the repair, so that no crash can hide it.
func (d *draft) noteApplied(stage *stage) {
	w, step := d.in.Written, d.status.Step
	switch {
	case !stage.timed():
		return
	case w == nil:
		step.Interrupted = step.Applied != nil
		return
	}
	at := microTime(w.At)
	if at.Before(&step.StartedAt) {
		at = step.StartedAt
	}
	// A probe's count is in this process only: another one, which found nothing to write, begins probe and hold afresh.
	if moved := w.Wrote || stage.probe != nil; step.Applied == nil || step.Interrupted || (moved && step.Applied.Before(&at)) {
		step.Applied, step.Interrupted = &at, false
	}
}

// applied is when hold and gates begin to count; false while the mesh is not as the step wants it.
func (d *draft) applied() (time.Time, bool) {
	step := d.status.Step
	switch {
	case step.Applied != nil:
		return step.Applied.Time, true
	case d.in.Written == nil:
		return time.Time{}, false
	case d.in.Written.At.Before(step.StartedAt.Time):
		return step.StartedAt.Time, true
	default:
		return d.in.Written.At, true
	}
}

// watchID names what samples are about: the run, the step and its clock.
func (d *draft) watchID() string {
	run, step := d.status.Run, d.status.Step
	id := fmt.Sprintf("%d/%d/%d", run.Number, step.Index, step.StartedAt.UnixMicro())
	if applied, ok := d.applied(); ok {
		id += fmt.Sprintf("/%d", applied.UnixMicro())
	}
	return id
}

// makeWatch says what to measure in the stage, and starts the gates' clocks; nil while the traffic is not applied.
func (d *draft) makeWatch(stage *stage) *Watch {
	applied, ok := d.applied()
	if !ok {
		return nil
	}
	watch := &Watch{ID: d.watchID()}
	for i := range stage.gates {
		gate := &stage.gates[i]
		gate.start(applied, d.in.PropagationDelay)
		gate.Canary, gate.Stable = d.canaryTarget(), d.gateTarget(d.status.Run.From)
		watch.Gates = append(watch.Gates, *gate)
	}
	if stage.probe != nil {
		watch.Probe = &ProbeWatch{
			Spec: *stage.probe, Start: applied.Add(d.in.PropagationDelay), End: applied.Add(stage.hold),
		}
	}
	if len(watch.Gates) == 0 && watch.Probe == nil {
		return nil
	}
	return watch
}

func (d *draft) gateTarget(version string) GateTarget {
	seen := d.in.Versions[version]
	return GateTarget{Version: version, Workload: seen.Workload, Labels: seen.Labels, Host: seen.Host}
}

// canaryTarget is the canary as metrics tell it from stable: labels that stable's pods bear as well tell nothing, and no labels do
// where both answer on one host.
func (d *draft) canaryTarget() GateTarget {
	canary, stable := d.gateTarget(d.status.Run.To), d.gateTarget(d.status.Run.From)
	if canary.Host != "" && v1.HostKey(canary.Host, d.rollout.Namespace) == v1.HostKey(stable.Host, d.rollout.Namespace) {
		canary.SharesHost, canary.Port, canary.Labels = true, d.in.Versions[d.status.Run.To].Port, nil
		return canary
	}
	canary.Labels = maps.Clone(canary.Labels)
	for _, label := range v1.RevisionLabels {
		if value := canary.Labels[label]; value != "" && value == stable.Labels[label] {
			delete(canary.Labels, label)
		}
	}
	return canary
}

// testProblem is a query that Prometheus refuses or a probe that may not be made.
func (d *draft) testProblem() *Problem {
	if d.watch == nil {
		return nil
	}
	for _, gate := range d.watch.Gates {
		if known := d.in.Samples[gate.Name]; known.For == d.watch.ID && known.InvalidQuery != "" {
			return &Problem{v1.ReasonInvalidQuery, fmt.Sprintf("gate %s: Prometheus refuses its query: %s", gate.Name, known.InvalidQuery)}
		}
	}
	if p := d.in.Probe; p != nil && p.For == d.watch.ID && p.Refused != "" {
		return &Problem{v1.ReasonInvalidSpec, fmt.Sprintf("probe of step %s: %s", d.status.Step.Display, p.Refused)}
	}
	return nil
}

// advance ends the step when everything allows it, else says what it waits for.
func (d *draft) advance(plan []stage, stage *stage) {
	next := int(d.status.Step.Index) + 1
	if next < len(plan) && d.held(stage) == "" && d.blocked(plan, next) {
		return
	}
	if waits := d.waitsFor(stage); waits != "" {
		if blind := d.blindGates(stage); len(blind) > 0 {
			d.wait(v1.ReasonNoEvidence, "%s", d.blindMessage(blind))
			return
		}
		d.setStepPhase(stage, waits)
		return
	}
	evidence := d.evidence(stage)
	d.status.Run.Steps = append(d.status.Run.Steps, v1.StepRecord{
		Name: stage.name, StartedAt: d.status.Step.StartedAt, FinishedAt: d.now(), Gates: d.gateRecords(),
	})
	if next == len(plan) {
		d.promote(evidence)
		return
	}
	d.beginStep(plan, next, evidence)
}

// blocked stalls or waits when the next stage's traffic can not be had: this one's stays, and is judged. It is asked before the
// gates, whose samples come and go, so that the phase stays.
func (d *draft) blocked(plan []stage, next int) bool {
	if p := d.stageProblem(plan, next); p != nil {
		d.stall(*p)
		return true
	}
	return d.faultBusy(&plan[next])
}

// held says that the stage's traffic is not in force or its hold not over; empty: neither.
func (d *draft) held(stage *stage) string {
	applied, ok := d.applied()
	if !ok || d.in.Written == nil {
		return stage.untilWritten()
	}
	if end := applied.Add(stage.hold); d.in.Now.Before(end) {
		d.wake(end)
		return "holds until " + end.UTC().Format("15:04:05 MST")
	}
	return ""
}

// waitsFor names the first thing that keeps the step from ending, in words that do not change with each sample; empty: nothing.
func (d *draft) waitsFor(stage *stage) string {
	if held := d.held(stage); held != "" {
		return held
	}
	if !d.in.Versions[d.status.Run.To].Available {
		return fmt.Sprintf("waits for %s to be available", d.status.Run.To)
	}
	if p := d.in.Probe; stage.probe != nil && (p == nil || p.For != d.watchID() || !p.Finished) {
		return "waits for its probe"
	}
	if !d.gatesPass(stage) {
		return stage.waitsForGates()
	}
	return ""
}

// samplesOf are what is known of a gate in this step, since its clock started.
func (d *draft) samplesOf(gate *GateWatch) GateSamples {
	if known := d.in.Samples[gate.Name]; known.For == d.watchID() {
		return known
	}
	return GateSamples{}
}

// gatesPass tells whether the latest samples of every gate pass.
func (d *draft) gatesPass(stage *stage) bool {
	return !slices.ContainsFunc(stage.gates, func(g GateWatch) bool {
		return !g.passing(d.samplesOf(&g).Samples, d.in.Now, d.in.Settle)
	})
}

// blindGates are the gates that lack evidence although the deadline has passed since the step could have ended.
func (d *draft) blindGates(stage *stage) []GateWatch {
	if d.held(stage) != "" || !d.in.Versions[d.status.Run.To].Available {
		return nil
	}
	end := d.couldEnd(stage)
	var blind []GateWatch
	for _, gate := range stage.gates {
		known := d.samplesOf(&gate)
		samples := known.Samples
		switch {
		case known.InvalidQuery != "" || gate.passing(samples, d.in.Now, d.in.Settle):
		case gate.awaits(samples, d.in.Now, d.in.Settle):
		case gate.blind(samples):
			blind = append(blind, gate)
		default:
			return nil // it is not missing evidence alone
		}
	}
	if deadline := end.Add(d.deadline()); len(blind) > 0 && d.in.Now.Before(deadline) {
		d.wake(deadline)
		return nil
	}
	return blind
}

// couldEnd is the first time at which the stage could have ended, and starts the gates' clocks.
func (d *draft) couldEnd(stage *stage) time.Time {
	applied, ok := d.applied()
	if !ok {
		return d.in.Now
	}
	end := applied.Add(stage.hold)
	for i := range stage.gates {
		stage.gates[i].start(applied, d.in.PropagationDelay)
		if at := stage.gates[i].earliestPass(d.in.Settle); at.After(end) {
			end = at
		}
	}
	return end
}

// blindMessage tells what is missing, without numbers that change with each sample.
func (d *draft) blindMessage(blind []GateWatch) string {
	gate := blind[0]
	why := "no sample was taken"
	if s := d.in.Samples[gate.Name].Samples; len(s) > 0 {
		latest := s[max(0, len(s)-gate.Samples):]
		broken := slices.IndexFunc(latest, func(s Sample) bool { return s.Verdict == Error })
		switch {
		case broken >= 0:
			why = latest[broken].Message
		case gate.Metric != "":
			why = fmt.Sprintf("no data, or fewer than minRequests %d in %s", gate.MinRequests, gate.Window)
		default:
			why = "its query yields no value"
		}
	}
	return fmt.Sprintf("step %s: gate %s has no evidence: %s", d.status.Step.Display, gate.Name, why)
}

// evidence says which values let the step end.
func (d *draft) evidence(stage *stage) string {
	var words []string
	for i := range stage.gates {
		gate := &stage.gates[i]
		if s := d.in.Samples[gate.Name].Samples; len(s) > 0 {
			words = append(words, fmt.Sprintf("%s %s %s", gate.Name, s[len(s)-1].Value, gate.held()))
		}
	}
	if p := d.in.Probe; stage.probe != nil && p != nil {
		words = append(words, fmt.Sprintf("probe %d/%d", p.Succeeded, p.Total))
	}
	if len(words) == 0 {
		return ""
	}
	return stage.name + " passed: " + strings.Join(words, ", ")
}

// faultBusy waits while another Rollout's fault stands where the stage's would.
func (d *draft) faultBusy(stage *stage) bool {
	if stage.fault == nil {
		return false
	}
	other := d.in.Mesh.Faults[stage.fault.Host].Busy
	if other == "" {
		return false
	}
	host := stage.fault.Host
	if host == "" {
		host = d.rollout.Spec.Host
	}
	d.wait(v1.ReasonFaultBusy, "step %s waits: the fault of Rollout %s stands on %s", stage.name, other, host)
	return true
}

// promote makes the canary stable: the run is over.
func (d *draft) promote(evidence string) {
	run := d.status.Run
	canary := d.status.Traffic.Canary
	d.status.History = slices.Insert(d.status.History, 0, v1.RunRecord{
		Number: run.Number, From: run.From, To: run.To, Verdict: v1.ReasonPromoted, Revision: run.Revision,
		StartedAt: run.StartedAt, FinishedAt: d.now(), Steps: run.Steps,
	})
	d.status.Previous, d.status.Stable, d.status.StableRevision = run.From, run.To, run.Revision
	d.status.Traffic = &v1.Traffic{Stable: *canary}
	d.status.Canary, d.status.Run, d.status.Step, d.watch = "", nil, nil, nil
	d.prove(run)
	d.setUnreleased(false)
	message := fmt.Sprintf("%s serves 100%% of %s", run.To, d.rollout.Spec.Host)
	if evidence != "" {
		message += "; " + evidence
	}
	d.event(false, v1.ReasonPromoted, "%s", message)
	d.serve()
}

// prove records that the run's version is proven, and that the version before it served until now: rollbackWindow counts from there.
func (d *draft) prove(run *v1.Run) {
	fresh := []v1.Proof{{Version: run.To, Revision: run.Revision, At: d.now()}}
	for _, p := range d.status.Proven {
		if p.Version == run.From {
			p.At = d.now()
			fresh = append(fresh, p)
		}
	}
	older := withdrawProof(withdrawProof(d.status.Proven, run.To), run.From)
	d.status.Proven = slices.Concat(fresh, older[:min(len(older), historyLimit-len(fresh))])
}

func microTime(t time.Time) metav1.MicroTime {
	return metav1.MicroTime{Time: t.UTC().Truncate(time.Microsecond)}
}
