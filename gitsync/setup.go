package gitsync

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "sluice.dev/sluice/api/v1"
)

// Defaults of Options and of spec.interval.
const (
	DefaultInterval       = time.Minute
	DefaultServiceAccount = "default"
	DefaultApplyTimeout   = 2 * time.Minute
	DefaultConcurrency    = 16

	shortestInterval = time.Second
)

// Options are the administrator's. Zero values mean the defaults.
type Options struct {
	// DefaultServiceAccount is impersonated, in the GitSync's namespace, when spec.serviceAccountName is empty.
	DefaultServiceAccount string
	// FetchTimeout bounds one fetch, ApplyTimeout one dry-run and apply of a revision.
	FetchTimeout, ApplyTimeout time.Duration
	// MaxBytes bounds a pack, sent and unpacked.
	MaxBytes int64
	// MaxConcurrentReconciles is how many GitSyncs are worked on at a time; one namespace gets a quarter of them.
	MaxConcurrentReconciles int
}

func (o Options) withDefaults() Options {
	o.DefaultServiceAccount = cmp.Or(o.DefaultServiceAccount, DefaultServiceAccount)
	o.FetchTimeout = cmp.Or(o.FetchTimeout, DefaultFetchTimeout)
	o.ApplyTimeout = cmp.Or(o.ApplyTimeout, DefaultApplyTimeout)
	o.MaxBytes = cmp.Or(o.MaxBytes, DefaultMaxBytes)
	o.MaxConcurrentReconciles = cmp.Or(o.MaxConcurrentReconciles, DefaultConcurrency)
	return o
}

// SetupWithManager adds the controller to the manager. The Clock must be set; other fields that are nil come from the manager.
func (r *Reconciler) SetupWithManager(manager ctrl.Manager, options Options) error {
	if r.Client == nil {
		r.Client = manager.GetClient()
	}
	if r.Live == nil {
		r.Live = manager.GetAPIReader()
	}
	if r.Config == nil {
		r.Config = manager.GetConfig()
	}
	if r.Events == nil {
		r.Events = manager.GetEventRecorder("sluice-gitsync")
	}
	r.configure(options)
	err := ctrl.NewControllerManagedBy(manager).
		Named("gitsync").
		For(&v1.GitSync{}, builder.WithPredicates(worthAPass())).
		Watches(&v1.Rollout{}, handler.EnqueueRequestsFromMapFunc(r.waitingFor), builder.WithPredicates(lettingGo())).
		WithOptions(controller.Options{MaxConcurrentReconciles: r.options.MaxConcurrentReconciles}).
		Complete(r)
	if err != nil {
		return fmt.Errorf("set up the GitSync controller: %w", err)
	}
	return nil
}

func (r *Reconciler) configure(options Options) {
	const shareOfNamespace = 4
	r.options = options.withDefaults()
	r.fetcher = &Fetcher{Timeout: r.options.FetchTimeout, MaxBytes: r.options.MaxBytes}
	r.slots.limit = max(1, r.options.MaxConcurrentReconciles/shareOfNamespace)
	r.jitter = jittered
}

// waitingFor lists the GitSyncs that hold something back, or keep it, for the sake of a Rollout of a namespace.
func (r *Reconciler) waitingFor(ctx context.Context, rollout client.Object) []reconcile.Request {
	syncs := &v1.GitSyncList{}
	if err := r.Client.List(ctx, syncs); err != nil {
		return nil // the interval brings it up again
	}
	var requests []reconcile.Request
	for i := range syncs.Items {
		sync := &syncs.Items[i]
		ready := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionReady)
		held := ready != nil && ready.Reason == v1.ReasonHeldBack
		concerned := slices.ContainsFunc(sync.Status.Inventory, func(e v1.InventoryEntry) bool {
			return e.Namespace == rollout.GetNamespace() || (e.Kind == "Namespace" && e.Name == rollout.GetNamespace())
		})
		if concerned && (held || meta.IsStatusConditionTrue(sync.Status.Conditions, v1.ConditionPrunePending)) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(sync)})
		}
	}
	return requests
}

// lettingGo lets by the changes of a Rollout after which it may need less than before.
func lettingGo() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			before, isBefore := e.ObjectOld.(*v1.Rollout)
			after, isAfter := e.ObjectNew.(*v1.Rollout)
			if !isBefore || !isAfter {
				return false
			}
			a, b := &before.Status, &after.Status
			return before.Generation != after.Generation || a.Stable != b.Stable || a.Canary != b.Canary || a.Previous != b.Previous ||
				(a.Run == nil) != (b.Run == nil) || (a.Traffic == nil) != (b.Traffic == nil) || (a.Rejected == nil) != (b.Rejected == nil) ||
				len(a.VirtualServices) != len(b.VirtualServices)
		},
	}
}

// fetchRequested tells that a webhook's delivery was marked: another time, later or, with another replica's clock, earlier.
func fetchRequested(e event.UpdateEvent) bool {
	before, isBefore := e.ObjectOld.(*v1.GitSync)
	after, isAfter := e.ObjectNew.(*v1.GitSync)
	return isBefore && isAfter && !before.Status.FetchRequested.Equal(after.Status.FetchRequested)
}

// worthAPass lets by what a person or CI does, and not our own status writes.
func worthAPass() predicate.Predicate {
	commanded := predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return e.ObjectOld.GetAnnotations()[v1.CommandAnnotation] != e.ObjectNew.GetAnnotations()[v1.CommandAnnotation]
	}}
	return predicate.Or(predicate.GenerationChangedPredicate{}, commanded, predicate.Funcs{UpdateFunc: fetchRequested})
}

// IntervalOf is the time between two fetches.
func IntervalOf(spec *v1.GitSyncSpec) time.Duration {
	if spec.Interval == nil {
		return DefaultInterval
	}
	return max(spec.Interval.Duration, shortestInterval)
}

// jittered spreads d by a tenth, so that what began together does not stay so.
func jittered(d time.Duration) time.Duration {
	const share = 10
	spread := int64(d / share)
	if spread <= 0 {
		return d
	}
	return d - time.Duration(spread/2) + time.Duration(rand.Int64N(spread)) //nolint:gosec // no secret depends on it
}

func revisionName(ref v1.GitRef, commit string) string {
	if ref.Commit != "" {
		return fmt.Sprintf("%.7s", commit)
	}
	return fmt.Sprintf("%s@%.7s", refName(ref), commit)
}

// redactURL is a URL as the user wrote it, which may be anything, without credentials.
func redactURL(raw string) string {
	address, err := url.Parse(raw)
	if err != nil {
		return "the repository"
	}
	address.User = nil
	return address.String()
}
