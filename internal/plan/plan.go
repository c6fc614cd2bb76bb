package plan

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"sluice.dev/sluice/analysis"
	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// settle is how long after its time a sample is judged in a plan. It has no part in what is written.
const settle = time.Second

// The stages that are no steps.
const (
	stageBefore = "before"
	stageAfter  = "after"
)

// Input is what a plan is made of.
type Input struct {
	// Rollout to plan, of a namespace.
	Rollout *unstructured.Unstructured
	// Objects found beside it: VirtualServices, DestinationRules, Services, workloads, pods, other Rollouts. Those of other
	// namespaces have no part.
	Objects []*unstructured.Unstructured
	// From is the version that serves; empty: as the operator finds out. To is asked for; empty: spec.version.
	From, To string
	// PropagationDelay is the operator's.
	PropagationDelay time.Duration
	// UnscopedFaults: the operator allows faults of scope Everyone.
	UnscopedFaults bool
	// Now is when the plan begins.
	Now time.Time
}

// Plan is what a run writes, stage by stage, if nothing goes wrong.
type Plan struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Host      string `json:"host"`
	From      string `json:"from,omitempty"`
	To        string `json:"to"`
	// Stages in order: before the first step, the steps, and what follows the last.
	Stages []Stage `json:"stages,omitempty"`
	// Problem keeps the run from its end; nil: nothing does.
	Problem *Problem `json:"problem,omitempty"`
	// Managed are the VirtualServices and routes that the run drives, Skipped those to the host that it leaves alone, with the reason.
	Managed []v1.ManagedVirtualService `json:"managed,omitempty"`
	Skipped []string                   `json:"skippedRoutes,omitempty"`
	// Assumed tells what the given objects leave open, one sentence each.
	Assumed []string `json:"assumed,omitempty"`
}

// Problem is the reason and the message of the status that the run gets stuck in.
type Problem struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Stage is one step of the run, or what comes before or after the steps.
type Stage struct {
	// Name is the step's place and name, "2/4 half"; "before" and "after" for what is no step.
	Name string `json:"name"`
	// Traffic in words: "weight 50, match".
	Traffic string `json:"traffic,omitempty"`
	// Step is false before and after the steps.
	Step bool `json:"step"`
	// Index of the step in spec.steps; len(spec.steps) for the soak.
	Index int `json:"-"`
	// Exposed: users, or copies of their requests, reach the canary.
	Exposed bool `json:"-"`
	// Hold, Gates and Probe bound how soon the step may end.
	Hold  time.Duration `json:"-"`
	Gates []Gate        `json:"gates,omitempty"`
	Probe *Probe        `json:"probe,omitempty"`
	// Least is the least time that the step takes, given the plan's propagation delay.
	Least time.Duration `json:"-"`
	// Writes in their order.
	Writes []Write `json:"writes,omitempty"`
}

// Gate of a step, with its defaults filled in.
type Gate struct {
	Name     string        `json:"name"`
	Window   time.Duration `json:"-"`
	Interval time.Duration `json:"-"`
	Samples  int           `json:"samples"`
	// Watch is what the analysis is asked to measure.
	Watch pipeline.GateWatch `json:"-"`
}

// Probe of a step: so many requests are made, one each interval, from the propagation delay on.
type Probe struct {
	Requests int           `json:"requests"`
	Interval time.Duration `json:"-"`
}

// Write is one write of a VirtualService or DestinationRule. Before is nil for one that is created, After for one that is deleted.
type Write struct {
	Kind   string                     `json:"kind"`
	Name   string                     `json:"name"`
	Before *unstructured.Unstructured `json:"-"`
	After  *unstructured.Unstructured `json:"-"`
}

// Least is the least time that all steps take together.
func (p *Plan) Least() time.Duration {
	total := time.Duration(0)
	for i := range p.Stages {
		total += p.Stages[i].Least
	}
	return total
}

// Make plays the run. An error is about the input, such as a Rollout that can not be decoded; what keeps the run from its end
// is the plan's Problem.
func Make(ctx context.Context, in Input) (*Plan, error) {
	w, err := newWorld(in)
	if err != nil {
		return nil, err
	}
	return w.make(ctx)
}

func (w *world) make(ctx context.Context) (*Plan, error) {
	if err := w.populate(); err != nil {
		return nil, err
	}
	if from := w.from(); from != "" {
		if err := w.rest(ctx, from); err != nil {
			return nil, err
		}
	}
	w.recording = true
	if err := w.ask(cmp.Or(w.in.To, w.asked()), "version"); err != nil {
		return nil, err
	}
	if err := w.settle(ctx); err != nil {
		return nil, err
	}
	return w.finish()
}

// from is the version at which the Rollout is at rest before the run; empty: the operator finds out. A Rollout that is known to no
// cluster and is planned for another version than it asks for is at rest at what it asks for.
func (w *world) from() string {
	_, known, err := unstructured.NestedString(w.in.Rollout.Object, "status", "stable")
	if asked := w.asked(); w.in.From == "" && w.in.To != "" && w.in.To != asked && !known && err == nil {
		return asked
	}
	return w.in.From
}

// rest brings the Rollout to rest at a version, and records what the mesh lacks for that. Where nothing tells that the version
// serves it is assumed.
func (w *world) rest(ctx context.Context, from string) error {
	found := w.mesh()
	if err := w.ask(from, "version"); err != nil {
		return err
	}
	if err := w.settle(ctx); err != nil {
		return err
	}
	rollout, err := w.rollout()
	if err != nil {
		return err
	}
	if rollout.Status.Reason == v1.ReasonInitialVersionUnknown {
		w.assume("spec.initialVersion is %s, since nothing else tells which version serves", from)
		if err := w.ask(from, "initialVersion"); err != nil {
			return err
		}
		if err := w.settle(ctx); err != nil {
			return err
		}
	}
	w.noteRest(from, found)
	return nil
}

// finish tells how the run ended.
func (w *world) finish() (*Plan, error) {
	rollout, err := w.rollout()
	if err != nil {
		return nil, err
	}
	p := w.plan
	status := &rollout.Status
	for i := range p.Stages {
		if !p.Stages[i].Step {
			orderTogether(p.Stages[i].Writes)
		}
	}
	p.Managed, p.Skipped = status.VirtualServices, status.SkippedRoutes
	if status.Phase != v1.PhaseHealthy || status.Stable != rollout.Spec.Version {
		p.Problem = &Problem{Reason: status.Reason, Message: status.Message}
	}
	return &p, nil
}

// orderTogether orders VirtualServices that follow each other by name: where all traffic goes to one version they are written at
// the same time.
func orderTogether(writes []Write) {
	for i := 0; i < len(writes); {
		n := i + 1
		for n < len(writes) && writes[n].Kind == writes[i].Kind {
			n++
		}
		slices.SortStableFunc(writes[i:n], func(a, b Write) int { return cmp.Compare(a.Name, b.Name) })
		i = n
	}
}

// least is the shortest that a step can be: its hold, or until the last sample that each gate needs and the last request of its probe.
func (s *Stage) least(delay time.Duration) time.Duration {
	least := s.Hold
	if s.Probe != nil {
		least = max(least, delay+time.Duration(s.Probe.Requests-1)*s.Probe.Interval)
	}
	for _, g := range s.Gates {
		least = max(least, delay+g.Window+time.Duration(g.Samples-1)*g.Interval)
	}
	return least
}

// noteRest records what the mesh lacks, of what was found, where a Rollout is at rest.
func (w *world) noteRest(from string, found map[key]*unstructured.Unstructured) {
	now := w.mesh()
	var writes []Write
	for _, k := range slices.SortedFunc(maps.Keys(now), key.compare) {
		if before := found[k]; !same(before, now[k]) {
			writes = append(writes, Write{Kind: k.kind, Name: k.name, Before: before, After: now[k]})
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(found), key.compare) {
		if now[k] == nil {
			writes = append(writes, Write{Kind: k.kind, Name: k.name, Before: found[k]})
		}
	}
	if len(writes) > 0 {
		w.plan.Stages = append(w.plan.Stages, Stage{Name: stageBefore, Traffic: from + " serves alone", Writes: writes})
	}
}

// noteWatch remembers the gates and the probe of the stage that the run is in.
func (w *world) noteWatch(watch *pipeline.Watch) {
	stage := w.stage()
	if stage == nil || watch.ID == "" {
		return
	}
	stage.Gates = nil
	for _, g := range watch.Gates {
		stage.Gates = append(stage.Gates, Gate{Name: g.Name, Window: g.Window, Interval: g.Interval, Samples: g.Samples, Watch: g})
	}
	if watch.Probe != nil {
		requests, interval := analysis.PlannedProbes(*watch.Probe)
		stage.Probe = &Probe{Requests: requests, Interval: interval}
	}
	stage.Least = stage.least(w.in.PropagationDelay)
}

// stage is the one that the run is in by its committed status; nil while nothing is recorded.
func (w *world) stage() *Stage {
	if !w.recording {
		return nil
	}
	rollout, err := w.rollout()
	if err != nil {
		return nil
	}
	status := &rollout.Status
	next := Stage{Name: stageBefore, Traffic: status.Stable + " serves alone"}
	switch {
	case status.Step != nil:
		next = Stage{Name: status.Step.Display, Step: true, Index: int(status.Step.Index), Hold: holdOf(rollout, int(status.Step.Index)), Traffic: inWords(status), Exposed: status.Traffic.Exposed()}
		next.Least = next.least(w.in.PropagationDelay)
	case status.Run == nil && w.stepped():
		next = Stage{Name: stageAfter, Traffic: fmt.Sprintf("%s serves alone", status.Stable)}
	}
	if n := len(w.plan.Stages); n > 0 && w.plan.Stages[n-1].Name == next.Name {
		return &w.plan.Stages[n-1]
	}
	w.plan.Stages = append(w.plan.Stages, next)
	return &w.plan.Stages[len(w.plan.Stages)-1]
}

// stepped tells whether a step has begun.
func (w *world) stepped() bool {
	n := len(w.plan.Stages)
	return n > 0 && (w.plan.Stages[n-1].Step || w.plan.Stages[n-1].Name == stageAfter)
}

func inWords(status *v1.RolloutStatus) string {
	words := fmt.Sprintf("weight %d", status.Traffic.Weight)
	if status.Mode != "" {
		words += ", " + status.Mode
	}
	return words
}

func holdOf(rollout *v1.Rollout, step int) time.Duration {
	switch steps := rollout.Spec.Steps; {
	case step < len(steps) && steps[step].Hold != nil:
		return steps[step].Hold.Duration
	case step >= len(steps) && rollout.Spec.Soak != nil && rollout.Spec.Soak.Hold != nil:
		return rollout.Spec.Soak.Hold.Duration
	}
	return 0
}
