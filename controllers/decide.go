package controllers

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/log"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
	"sluice.dev/sluice/internal/pipeline"
)

// noteLimit is what the API server accepts as the text of an event.
const noteLimit = 1024

// decide observes and asks the pipeline. Nothing is written yet.
func (c *convergence) decide(ctx context.Context) error {
	c.claims.keep(c.key, faultsOn(&c.rollout.Status, c.key.Namespace)...)
	in, err := c.observe(ctx)
	if err != nil {
		return err
	}
	began := c.Clock.Now()
	c.decision = pipeline.Next(in)
	if host, holder := c.claim(); holder != "" {
		// Another Rollout began its fault there a moment ago: decide again, knowing that.
		target := in.Mesh.Faults[host]
		target.Busy = holder
		in.Mesh.Faults[host] = target
		c.decision = pipeline.Next(in)
	}
	c.saveDestinations()
	c.saveMirrors()
	c.savePolicies()
	c.Metrics.decisionSeconds.Observe(c.Clock.Since(began).Seconds())
	return nil
}

// observe gathers everything that a decision depends on.
func (c *convergence) observe(ctx context.Context) (pipeline.Input, error) {
	now := c.Clock.Now()
	surveyed := mesh.Survey(c.rollout, c.sight.virtualServices, c.sight.destinationRules)
	versions, serving := observeVersions(c.rollout, c.sight, surveyed.Subsets)
	faults, err := c.faultTargets(ctx, c.rollout, c.sight)
	if err != nil {
		return pipeline.Input{}, err
	}
	mirrors, err := c.mirrorTargets(ctx, c.rollout)
	if err != nil {
		return pipeline.Input{}, err
	}
	if err := c.noteOwners(ctx, surveyed.Leaving); err != nil {
		return pipeline.Input{}, err
	}
	left, err := c.left(ctx, surveyed.Left)
	if err != nil {
		return pipeline.Input{}, err
	}
	in := pipeline.Input{
		Config: c.Config, Rollout: c.rollout, Now: now,
		Versions: versions, Serving: serving, Unready: c.sight.unready() || c.sight.unlisted(), Alone: c.sight.alone(c.rollout), HostProblem: c.sight.hostProblem(c.rollout),
		Mesh: pipeline.Mesh{
			VirtualServices: surveyed.VirtualServices, Described: surveyed.Described, DestinationRule: surveyed.DestinationRule,
			Subsets: surveyed.Subsets, SkippedRoutes: surveyed.SkippedRoutes, SplitRoutes: surveyed.SplitRoutes,
			PinnedSubsets: surveyed.PinnedSubsets, Leaving: surveyed.Leaving, Left: left, Dropped: surveyed.Dropped,
			SurveyProblem: fromMesh(surveyed.Problem), WriteProblem: c.plan.problem, Faults: faults, Mirrors: mirrors,
		},
		Contended: c.notes.contended(now),
		Samples:   c.Analyst.Samples(c.key), Probe: c.Analyst.Probe(c.key), Breaker: c.Analyst.Breaker(c.key),
	}
	if rule := surveyed.DestinationRule; rule != nil {
		in.Mesh.Breakers = mesh.CircuitBreakers(find(c.sight.destinationRules, rule.Name))
	}
	in.Mesh.Breakers = c.sight.breakersElsewhere(in.Mesh.Breakers, c.rollout)
	in.Mesh.StepProblems = c.stepProblems(&in)
	switch {
	case c.sight.meshProblem != nil:
		in.Mesh.SurveyProblem = c.sight.meshProblem
	case c.Kinds != nil && in.Mesh.SurveyProblem == nil:
		in.Mesh.SurveyProblem = c.Kinds.Unwatched()
	}
	c.notes.about(c.rollout.Status.Traffic)
	hidden := in.Mesh.Hidden(&c.rollout.Status) != nil
	in.Written = c.notes.settle(!c.plan.carrying && !c.plan.suspended && !hidden, now)
	if !c.plan.carrying {
		c.notes.refusal = nil
	}
	if in.Mesh.WriteProblem == nil {
		in.Mesh.WriteProblem = c.notes.refusal
	}
	return in, nil
}

// stepProblems are why steps to come could not be rendered into what is found now, by their places in the plan. A run that would
// stop in one of them stops before it, where the gates still watch what users get.
func (c *convergence) stepProblems(in *pipeline.Input) map[int]*pipeline.Problem {
	status, version := &c.rollout.Status, c.rollout.Spec.Version
	if status.Traffic == nil || c.plan.suspended || version == status.Stable {
		return nil
	}
	seen := in.Versions[version]
	canary := v1.Target{Version: version, Subset: seen.Subset, Labels: seen.Labels, Host: seen.Host, Port: seen.Port}
	problems := map[int]*pipeline.Problem{}
	for i, traffic := range pipeline.TrafficAhead(c.rollout, canary) {
		then := *c.rollout
		then.Status.Traffic = traffic
		for _, vs := range status.VirtualServices {
			if found := find(c.sight.virtualServices, vs.Name); found != nil {
				_, problem := mesh.VirtualService(&then, vs, found)
				problems[i] = conflictOr(problems[i], problem)
			}
		}
		if f := traffic.Fault; f != nil && f.Host != "" {
			if carrier := in.Mesh.Faults[f.Host].VirtualService; carrier.Name != "" {
				_, problem := mesh.FaultVirtualService(&then, &carrier, find(c.sight.virtualServices, carrier.Name))
				problems[i] = conflictOr(problems[i], problem)
			}
		}
	}
	return problems
}

// conflictOr is the problem if it is one of the step's own match, which no object that comes or goes mends; else the first one.
func conflictOr(first *pipeline.Problem, problem *mesh.Problem) *pipeline.Problem {
	if first != nil || problem == nil || problem.Reason != v1.ReasonMatchConflict {
		return first
	}
	return fromMesh(problem)
}

// claim takes the VirtualServices on which the decision begins a fault, or names the Rollout that was quicker, and the fault's
// host.
func (c *convergence) claim() (host, holder string) {
	before := faultsOn(&c.rollout.Status, c.key.Namespace)
	for _, name := range faultsOn(&c.decision.Status, c.key.Namespace) {
		if slices.Contains(before, name) {
			continue
		}
		if other, ok := c.claims.take(keyOf(c.key.Namespace, name), c.key); !ok {
			c.claims.keep(c.key, before...)
			return c.decision.Status.Traffic.Fault.Host, other.Name
		}
	}
	return "", ""
}

func carrierName(status *v1.RolloutStatus) string {
	if status.FaultVirtualService == nil {
		return ""
	}
	return status.FaultVirtualService.Name
}

// saveMirrors adds to the decision the mirrors that the routes have of their own: they are committed before they are
// moved away.
func (c *convergence) saveMirrors() {
	status := &c.decision.Status
	if status.Traffic == nil || status.Traffic.Mirror == nil || status.Traffic.MirrorsApart() {
		return
	}
	for i, managed := range status.VirtualServices {
		found := find(c.sight.virtualServices, managed.Name)
		if found == nil {
			continue
		}
		if saved := mesh.SaveMirrors(managed, found); hashOf(saved) != hashOf(managed) {
			status.VirtualServices[i] = saved
			c.decision.Changed = true
		}
	}
}

// saveDestinations adds to the decision in which form the routes lead to the host, before they lead to one of a version's own.
func (c *convergence) saveDestinations() {
	status := &c.decision.Status
	if t := status.Traffic; t == nil || (t.Stable.Host == "" && (t.Canary == nil || t.Canary.Host == "")) {
		return
	}
	for i, managed := range status.VirtualServices {
		found := find(c.sight.virtualServices, managed.Name)
		if found == nil {
			continue
		}
		if saved := mesh.SaveDestinations(c.rollout, managed, found); hashOf(saved) != hashOf(managed) {
			status.VirtualServices[i] = saved
			c.decision.Changed = true
		}
	}
}

// savePolicies adds to the decision what the rule's policies are, where the Rollout gives blocks of its own: that is committed
// before they are written.
func (c *convergence) savePolicies() {
	ref := c.decision.Status.DestinationRule
	if ref == nil || c.plan.suspended || c.sight.meshProblem != nil {
		return
	}
	decided := &v1.Rollout{ObjectMeta: c.rollout.ObjectMeta, Spec: c.rollout.Spec, Status: c.decision.Status}
	saved := mesh.SavePolicies(decided, find(c.sight.destinationRules, ref.Name))
	if hashOf(saved) == hashOf(ref.Policies) {
		return
	}
	kept := *ref
	kept.Policies = saved
	c.decision.Status.DestinationRule, c.decision.Changed = &kept, true
}

// commit writes the decision to status, carrying the resourceVersion that it was made on, and then tells of it.
func (c *convergence) commit(ctx context.Context) error {
	c.urgent = c.decision.Rollback || allStable(c.decision.Status.Traffic)
	if !c.decision.Changed {
		return nil
	}
	before := c.rollout
	if err := c.commitStatus(ctx, c.decision.Status); err != nil {
		return err
	}
	c.claims.keep(c.key, faultsOn(&c.rollout.Status, c.key.Namespace)...)
	for _, event := range c.decision.Events {
		c.emit(event)
	}
	c.Metrics.committed(before, c.rollout)
	if c.decision.Rollback {
		c.notes.unsure, c.unverified = true, true
	}
	c.plan = c.makePlan(c.Clock.Now())
	return nil
}

// verify reads from the API server the routes that the way back did not write: a write carries the version that it was based on,
// but where nothing was to be written, only a cache said so, which may be behind. It tells whether it did; where the server does
// not answer, the next reconcile reads them live.
func (c *convergence) verify(ctx context.Context) bool {
	if !c.unverified {
		return false
	}
	c.unverified = false
	for _, name := range drivenNames(kindVirtualService, &c.rollout.Status) {
		if c.sight.meshProblem != nil || c.written[objectRef{kindVirtualService.Kind, name}] {
			continue
		}
		live, err := c.liveObject(ctx, kindVirtualService, keyOf(c.key.Namespace, name))
		if err != nil {
			log.FromContext(ctx).Info("the routes could not be read live after the way back", "error", err.Error())
			return false
		}
		c.sight.replace(kindVirtualService, name, live)
	}
	c.notes.unsure = false
	return true
}

func allStable(t *v1.Traffic) bool { return t != nil && t.Canary == nil }

func (c *convergence) commitStatus(ctx context.Context, status v1.RolloutStatus) error {
	next := c.rollout.DeepCopy()
	next.Status = status
	switch err := c.Client.Status().Update(ctx, next, FieldOwner); {
	case apierrors.IsConflict(err):
		return fmt.Errorf("status of Rollout %s: %w", c.key, errConflict)
	case err != nil:
		return fmt.Errorf("committing the status of Rollout %s: %w", c.key, err)
	}
	c.ledger.wrote(kindRollout, next)
	c.rollout, c.confirmed = next, true
	return nil
}

// emit tells of a transition. The event refers to the committed object, so that no two are taken for a series.
func (c *convergence) emit(event pipeline.Event) {
	kind := corev1.EventTypeNormal
	if event.Warning {
		kind = corev1.EventTypeWarning
	}
	message := event.Message
	if len(message) > noteLimit {
		message = message[:noteLimit-len("…")] + "…"
	}
	c.Events.Eventf(c.rollout, nil, kind, event.Reason, event.Reason, "%s", message)
}
