package controllers

import (
	"context"
	"errors"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// convergence is one reconcile of one Rollout: passes of decide, commit and apply until nothing is left to do.
type convergence struct {
	*RolloutReconciler

	key     types.NamespacedName
	rollout *v1.Rollout
	sight   *sight
	notes   *notes
	began   time.Time

	// confirmed: the Rollout is known to be the API server's latest, since we wrote it or read it live.
	confirmed bool
	// urgent: traffic goes back to stable. Conflicts are retried at once on live reads, and nothing is waited for.
	urgent bool
	// refused are the objects whose write the API server refused in this reconcile; they are tried again in the next.
	refused map[objectRef]bool
	// written are the objects that this reconcile wrote. unverified: the others, on the way back, are known from a cache only.
	written    map[objectRef]bool
	unverified bool
	// back: all traffic is on its way back; what else there is to do is no longer urgent.
	back bool

	decision pipeline.Decision
	plan     plan
	// planned: nothing happened since the plan was made.
	planned bool
}

func (r *RolloutReconciler) begin(rollout *v1.Rollout) *convergence {
	return &convergence{
		RolloutReconciler: r, key: client.ObjectKeyFromObject(rollout), rollout: rollout,
		notes: r.memory.of(rollout), began: r.Clock.Now(),
	}
}

// converge decides, commits and applies until a pass changes nothing.
func (r *RolloutReconciler) converge(ctx context.Context, rollout *v1.Rollout) (reconcile.Result, error) {
	c := r.begin(rollout)
	defer func() { c.Metrics.observe(c.rollout) }()
	if err := c.lookFresh(ctx); err != nil {
		return c.outcome(err)
	}
	for range maxPasses {
		done, err := c.pass(ctx)
		switch {
		case errors.Is(err, errConflict) && c.urgent:
			if err := c.reread(ctx); err != nil {
				return c.outcome(err)
			}
		case err != nil:
			return c.failed(ctx, err)
		case done:
			c.notes.conflicts = 0
			return c.result(), nil
		case c.back:
			return reconcile.Result{RequeueAfter: time.Millisecond, Priority: new(0)}, nil
		}
	}
	return reconcile.Result{RequeueAfter: time.Millisecond, Priority: c.priority()}, nil
}

// lookFresh looks at the mesh through caches that are not behind what this process wrote, or read live before it moved anything.
func (c *convergence) lookFresh(ctx context.Context) error {
	urgent := c.RolloutReconciler.urgent(c.key) || reverted(c.rollout)
	if err := c.lookAround(ctx, urgent); err != nil {
		return err
	}
	if err := c.ground(ctx); err != nil && !urgent {
		return err
	}
	return nil
}

// lookAround looks through the cache. When that is behind, its next event wakes the reconciler again; on the way back to stable
// the mesh is read live instead. After a write of unknown outcome it is read live as well: a cache that does
// not show that write yet might tell of a subset that is gone.
func (c *convergence) lookAround(ctx context.Context, urgent bool) error {
	if c.notes.unsure {
		var err error
		if c.sight, err = c.look(ctx, c.rollout, c.Live); err == nil {
			c.notes.unsure = false
		}
		if err == nil || !urgent {
			return err
		}
	}
	var err error
	if c.sight, err = c.look(ctx, c.rollout, c.Client); !errors.Is(err, errStale) {
		return err
	}
	reader := client.Reader(c.Client)
	if urgent {
		reader = c.Live
	}
	c.interest.await(c.key)
	c.sight, err = c.look(ctx, c.rollout, reader) // the event may have come before it was awaited
	return err
}

// reverted tells whether the spec asks for another version than the run in flight.
func reverted(rollout *v1.Rollout) bool {
	return rollout.Status.Run != nil && rollout.Status.Run.To != rollout.Spec.Version
}

// moving tells whether a Rollout is at anything but rest.
func moving(rollout *v1.Rollout) bool {
	status := &rollout.Status
	leaving := slices.ContainsFunc(status.Subsets, func(s v1.Subset) bool { return s.Leaving })
	return status.Run != nil || leaving || status.Stable != rollout.Spec.Version || status.ObservedGeneration != rollout.Generation
}

// ground reads live, once before this process moves the Rollout for the first time, what it knows from a cache only. That may have
// begun behind: with a rule that holds a subset which is gone, or without a route that still names one which is to go.
func (c *convergence) ground(ctx context.Context) error {
	if c.notes.grounded || c.sight.meshProblem != nil || !moving(c.rollout) {
		return nil
	}
	if c.Kinds != nil && c.Kinds.Current(kindVirtualService.GroupKind()) && c.Kinds.Current(kindDestinationRule.GroupKind()) {
		c.notes.grounded = true
		return nil
	}
	behind := false
	for _, obj := range c.sight.virtualServices {
		old, err := c.groundOne(ctx, kindVirtualService, obj)
		if err != nil {
			return err
		}
		behind = behind || old
	}
	for _, obj := range c.sight.destinationRules {
		old, err := c.groundOne(ctx, kindDestinationRule, obj)
		if err != nil {
			return err
		}
		behind = behind || old
	}
	if behind {
		sight, err := c.look(ctx, c.rollout, c.Live)
		if err != nil {
			return err
		}
		c.sight = sight
	}
	c.notes.grounded = true
	return nil
}

// groundOne tells whether an object is older than the API server's. One that this process wrote or read live before is not: that
// would have been noticed.
func (c *convergence) groundOne(ctx context.Context, kind schema.GroupVersionKind, obj *unstructured.Unstructured) (bool, error) {
	if len(c.ledger.known(kind, obj.GetNamespace(), []string{obj.GetName()})) > 0 {
		return false, nil
	}
	live, err := c.liveObject(ctx, kind, client.ObjectKeyFromObject(obj))
	if err != nil {
		return false, err
	}
	if live == nil {
		c.ledger.removed(kind, obj)
		return true, nil
	}
	c.ledger.saw(kind, live)
	return live.GetResourceVersion() != obj.GetResourceVersion(), nil
}

// pass decides once and applies what is committed. It tells whether nothing was left to do.
func (c *convergence) pass(ctx context.Context) (bool, error) {
	if !c.planned {
		c.plan = c.makePlan(c.Clock.Now())
	}
	c.planned = false
	if err := c.decide(ctx); err != nil {
		return false, err
	}
	changed := c.decision.Changed
	if err := c.commit(ctx); err != nil {
		return false, err
	}
	c.Analyst.Set(c.key, c.decision.Watch)
	wrote, err := c.apply(ctx)
	return !changed && !wrote, err
}

// reread begins afresh on live reads.
func (c *convergence) reread(ctx context.Context) error {
	rollout, err := c.readLive(ctx, c.key)
	if err != nil {
		return err
	}
	if rollout == nil || !rollout.DeletionTimestamp.IsZero() {
		return errConflict // its event is on the way
	}
	c.rollout, c.confirmed = rollout, true
	c.sight, err = c.look(ctx, rollout, c.Live)
	return err
}

// failed ends a reconcile with an error. What takes traffic back does not back off.
func (c *convergence) failed(ctx context.Context, err error) (reconcile.Result, error) {
	if c.urgent && !errors.Is(err, errConflict) {
		log.FromContext(ctx).Error(err, "taking traffic back to stable, again in a moment")
		return reconcile.Result{RequeueAfter: 5 * conflictRetry, Priority: c.priority()}, nil
	}
	if errors.Is(err, errConflict) {
		c.notes.conflicts++
		return reconcile.Result{RequeueAfter: conflictRetry << min(c.notes.conflicts, 6), Priority: c.priority()}, nil
	}
	return c.outcome(err)
}

// result asks to be woken by whatever comes first.
func (c *convergence) result() reconcile.Result {
	after := c.decision.RequeueAfter
	soonest := func(d time.Duration) {
		if d > 0 && (after == 0 || d < after) {
			after = d
		}
	}
	soonest(c.plan.wait)
	if ends := c.notes.contendedUntil(c.Clock.Now()); !ends.IsZero() {
		soonest(ends.Sub(c.Clock.Now()))
	}
	if c.notes.unsure {
		soonest(5 * conflictRetry)
	}
	if c.decision.Status.Reason == v1.ReasonFaultBusy {
		soonest(refusedRetry) // a claim that is dropped before it was committed wakes nobody
	}
	if len(c.refused) > 0 || c.sight.meshProblem != nil || c.sight.problem != nil {
		soonest(refusedRetry)
	}
	return reconcile.Result{RequeueAfter: after, Priority: c.priority()}
}

// priority of the next reconcile: urgent only while traffic is still on its way back.
func (c *convergence) priority() *int {
	if c.urgent && c.plan.carrying {
		return new(PriorityUrgent)
	}
	return new(0)
}
