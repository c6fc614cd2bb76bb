package controllers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
	"sluice.dev/sluice/internal/pipeline"
)

// giveUpAfter bounds how long a deletion waits for an API server that refuses to put the mesh back, and for a stable version
// that has nothing ready.
const giveUpAfter = time.Minute

// finalize brings all traffic to the stable version, and then lets the Rollout go. What can not be put back, because it is
// gone or nobody knows a stable version, does not hold it.
func (r *RolloutReconciler) finalize(ctx context.Context, rollout *v1.Rollout) (reconcile.Result, error) {
	if !controllerutil.ContainsFinalizer(rollout, v1.FinalizerName) {
		return reconcile.Result{}, nil
	}
	c := r.begin(rollout)
	c.urgent = true
	for range maxPasses {
		// Live: when the finalizer is gone, nobody corrects what an old cache hid.
		result, err := c.takeDown(ctx, r.Live)
		if !errors.Is(err, errConflict) && !errors.Is(err, errStale) && !apierrors.IsConflict(err) {
			return r.ended(result, err)
		}
		live, err := r.readLive(ctx, c.key)
		if err != nil || live == nil {
			return reconcile.Result{}, err
		}
		c.rollout = live
	}
	return reconcile.Result{RequeueAfter: conflictRetry, Priority: new(PriorityUrgent)}, nil
}

func (r *RolloutReconciler) ended(result reconcile.Result, err error) (reconcile.Result, error) {
	if err != nil {
		return r.outcome(err)
	}
	return result, nil
}

// takeDown commits the way back and writes it, and then leaves.
func (c *convergence) takeDown(ctx context.Context, reader client.Reader) (reconcile.Result, error) {
	if c.rollout.Status.Traffic == nil || detached(c.rollout) {
		return reconcile.Result{}, c.release(ctx)
	}
	var err error
	if c.sight, err = c.look(ctx, c.rollout, reader); err != nil {
		return reconcile.Result{}, err
	}
	istioGone := c.sight.meshProblem != nil && c.sight.meshProblem.Reason == v1.ReasonIstioNotInstalled
	if istioGone || c.sight.keptFrom(c.rollout) != "" { // no mesh, or one that is another Rollout's
		return reconcile.Result{}, c.release(ctx)
	}
	if rest := c.untilReturn(); rest > 0 {
		return reconcile.Result{RequeueAfter: min(rest, refusedRetry), Priority: new(0)}, nil
	}
	if err := c.commitReturn(ctx); err != nil {
		return reconcile.Result{}, err
	}
	if c.sight.meshProblem == nil {
		err = c.writeAll(ctx, c.writable(c.returning()))
	}
	switch {
	case err != nil:
		return reconcile.Result{}, err
	case len(c.refused) > 0:
		return c.refusedReturn(ctx, *c.notes.refusal)
	case c.sight.meshProblem != nil:
		return c.refusedReturn(ctx, *c.sight.meshProblem)
	}
	return c.leave(ctx)
}

// leave removes what Sluice made, if that was asked for, and the finalizer.
func (c *convergence) leave(ctx context.Context) (reconcile.Result, error) {
	if c.rollout.Annotations[v1.DeletionPolicyAnnotation] == v1.DeletionPolicyDelete {
		switch rest, err := c.removeCreated(ctx); {
		case err != nil || rest > 0:
			return reconcile.Result{RequeueAfter: rest}, err
		case len(c.refused) > 0:
			return c.refusedReturn(ctx, *c.notes.refusal)
		}
	}
	return reconcile.Result{}, c.release(ctx)
}

// stableIsDead tells whether going back would take users from a canary that serves to a stable version that does not.
func (c *convergence) stableIsDead() bool {
	t := c.rollout.Status.Traffic
	if !t.ExposedToUsers() {
		return false
	}
	subsets := mesh.Survey(c.rollout, c.sight.virtualServices, c.sight.destinationRules).Subsets
	ready := func(version string) bool { return c.sight.version(c.rollout, version, subsets).Ready > 0 }
	return !ready(t.Stable.Version) && ready(t.Canary.Version)
}

// untilReturn is how much longer the traffic stays as it is, for a stable version that has nothing ready; 0: not at all. It
// tells of that once.
func (c *convergence) untilReturn() time.Duration {
	rest := giveUpAfter - c.Clock.Since(c.rollout.DeletionTimestamp.Time)
	if rest <= 0 || !c.stableIsDead() {
		return 0
	}
	if t := c.rollout.Status.Traffic; !c.notes.toldOfDeletion {
		c.notes.toldOfDeletion = true
		c.emit(pipeline.Event{Warning: true, Reason: v1.ReasonStableUnavailable, Message: fmt.Sprintf(
			"the deletion waits, for %s at most: %s has no ready endpoint and %s has; all traffic goes to %s as soon as it is ready",
			giveUpAfter, t.Stable.Version, t.Canary.Version, t.Stable.Version)})
	}
	return rest
}

// commitReturn commits that all traffic goes to stable and that no run is in flight. What stable can not take, because it had
// nothing ready for too long, the canary keeps alone.
func (c *convergence) commitReturn(ctx context.Context) error {
	status := *c.rollout.Status.DeepCopy()
	back, kept := status.Traffic.AllStable(), c.stableIsDead()
	if kept {
		back.Stable = *status.Traffic.Canary
	}
	before := status.Traffic.Stable.Version
	status.Traffic, status.Canary, status.Run, status.Step, status.Mode = &back, "", nil, nil, ""
	if hashOf(status) == hashOf(c.rollout.Status) {
		return nil
	}
	if err := c.commitStatus(ctx, status); err != nil {
		return err
	}
	if kept {
		c.emit(pipeline.Event{Warning: true, Reason: v1.ReasonStableUnavailable, Message: fmt.Sprintf(
			"deleted with all traffic on %s: %s has had no ready endpoint for %s", back.Stable.Version, before, giveUpAfter)})
	}
	return nil
}

// returning are the changes that put back what is there: first the routes, then what was found of the rule's policies. Nothing is
// made anew.
func (c *convergence) returning() []change {
	changes := c.makePlan(c.Clock.Now()).changes
	changes = slices.DeleteFunc(changes, func(ch change) bool { return ch.found == nil || ch.kind != kindVirtualService })
	ref := c.rollout.Status.DestinationRule
	if ref == nil {
		return changes
	}
	found := find(c.sight.destinationRules, ref.Name)
	if found == nil {
		return changes
	}
	if want := mesh.RestorePolicies(c.rollout, found); !sameObject(found, want) {
		changes = append(changes, change{kind: kindDestinationRule, name: ref.Name, found: found, want: want})
	}
	return changes
}

// refusedReturn tries again for a while, and then lets the Rollout go all the same: a deletion never hangs.
func (c *convergence) refusedReturn(ctx context.Context, problem pipeline.Problem) (reconcile.Result, error) {
	if c.Clock.Since(c.rollout.DeletionTimestamp.Time) < giveUpAfter {
		return reconcile.Result{RequeueAfter: refusedRetry, Priority: new(0)}, nil
	}
	c.emit(pipeline.Event{Warning: true, Reason: problem.Reason, Message: "deleted without putting the mesh back: " + problem.Message})
	return reconcile.Result{}, c.release(ctx)
}

// removeCreated deletes what Sluice made: first what routes, and after the propagation delay the rule that it named.
func (c *convergence) removeCreated(ctx context.Context) (time.Duration, error) {
	status := &c.rollout.Status
	for _, vs := range status.VirtualServices {
		if vs.Created {
			if err := c.remove(ctx, kindVirtualService, vs.Name); err != nil {
				return 0, err
			}
		}
	}
	if !c.madeRule() {
		return 0, nil
	}
	if rest, _ := c.notes.untilReleased("", false, c.Config.PropagationDelay, c.Clock.Now()); rest > 0 {
		return rest, nil
	}
	return 0, c.remove(ctx, kindDestinationRule, status.DestinationRule.Name)
}

// madeRule tells whether the host's rule is there and of Sluice's making.
func (c *convergence) madeRule() bool {
	ref := c.rollout.Status.DestinationRule
	if ref == nil || !ref.Created {
		return false
	}
	found := find(c.sight.destinationRules, ref.Name)
	return found != nil && mesh.MadeRule(c.rollout, found)
}

// remove deletes an object, unless that is refused, if it is still there and as it was seen.
func (c *convergence) remove(ctx context.Context, kind schema.GroupVersionKind, name string) error {
	objects := c.sight.virtualServices
	if kind == kindDestinationRule {
		objects = c.sight.destinationRules
	}
	found := find(objects, name)
	if found == nil {
		return nil
	}
	gone := change{kind: kind, name: name, found: found}
	return c.unlessRefused(gone, c.write(ctx, gone))
}

// release removes the finalizer and forgets the Rollout.
func (c *convergence) release(ctx context.Context) error {
	before := c.rollout.DeepCopy()
	after := c.rollout.DeepCopy()
	controllerutil.RemoveFinalizer(after, v1.FinalizerName)
	if err := c.patchMetadata(ctx, before, after); client.IgnoreNotFound(err) != nil {
		return err
	}
	c.forget(c.key)
	return nil
}
