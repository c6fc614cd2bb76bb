package controllers

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "sluice.dev/sluice/api/v1"
)

func TestInterests(t *testing.T) {
	in := newInterests()
	rollout := rolloutOf(v1.RolloutSpec{
		Host:            "reviews",
		Steps:           []v1.Step{{Name: "slow", Fault: &v1.Fault{Host: "ratings"}}},
		Versions:        []v1.Version{{Name: "v9", Workload: &v1.WorkloadReference{Name: "odd"}}},
		VirtualServices: []v1.VirtualService{{Name: "edge"}},
		DestinationRule: &v1.DestinationRule{Name: "rule"},
	})
	rollout.Status.VirtualServices = []v1.ManagedVirtualService{{Name: "site"}}
	in.note(rollout, []labels.Selector{labels.SelectorFromSet(labelled("app", "reviews"))})
	key := keyOf("bookinfo", "reviews")
	inMesh := func(namespace, name string, spec any) []types.NamespacedName {
		return in.inMesh(&unstructured.Unstructured{Object: map[string]any{
			"metadata": map[string]any{"namespace": namespace, "name": name}, "spec": spec,
		}})
	}
	route := func(host string, names ...any) any {
		to := map[string]any{"route": []any{map[string]any{"destination": map[string]any{"host": host}}}}
		for _, name := range names {
			to["name"] = name
		}
		return map[string]any{"http": []any{to}}
	}
	otherHost := map[string]any{"host": "details"}
	named := func(name string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "bookinfo", Name: name}}
	}
	cases := map[string]struct {
		got  []types.NamespacedName
		want bool
	}{
		"its Service":                  {in.inService(named("reviews")), true},
		"the Service of its fault":     {in.inService(named("ratings")), true},
		"another Service":              {in.inService(named("details")), false},
		"its pods":                     {in.inPods("bookinfo", labelled("app", "reviews", "version", "v1")), true},
		"other pods":                   {in.inPods("bookinfo", labelled("app", "details")), false},
		"pods of another namespace":    {in.inPods("other", labelled("app", "reviews")), false},
		"its workload":                 {in.inWorkload("bookinfo", "reviews-v1", labelled("app", "reviews")), true},
		"a named workload":             {in.inWorkload("bookinfo", "odd", labelled("x", "y")), true},
		"a route to it":                {inMesh("bookinfo", "any", route("reviews.bookinfo.svc.cluster.local")), true},
		"a route to the fault's host":  {inMesh("bookinfo", "any", route("ratings")), true},
		"a VirtualService for it":      {inMesh("bookinfo", "any", map[string]any{"hosts": []any{"reviews"}}), true},
		"what it drives":               {inMesh("bookinfo", "site", nil), true},
		"what it names to be driven":   {inMesh("bookinfo", "edge", nil), true},
		"what has the name of its own": {inMesh("bookinfo", "reviews", otherHost), true},
		"what has its rule's name":     {inMesh("bookinfo", "rule", otherHost), true},
		"what has its fault's name":    {inMesh("bookinfo", "reviews-fault-ratings", otherHost), true},
		"a copy that it left":          {inMesh("bookinfo", "any", route("details", "sluice-match-reviews-0")), true},
		"a route to another host":      {inMesh("bookinfo", "any", route("details")), false},
		"a route from another mesh ns": {inMesh("other", "any", route("reviews")), false},
	}
	for name, tc := range cases {
		var want []types.NamespacedName
		if tc.want {
			want = append(want, key)
		}
		if diff := cmp.Diff(want, tc.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	in.await(key)
	if !in.arrived(key) || in.arrived(key) {
		t.Error("an awaited event is to be told once")
	}
	in.forget(key)
	if got := in.all(); got != nil {
		t.Errorf("a forgotten Rollout is still known: %v", got)
	}
}

// A watch that broke off tells of a deletion with what its cache had last, which may well be the Rollout's own write.
func TestDeletionIsNoEcho(t *testing.T) {
	r := NewRolloutReconciler(Dependencies{})
	rollout := atHalf("reviews")
	r.interest.note(rollout, nil)
	vs := newObject(kindVirtualService)
	vs.SetNamespace(rollout.Namespace)
	vs.SetName("reviews")
	vs.SetResourceVersion("7")
	vs.Object["spec"] = map[string]any{"hosts": []any{"reviews"}}
	r.ledger.wrote(kindVirtualService, vs)
	at := slices.IndexFunc(r.watchedKinds(), func(k watchedKind) bool { return k.kind == kindVirtualService })
	handler := r.watchedKinds()[at].handler
	woken := func(tell func(queue)) int {
		q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
		defer q.ShutDown()
		tell(q)
		return q.Len()
	}
	if n := woken(func(q queue) { handler.Create(t.Context(), event.CreateEvent{Object: vs}, q) }); n != 0 {
		t.Errorf("the echo of its own write wakes %d Rollouts", n)
	}
	if n := woken(func(q queue) { handler.Delete(t.Context(), event.DeleteEvent{Object: vs, DeleteStateUnknown: true}, q) }); n != 1 {
		t.Errorf("the deletion of what it wrote wakes %d Rollouts, want 1", n)
	}
}

func TestRevertsAndDeletionsOvertake(t *testing.T) {
	before := rolloutOf(v1.RolloutSpec{Version: "v3"})
	before.Status.Run = &v1.Run{From: "v1", To: "v3"}
	revert, edit, deleted := before.DeepCopy(), before.DeepCopy(), before.DeepCopy()
	revert.Spec.Version = "v1"
	edit.Spec.Suspend = true
	now := metav1.NewTime(start)
	deleted.DeletionTimestamp = &now
	for name, tc := range map[string]struct {
		after *v1.Rollout
		want  int
	}{"revert": {revert, PriorityUrgent}, "edit": {edit, 0}, "deletion": {deleted, PriorityUrgent}} {
		if got := rolloutPriority(before, tc.after); got != tc.want {
			t.Errorf("%s has priority %d, want %d", name, got, tc.want)
		}
	}
}
