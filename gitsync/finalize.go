package gitsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "sluice.dev/sluice/api/v1"
)

// giveUpAfter bounds how long a GitSync's deletion waits for an API server that fails, and for Rollouts that go.
const giveUpAfter = 3 * time.Minute

// siblingsTurn bounds how long it waits for siblings, which leaves Rollouts the rest.
const siblingsTurn = giveUpAfter / 2

// pruneError is an error of pruning: the revision itself is applied.
type pruneError struct{ err error }

func (e *pruneError) Error() string { return e.err.Error() }
func (e *pruneError) Unwrap() error { return e.err }

// prunes tells whether what leaves the repository leaves the cluster: the default.
func prunes(sync *v1.GitSync) bool { return sync.Spec.Prune == nil || *sync.Spec.Prune }

// prunesAll tells whether all that a GitSync applied leaves the cluster with it.
func prunesAll(sync *v1.GitSync) bool {
	return prunes(sync) && !sync.Spec.Suspend && sync.Annotations[v1.DeletionPolicyAnnotation] != v1.DeletionPolicyOrphan
}

func (r *Reconciler) pruner(ctx context.Context, sync *v1.GitSync, applier *Applier) *Pruner {
	return &Pruner{Client: applier.client, Live: r.Live, Namespace: sync.Namespace, Now: r.Clock.Now(), Elsewhere: r.elsewhere(ctx, sync)}
}

func (r *Reconciler) ensureFinalizer(ctx context.Context, sync *v1.GitSync) error {
	base := sync.DeepCopy()
	if !controllerutil.AddFinalizer(sync, v1.GitSyncFinalizer) {
		return nil
	}
	return r.Client.Patch(ctx, sync, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
}

// finalize prunes all that a GitSync applied, unless it was told not to, and lets it go.
func (r *Reconciler) finalize(ctx context.Context, sync *v1.GitSync) (reconcile.Result, error) {
	if !controllerutil.ContainsFinalizer(sync, v1.GitSyncFinalizer) {
		return reconcile.Result{}, nil
	}
	if prunesAll(sync) && len(sync.Status.Inventory) > 0 {
		passed := r.Clock.Since(sync.DeletionTimestamp.Time)
		late := passed > giveUpAfter
		again, err := r.pruneAll(ctx, sync, passed < siblingsTurn)
		switch {
		case again && !late:
			return reconcile.Result{RequeueAfter: leavingRequeue}, nil
		case err != nil && !late:
			return reconcile.Result{}, err
		case again:
			err = errors.New("a Rollout does not go, and all else waited for it")
			fallthrough
		case err != nil:
			r.Events.Eventf(sync, nil, corev1.EventTypeWarning, v1.ReasonPruneFailed, "Prune", "%s", oneLine(fmt.Sprintf(
				"deleted without pruning all of it in %s: %v", giveUpAfter, err), maxNote))
		}
	}
	base := sync.DeepCopy()
	controllerutil.RemoveFinalizer(sync, v1.GitSyncFinalizer)
	err := r.Client.Patch(ctx, sync, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
	return conflictOr(err)
}

// pruneAll prunes the inventory. again: Rollouts are on their way out or, while there is time, a sibling that may have been made in
// the GitSync's place has not had its turn yet. What Rollouts that stay need, and what the service account
// may not delete, stays: that is told and is no error.
func (r *Reconciler) pruneAll(ctx context.Context, sync *v1.GitSync, early bool) (again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.options.ApplyTimeout)
	defer cancel()
	applier, err := r.applier(sync)
	if err != nil {
		return false, err
	}
	neighbours, err := others(ctx, r.Live, sync, client.InNamespace(sync.Namespace))
	if err != nil {
		return false, err
	}
	deleted := sync.DeletionTimestamp.Add(time.Second) // it has no fractions
	if early && r.behind(siblings(sync, neighbours), deleted) != "" {
		return true, nil
	}
	done, err := r.pruner(ctx, sync, applier).Prune(ctx, sync.Status.Inventory)
	tell := func(reason, prefix string, what []string) {
		if len(what) > 0 {
			r.Events.Eventf(sync, nil, corev1.EventTypeNormal, reason, "Prune", "%s", oneLine(prefix+strings.Join(what, "; "), maxNote))
		}
	}
	tell("Pruned", "Deleted with the GitSync: ", done.Deleted)
	if done.Leaving {
		return true, nil
	}
	tell("Released", "Left in the cluster: ", slices.Concat(done.Released, done.Pending))
	if err != nil && onlyForbidden(err) {
		log.FromContext(ctx).Info("left behind by a GitSync that is deleted", "error", err.Error())
		return false, nil
	}
	return false, err
}

// onlyForbidden tells whether all errors that are joined into one are of permissions that are missing.
func onlyForbidden(err error) bool {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return apierrors.IsForbidden(err)
	}
	return !slices.ContainsFunc(joined.Unwrap(), func(err error) bool { return !apierrors.IsForbidden(err) })
}

// tellPruned emits what a prune did, and what it put off when that is news.
func tellPruned(emit func(kind, reason, note string), pruned *Pruned, before, after v1.GitSyncStatus) {
	if len(pruned.Deleted) > 0 {
		emit(corev1.EventTypeNormal, "Pruned", "Not in the repository any more: "+strings.Join(pruned.Deleted, ", "))
	}
	if len(pruned.Released) > 0 {
		emit(corev1.EventTypeNormal, "Released", "Not in the repository any more, and left in the cluster: "+strings.Join(pruned.Released, ", "))
	}
	pending := meta.FindStatusCondition(after.Conditions, v1.ConditionPrunePending)
	if was := meta.FindStatusCondition(before.Conditions, v1.ConditionPrunePending); pending != nil && (was == nil || was.Message != pending.Message) {
		emit(corev1.EventTypeNormal, v1.ConditionPrunePending, pending.Message)
	}
}
