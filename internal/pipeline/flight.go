package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// inFlight decides while a run is under way. First what takes traffic back, then what holds the run, last what moves it on.
func (d *draft) inFlight() {
	d.dropLeftovers()
	plan := resolvePlan(d.rollout)
	d.noteEdits()
	if c := d.goingBack(plan); c != nil {
		d.goBack(*c)
		return
	}
	d.noteBlindness(plan)
	if d.status.Step == nil {
		d.awaitCanary()
		return
	}
	stage := d.currentStage(plan)
	d.nameStep(plan)
	d.moveFault()
	d.noteApplied(stage)
	d.watch = d.makeWatch(stage)
	switch p := firstProblem(d.in.HostProblem, d.in.Mesh.WriteProblem, d.in.Mesh.SurveyProblem, d.in.Mesh.Hidden(&d.status), d.subsetInUse(d.status.Stable), d.testProblem()); {
	case p != nil:
		d.stall(*p)
	case d.in.Contended != "":
		d.wait(v1.ReasonContended, "%s", d.in.Contended)
	case d.rollout.Spec.Suspend:
		d.wait(v1.ReasonSuspended, "spec.suspend is set: step %s goes on when it is cleared", d.status.Step.Display)
	default:
		d.advance(plan, stage)
	}
}

// moveFault has a fault on another host stand where callers meet it: a VirtualService may have come for that host since. The one that
// was made for the fault goes then, and the step's clock begins afresh. Nothing is made in the place of one that is gone.
func (d *draft) moveFault() {
	fault, carrier := d.status.Traffic.Fault, d.status.FaultVirtualService
	if fault == nil || fault.Host == "" || carrier == nil || d.in.Mesh.WriteProblem != nil {
		return
	}
	now := d.in.Mesh.Faults[fault.Host]
	if to := now.VirtualService; now.Problem == nil && now.Busy == "" && to.Name != "" && to.Name != carrier.Name && !to.Created {
		d.status.FaultVirtualService, d.in.Written = &to, nil
	}
}

// cause is why traffic goes back to stable.
type cause struct {
	reason  string
	message string
	// rejects: the version is not tried again until version or revision changes.
	rejects bool
	failure v1.Failure
}

// noteEdits takes a changed spec at once: the clock of the current step, or of the wait for the canary, starts afresh.
func (d *draft) noteEdits() {
	edited := d.rollout.Generation != d.status.ObservedGeneration
	stable := d.in.Versions[d.status.Stable]
	if stable.Revision != "" && stable.Revision != d.status.Run.StableRevision {
		d.status.Run.StableRevision, d.status.StableRevision = stable.Revision, stable.Revision
		edited = true
	}
	if canary := d.in.Versions[d.status.Canary]; d.status.Run.Revision == "" {
		d.status.Run.Revision = canary.Revision
	}
	switch {
	case !edited:
	case d.status.Step == nil:
		d.status.Run.StartedAt = d.now()
	default:
		d.status.Step.StartedAt, d.status.Step.Applied, d.status.Step.Interrupted = d.now(), nil, false
	}
}

// goingBack names the first cause, in the order in which people would tell it, or nil.
func (d *draft) goingBack(plan []stage) *cause {
	run, version := d.status.Run, d.rollout.Spec.Version
	canary := d.in.Versions[run.To]
	switch {
	case version == run.From:
		return &cause{reason: v1.ReasonReverted, message: fmt.Sprintf("spec.version is %s again", version)}
	case version != run.To:
		return &cause{reason: v1.ReasonVersionChanged, message: fmt.Sprintf("spec.version changed from %s to %s", run.To, version)}
	case d.changedWorkload(canary):
		return d.workloadCause()
	case !d.planStands(plan):
		return &cause{reason: v1.ReasonPlanChanged, message: "the traffic of a step that was taken, or the canary's labels or trafficPolicy, changed"}
	case !d.describedStands() || d.goes() != "":
		return &cause{reason: v1.ReasonPlanChanged, message: "what spec.virtualServices describes changed"}
	case d.status.Step == nil:
		if c := d.tripped(plan); c != nil {
			return c
		}
		return d.overdue(canary)
	}
	stage := d.currentStage(plan)
	if c := d.lost(canary); c != nil {
		return c
	}
	if c := d.tripped(plan); c != nil {
		return c
	}
	if c := d.failedGate(stage); c != nil {
		return c
	}
	if c := d.failedProbe(stage); c != nil {
		return c
	}
	return d.withoutEvidence(stage)
}

func (d *draft) changedWorkload(canary Version) bool {
	return canary.Revision != "" && d.status.Run.Revision != "" && canary.Revision != d.status.Run.Revision
}

// workloadCause tells a canary whose pod template changed from one whose workload is now the one that ran stable.
func (d *draft) workloadCause() *cause {
	run := d.status.Run
	if d.in.Versions[run.From].Workload == d.in.Versions[run.To].Workload {
		if p := d.overlap(run.To); p != nil {
			return &cause{reason: p.Reason, message: p.Message}
		}
	}
	return &cause{reason: v1.ReasonWorkloadChanged, message: fmt.Sprintf("the pod template of %s changed", run.To)}
}

// planStands tells whether the steps taken so far, the current one included, still ask for the traffic that was committed.
func (d *draft) planStands(plan []stage) bool {
	hashes := planHashes(d.sharedHash(d.status.Run.To), plan)
	taken := d.status.Run.Plan
	return len(hashes) >= len(taken) && slices.Equal(hashes[:len(taken)], taken)
}

// currentStage is the stage of the committed step. planStands was asked before, so the index is within the plan.
func (d *draft) currentStage(plan []stage) *stage {
	return &plan[d.status.Step.Index]
}

// overdue: the canary did not become available in time.
func (d *draft) overdue(canary Version) *cause {
	if canary.Available || !canary.Found || d.rollout.Spec.Suspend {
		return nil
	}
	deadline := d.status.Run.StartedAt.Add(d.deadline())
	if d.in.Now.Before(deadline) {
		d.wake(deadline)
		return nil
	}
	return &cause{
		reason: v1.ReasonUnavailable, rejects: true,
		message: fmt.Sprintf("%s did not become available within %s (spec.progressDeadline); it never had traffic", d.status.Run.To, d.deadline()),
	}
}

func (d *draft) deadline() time.Duration {
	if p := d.rollout.Spec.ProgressDeadline; p != nil {
		return durationOr(p.Duration, defaultDeadline)
	}
	return defaultDeadline
}

// lost: users reach a canary that has nothing ready, while stable has.
func (d *draft) lost(canary Version) *cause {
	if !d.status.Traffic.ExposedToUsers() || canary.Ready > 0 || d.in.Versions[d.status.Stable].Ready == 0 {
		return nil
	}
	return &cause{
		reason: v1.ReasonUnavailable, rejects: true,
		message: fmt.Sprintf("%s has no ready replica left at step %s", d.status.Run.To, d.status.Step.Display),
	}
}

func (d *draft) failedGate(stage *stage) *cause {
	id := d.watchID()
	for i := range stage.gates {
		gate := &stage.gates[i]
		known := d.in.Samples[gate.Name]
		if known.For != id {
			continue
		}
		sample, failed := gate.failedAt(known.Samples)
		if !failed {
			continue
		}
		what := fmt.Sprintf("%s %s %s", gate.Name, sample.Value, gate.breached())
		if sample.Verdict == NoData {
			what = fmt.Sprintf("%s has no data (noData: Fail): %s", gate.Name, sample.Message)
		}
		return &cause{
			reason: v1.ReasonGateFailed, rejects: true,
			message: fmt.Sprintf("%s at step %s", what, d.status.Step.Display),
			failure: v1.Failure{
				Gate: gate.Name, Query: known.Query, Value: sample.Value, Limit: gate.limit(), Time: microTime(sample.Time),
			},
		}
	}
	return nil
}

func (d *draft) failedProbe(stage *stage) *cause {
	p := d.in.Probe
	if stage.probe == nil || p == nil || p.For != d.watchID() || !p.Failed {
		return nil
	}
	return &cause{
		reason: v1.ReasonProbe, rejects: true,
		message: fmt.Sprintf("probe succeeded %d of %d times at step %s: %s", p.Succeeded, p.Total, d.status.Step.Display, p.LastFailure),
		failure: v1.Failure{
			Gate: "probe", Query: stage.probe.URL, Value: share(p.Succeeded, p.Total),
			Limit: minSuccess(stage.probe), Time: d.now(),
		},
	}
}

func minSuccess(p *v1.Probe) string {
	if p.MinSuccess == "" {
		return "100%"
	}
	return p.MinSuccess
}

func share(part, whole int) string {
	if whole == 0 {
		return "0%"
	}
	return fmt.Sprintf("%.3g%%", 100*float64(part)/float64(whole))
}

// withoutEvidence: the step could have ended but for missing evidence, for longer than the deadline, and that shall roll back.
func (d *draft) withoutEvidence(stage *stage) *cause {
	p := d.rollout.Spec.ProgressDeadline
	if p == nil || p.OnNoEvidence != v1.NoEvidenceRollback || d.rollout.Spec.Suspend {
		return nil
	}
	blind := d.blindGates(stage)
	if len(blind) == 0 {
		return nil
	}
	return &cause{
		reason: v1.ReasonNoEvidence, rejects: true,
		message: fmt.Sprintf("%s (spec.progressDeadline %s)", d.blindMessage(blind), d.deadline()),
		failure: v1.Failure{Gate: blind[0].Name, Limit: blind[0].limit(), Time: d.now()},
	}
}

// goBack gives all traffic to stable at once, unless that would move users from a version that serves to one that does not.
func (d *draft) goBack(c cause) {
	run, traffic := d.status.Run, d.status.Traffic
	stable, canary := d.in.Versions[run.From], d.in.Versions[run.To]
	if traffic.ExposedToUsers() && stable.Ready == 0 && canary.Ready > 0 {
		d.stall(Problem{v1.ReasonStableUnavailable, fmt.Sprintf(
			"going back (%s: %s) is held: %s has no ready endpoint and %s has; it happens as soon as %s is ready",
			c.reason, c.message, run.From, run.To, run.From)})
		d.keepWatching()
		return
	}
	d.record(c.reason)
	d.rollback = traffic.Canary != nil
	d.status.Proven = withdrawProof(d.status.Proven, run.To)
	back := traffic.AllStable()
	step := d.status.Step
	d.status.Traffic, d.status.Canary, d.status.Run, d.status.Step, d.watch = &back, "", nil, nil, nil
	d.announceReturn(c, run, step)
}

// keepWatching goes on measuring what was being measured.
func (d *draft) keepWatching() {
	if d.status.Step == nil {
		return
	}
	if plan := resolvePlan(d.rollout); d.planStands(plan) {
		d.watch = d.makeWatch(d.currentStage(plan))
	}
}

func (d *draft) announceReturn(c cause, run *v1.Run, step *v1.StepStatus) {
	message := fmt.Sprintf("%s; 100%% on %s", c.message, run.From)
	switch {
	case c.rejects:
		d.status.Rejected = &v1.Rejection{Version: run.To, Revision: run.Revision, Reason: c.reason, Message: message, At: d.now()}
		failure := c.failure
		failure.Version = run.To
		if step != nil {
			failure.Step = step.Display
		}
		if failure.Time.IsZero() {
			failure.Time = d.now()
		}
		d.status.LastFailure = &failure
		d.setPhase(v1.PhaseRolledBack, c.reason, message)
		d.event(true, c.reason, "%s; %s is rejected", message, run.To)
	case c.reason == v1.ReasonReverted, c.reason == v1.ReasonVersionsOverlap:
		d.setPhase(v1.PhaseProgressing, c.reason, message)
		d.event(c.reason != v1.ReasonReverted, c.reason, "%s", message)
	default:
		d.setPhase(v1.PhaseProgressing, c.reason, message+"; a new run follows")
		d.event(false, c.reason, "%s; a new run follows", message)
	}
}

// record moves the run into history.
func (d *draft) record(verdict string) {
	run := d.status.Run
	steps := run.Steps
	if d.status.Step != nil {
		steps = append(slices.Clone(steps), v1.StepRecord{
			Name: d.status.Step.Name, StartedAt: d.status.Step.StartedAt, FinishedAt: d.now(), Gates: d.gateRecords(),
		})
	}
	d.status.History = slices.Insert(d.status.History, 0, v1.RunRecord{
		Number: run.Number, From: run.From, To: run.To, Verdict: verdict, Revision: run.Revision,
		StartedAt: run.StartedAt, FinishedAt: d.now(), Steps: steps,
	})
}

// gateRecords are the latest values of the current step's gates, by name.
func (d *draft) gateRecords() []v1.GateRecord {
	var records []v1.GateRecord
	plan := resolvePlan(d.rollout)
	if int(d.status.Step.Index) >= len(plan) {
		return nil
	}
	id := d.watchID()
	stage := d.currentStage(plan)
	for i := range stage.gates {
		gate := &stage.gates[i]
		known := d.in.Samples[gate.Name]
		if known.For != id || len(known.Samples) == 0 {
			continue
		}
		last := known.Samples[len(known.Samples)-1]
		records = append(records, v1.GateRecord{Name: gate.Name, Verdict: string(last.Verdict), Value: last.Value, Limit: gate.limit()})
	}
	if p := d.in.Probe; stage.probe != nil && p != nil && p.For == id {
		verdict := Pass
		if p.Failed {
			verdict = Fail
		}
		records = append(records, v1.GateRecord{
			Name: "probe", Verdict: string(verdict), Value: share(p.Succeeded, p.Total), Limit: minSuccess(stage.probe),
		})
	}
	return records
}

func formatLabels(labels map[string]string) string {
	pairs := make([]string, 0, len(labels))
	for k, v := range labels {
		pairs = append(pairs, k+"="+v)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}
