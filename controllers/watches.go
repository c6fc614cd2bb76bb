package controllers

import (
	"context"
	"maps"
	"reflect"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// watchedKind is a kind whose objects concern Rollouts.
type watchedKind struct {
	kind       schema.GroupVersionKind
	object     client.Object
	handler    handler.EventHandler
	predicates []predicate.Predicate
}

// watchedKinds are all kinds that are watched besides Rollouts.
func (r *RolloutReconciler) watchedKinds() []watchedKind {
	apps := appsv1.SchemeGroupVersion
	core := corev1.SchemeGroupVersion
	workload := r.mapped(func(obj client.Object) []types.NamespacedName {
		w := workloadOf(obj)
		return r.interest.inWorkload(obj.GetNamespace(), w.name, w.template.Labels)
	})
	return []watchedKind{
		{core.WithKind("Service"), &corev1.Service{}, r.mapped(r.interest.inService), nil},
		{core.WithKind("Pod"), &corev1.Pod{}, r.mapped(r.podRollouts), []predicate.Predicate{podTurned()}},
		{apps.WithKind("Deployment"), &appsv1.Deployment{}, workload, []predicate.Predicate{workloadTurned()}},
		{apps.WithKind("StatefulSet"), &appsv1.StatefulSet{}, workload, []predicate.Predicate{workloadTurned()}},
		{apps.WithKind("DaemonSet"), &appsv1.DaemonSet{}, workload, []predicate.Predicate{workloadTurned()}},
		{kindVirtualService, newObject(kindVirtualService), r.meshHandler(kindVirtualService), nil},
		{kindDestinationRule, newObject(kindDestinationRule), r.meshHandler(kindDestinationRule), nil},
		{kindServiceEntry, newObject(kindServiceEntry), r.mapped(r.inEntry), nil},
		{kindWorkloadEntry, newObject(kindWorkloadEntry), r.mapped(r.entryRollouts), nil},
	}
}

func (r *RolloutReconciler) mapped(concerned func(client.Object) []types.NamespacedName) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(_ context.Context, obj client.Object) []reconcile.Request {
		var requests []reconcile.Request
		for _, key := range concerned(obj) {
			requests = append(requests, reconcile.Request{NamespacedName: key})
		}
		return requests
	})
}

func (r *RolloutReconciler) podRollouts(obj client.Object) []types.NamespacedName {
	return r.interest.inPods(obj.GetNamespace(), obj.GetLabels())
}

// inEntry: a ServiceEntry names one of its hosts.
func (r *RolloutReconciler) inEntry(obj client.Object) []types.NamespacedName {
	entry, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	return r.interest.inMesh(entry)
}

func (r *RolloutReconciler) entryRollouts(obj client.Object) []types.NamespacedName {
	entry, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	return r.interest.inPods(obj.GetNamespace(), entryLabels(entry))
}

// meshHandler leaves out the echo of a Rollout's own write, unless it is waited for. A deletion is never an echo: after a watch
// that broke off it is told with what the cache had last, which may be just that write.
func (r *RolloutReconciler) meshHandler(kind schema.GroupVersionKind) handler.EventHandler {
	concerned := func(obj client.Object) []types.NamespacedName {
		raw, ok := obj.(*unstructured.Unstructured)
		if !ok {
			return nil
		}
		return r.interest.inMesh(raw)
	}
	gone := r.mapped(concerned)
	written := r.mapped(func(obj client.Object) []types.NamespacedName {
		keys := concerned(obj)
		if len(keys) == 1 && r.ledger.own(kind, obj) && obj.GetDeletionTimestamp() == nil && !r.interest.arrived(keys[0]) {
			return nil
		}
		return keys
	})
	return handler.Funcs{CreateFunc: written.Create, UpdateFunc: written.Update, DeleteFunc: gone.Delete, GenericFunc: written.Generic}
}

// rolloutHandler wakes the Rollout itself, and those that waited for it. Reverts and deletions overtake.
func (r *RolloutReconciler) rolloutHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) {
			if rollout, ok := e.Object.(*v1.Rollout); ok && rollout.Status.Run != nil {
				enqueue(q, client.ObjectKeyFromObject(rollout), priorityInFlight)
				return
			}
			q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(e.Object)})
		},
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			before, ok := e.ObjectOld.(*v1.Rollout)
			after, same := e.ObjectNew.(*v1.Rollout)
			if !ok || !same {
				return
			}
			key := client.ObjectKeyFromObject(after)
			if r.interest.arrived(key) || !r.ledger.own(kindRollout, after) || edited(before, after) {
				enqueue(q, key, rolloutPriority(before, after))
			}
			if moved := hostsMoved(before, after); moved || faultChanged(before, after) {
				r.wakeNeighbours(q, after)
				if moved {
					r.wakeNeighbours(q, before) // whom it is in the way of no more
				}
			}
		},
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) {
			enqueue(q, client.ObjectKeyFromObject(e.Object), 0)
			if rollout, ok := e.Object.(*v1.Rollout); ok {
				r.wakeNeighbours(q, rollout)
			}
		},
	}
}

// hostsMoved tells whether a Rollout has, or drives, other hosts than before: others may have them now, or not any more.
func hostsMoved(before, after *v1.Rollout) bool {
	return drivesHost(before) != drivesHost(after) || !slices.Equal(before.HostKeys(), after.HostKeys()) ||
		!slices.Equal(committedKeys(before), committedKeys(after))
}

func edited(before, after *v1.Rollout) bool {
	return before.Generation != after.Generation || !maps.Equal(before.Annotations, after.Annotations) ||
		before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero()
}

func rolloutPriority(before, after *v1.Rollout) int {
	reverted := after.Status.Run != nil && before.Spec.Version != after.Spec.Version
	deleted := before.DeletionTimestamp.IsZero() && !after.DeletionTimestamp.IsZero()
	if reverted || deleted {
		return PriorityUrgent
	}
	return 0
}

func faultChanged(before, after *v1.Rollout) bool {
	fault := func(r *v1.Rollout) bool { return r.Status.Traffic != nil && r.Status.Traffic.Fault != nil }
	return carrierName(&before.Status) != carrierName(&after.Status) || fault(before) != fault(after)
}

// wakeNeighbours wakes the Rollouts that share a host with this one, be it for a fault.
func (r *RolloutReconciler) wakeNeighbours(q queue, rollout *v1.Rollout) {
	var tokens []string
	for _, host := range append(hostsOf(rollout), rollout.HostKeys()...) {
		tokens = append(tokens, hostToken(mesh.HostKey(host, rollout.Namespace)))
	}
	for _, key := range r.interest.where(rollout.Namespace, tokens, nil) {
		if key.Name != rollout.Name {
			enqueue(q, key, 0)
		}
	}
}

func enqueue(q queue, key types.NamespacedName, priority int) {
	request := reconcile.Request{NamespacedName: key}
	if pq, ok := q.(priorityqueue.PriorityQueue[reconcile.Request]); ok {
		pq.AddWithOpts(priorityqueue.AddOpts{Priority: &priority}, request)
		return
	}
	q.Add(request)
}

// wakeSource is how the analysis and the watches of kinds reach the queue.
func (r *RolloutReconciler) wakeSource() source.Source {
	return source.Func(func(_ context.Context, q queue) error {
		r.queue.Store(&q)
		return nil
	})
}

// Wake has a Rollout reconciled: before those that rest, since it is in flight, and before all others if the analysis saw
// something of it fail.
func (r *RolloutReconciler) Wake(key types.NamespacedName) {
	q := r.queue.Load()
	if q == nil {
		return // not started: every Rollout is reconciled at the start
	}
	priority := priorityInFlight
	if r.urgent(key) {
		priority = PriorityUrgent
	}
	enqueue(*q, key, priority)
}

func (r *RolloutReconciler) wakeAll() {
	q := r.queue.Load()
	if q == nil {
		return
	}
	for _, key := range r.interest.all() {
		enqueue(*q, key, 0)
	}
}

// workloadOf reads a Deployment, StatefulSet or DaemonSet.
func workloadOf(obj client.Object) workload {
	switch w := obj.(type) {
	case *appsv1.Deployment:
		return deployment(w)
	case *appsv1.StatefulSet:
		return statefulSet(w)
	case *appsv1.DaemonSet:
		return daemonSet(w)
	default:
		return workload{template: &corev1.PodTemplateSpec{}}
	}
}

// workloadTurned lets pass what a decision can depend on: the template, and whether anything is ready.
func workloadTurned() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := workloadOf(e.ObjectOld), workloadOf(e.ObjectNew)
		return before.available != after.available || (before.ready > 0) != (after.ready > 0) ||
			e.ObjectOld.GetGeneration() != e.ObjectNew.GetGeneration() || !reflect.DeepEqual(before.template, after.template)
	}}
}

func podTurned() predicate.Predicate {
	state := func(obj client.Object) (lives, ready bool) {
		pod, ok := obj.(*corev1.Pod)
		return ok && podLives(pod), ok && podReady(pod)
	}
	return predicate.Funcs{
		CreateFunc: func(e event.CreateEvent) bool { _, ready := state(e.Object); return ready },
		UpdateFunc: func(e event.UpdateEvent) bool {
			lived, wasReady := state(e.ObjectOld)
			lives, isReady := state(e.ObjectNew)
			return lived != lives || wasReady != isReady || !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels())
		},
	}
}
