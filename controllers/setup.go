package controllers

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	v1 "sluice.dev/sluice/api/v1"
)

// +kubebuilder:rbac:groups=sluice.dev,resources=rollouts,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=sluice.dev,resources=rollouts/status,verbs=update
// +kubebuilder:rbac:groups=networking.istio.io,resources=virtualservices;destinationrules,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups=networking.istio.io,resources=serviceentries;workloadentries,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps,resources=deployments;statefulsets;daemonsets,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=services;pods,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

const (
	// reconcileTimeout bounds what a hanging API server may hold up.
	reconcileTimeout = 30 * time.Second
	// The back-off of errors that are nobody's fault.
	backoffMin, backoffMax = 5 * time.Millisecond, 30 * time.Second
)

// Options of the controller.
type Options struct {
	// MaxConcurrentReconciles, default 1.
	MaxConcurrentReconciles int
	// Namespaces that the manager's cache is bound to; none: all.
	Namespaces []string
	// Clock for looking again for kinds that can't be read yet.
	Clock clock.WithTicker
	// Doubts that the manager's cache raises; nil: none.
	Doubts *Doubts
}

// SetupWithManager makes the controller of Rollouts. Its other watches begin as soon as the API server knows their kinds
// and allows to read them; Dependencies.Kinds tells, and is set here.
func (r *RolloutReconciler) SetupWithManager(mgr manager.Manager, options Options) error {
	c, err := controller.New("rollout", mgr, controller.Options{
		Reconciler:              r,
		MaxConcurrentReconciles: options.MaxConcurrentReconciles,
		ReconciliationTimeout:   reconcileTimeout,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](backoffMin, backoffMax),
	})
	if err != nil {
		return fmt.Errorf("making the controller of Rollouts: %w", err)
	}
	if err := c.Watch(source.Kind[client.Object](mgr.GetCache(), &v1.Rollout{}, r.rolloutHandler())); err != nil {
		return fmt.Errorf("watching Rollouts: %w", err)
	}
	if err := c.Watch(r.wakeSource()); err != nil {
		return fmt.Errorf("watching the analysis: %w", err)
	}
	watching, err := client.NewWithWatch(mgr.GetConfig(), client.Options{HTTPClient: mgr.GetHTTPClient(), Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper()})
	if err != nil {
		return fmt.Errorf("making the client that begins watches: %w", err)
	}
	watches := newKindWatches(mgr.GetAPIReader(), watching, options, r.wakeAll)
	for _, kind := range append([]watchedKind{{kind: kindRollout, object: &v1.Rollout{}}}, r.watchedKinds()...) {
		index := indexOnce(mgr, kind.object)
		watches.add(kind, func() error {
			if err := index(); err != nil || kind.handler == nil {
				return err
			}
			return c.Watch(source.Kind(mgr.GetCache(), kind.object, kind.handler, kind.predicates...))
		}, seenBy(mgr.GetCache(), kind.object))
	}
	r.Kinds = watches
	return mgr.Add(watches)
}

// indexOnce returns how to index a kind by its tokens, which is to be done again as long as it fails. A kind has to be known to
// the API server then.
func indexOnce(mgr manager.Manager, object client.Object) func() error {
	done := false
	return func() error {
		if done {
			return nil
		}
		//nolint:contextcheck // the context is of no use: the cache is asked for what it has in hand
		if err := mgr.GetFieldIndexer().IndexField(context.Background(), object, IndexName, Tokens); err != nil {
			return fmt.Errorf("indexing %T: %w", object, err)
		}
		done = true
		return nil
	}
}

// seenBy returns how to ask how far a cache has seen a kind that is watched already. One that is bound to some namespaces does
// not tell.
func seenBy(c cache.Cache, object client.Object) func() string {
	return func() string {
		//nolint:contextcheck // the informer is there: nothing is waited for
		informer, err := c.GetInformer(context.Background(), object, cache.BlockUntilSynced(false))
		if err != nil {
			return ""
		}
		if shared, ok := informer.(interface{ LastSyncResourceVersion() string }); ok && informer.HasSynced() {
			return shared.LastSyncResourceVersion()
		}
		return ""
	}
}

// CacheByObject trims what the cache keeps of objects that are read for a few fields only.
func CacheByObject() map[client.Object]cache.ByObject {
	return map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: trimPod}}
}

func trimPod(raw any) (any, error) {
	pod, ok := raw.(*corev1.Pod)
	if !ok {
		return raw, nil
	}
	trimmed := &corev1.Pod{}
	trimmed.Name, trimmed.Namespace, trimmed.UID = pod.Name, pod.Namespace, pod.UID
	trimmed.ResourceVersion, trimmed.Labels, trimmed.DeletionTimestamp = pod.ResourceVersion, pod.Labels, pod.DeletionTimestamp
	trimmed.Status.Phase, trimmed.Status.Conditions = pod.Status.Phase, pod.Status.Conditions
	return trimmed, nil
}
