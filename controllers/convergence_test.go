package controllers

import (
	"encoding/json"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// silent is an Analyst without evidence.
type silent struct{}

func (silent) Set(types.NamespacedName, *pipeline.Watch)                    {}
func (silent) Samples(types.NamespacedName) map[string]pipeline.GateSamples { return nil }
func (silent) Probe(types.NamespacedName) *pipeline.ProbeResult             { return nil }

// cluster is a reconciler on a client that keeps objects in memory.
type cluster struct {
	*RolloutReconciler
	t      *testing.T
	clock  *clocktesting.FakePassiveClock
	events *events.FakeRecorder
}

// liveReader tells reads from the API server from cached ones.
type liveReader struct{ client.Reader }

func newCluster(t *testing.T, funcs interceptor.Funcs, objects ...client.Object) *cluster {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1.Rollout{}).
		WithInterceptorFuncs(funcs).Build()
	clock := clocktesting.NewFakePassiveClock(start)
	recorder := events.NewFakeRecorder(20)
	return &cluster{
		t: t, clock: clock, events: recorder,
		RolloutReconciler: NewRolloutReconciler(Dependencies{Client: c, Live: &liveReader{c}, Clock: clock, Analyst: silent{}, Events: recorder}),
	}
}

// parse reads an object of the mesh.
func parse(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		t.Fatal(err)
	}
	u.SetNamespace("bookinfo")
	u.SetAPIVersion("networking.istio.io/v1")
	return u
}

// podOf is a ready pod, or one that is not.
func podOf(name string, ready corev1.ConditionStatus, set map[string]string) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Name, pod.Namespace, pod.Labels = name, "bookinfo", set
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	return pod
}

const (
	halfRoutes = `
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http: [{name: primary, route: [{destination: {host: reviews, subset: v1}, weight: 50}, {destination: {host: reviews, subset: v3}, weight: 50}]}]`
	bothSubsets = `
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]}`
)

// atHalf is a Rollout in mid-run, whose traffic is split in two.
func atHalf(name string) *v1.Rollout {
	r := rolloutOf(v1.RolloutSpec{Version: "v3", Steps: []v1.Step{{Name: "half", Weight: new(int32(50))}}})
	r.Name, r.UID, r.Finalizers = name, types.UID(name), []string{v1.FinalizerName}
	r.CreationTimestamp = metav1.NewTime(start)
	target := func(version string) v1.Target {
		return v1.Target{Version: version, Subset: version, Labels: labelled("version", version)}
	}
	canary := target("v3")
	r.Status = v1.RolloutStatus{
		Stable: "v1", Canary: "v3", Run: &v1.Run{From: "v1", To: "v3"}, Step: &v1.StepStatus{Name: "half", Display: "1/2 half"},
		Traffic:         &v1.Traffic{Stable: target("v1"), Canary: &canary, Weight: 50},
		VirtualServices: []v1.ManagedVirtualService{{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1"}}}},
		DestinationRule: &v1.ManagedDestinationRule{Name: "reviews"},
		Subsets:         []v1.Subset{{Name: "v1", Labels: labelled("version", "v1")}, {Name: "v3", Labels: labelled("version", "v3")}},
	}
	return r
}

func reviewsService() *corev1.Service {
	s := serviceOf("reviews")
	s.Name, s.Namespace = "reviews", "bookinfo"
	return s
}

// begun is a convergence of a Rollout that has looked at the cluster.
func (k *cluster) begun(rollout *v1.Rollout) *convergence {
	k.t.Helper()
	c := k.begin(rollout)
	var err error
	if c.sight, err = k.look(k.t.Context(), rollout, k.Live); err != nil {
		k.t.Fatal(err)
	}
	c.plan = c.makePlan(k.clock.Now())
	return c
}

func (k *cluster) routes(name string) string {
	k.t.Helper()
	vs := newObject(kindVirtualService)
	if err := k.Live.Get(k.t.Context(), keyOf("bookinfo", name), vs); err != nil {
		k.t.Fatal(err)
	}
	raw, err := json.Marshal(vs.Object["spec"])
	if err != nil {
		k.t.Fatal(err)
	}
	return string(raw)
}

func TestWhoMayNotWriteTheMeshPlansNothing(t *testing.T) {
	byHand, younger := atHalf("reviews"), atHalf("reviews-too")
	byHand.Annotations = map[string]string{v1.ReconcileAnnotation: v1.ReconcileDisabled}
	younger.CreationTimestamp = metav1.NewTime(after(1))
	for name, tc := range map[string]struct {
		rollout *v1.Rollout
		written bool
	}{
		"it drives the host":           {atHalf("reviews"), true},
		"a person steers":              {byHand, false},
		"another Rollout has the host": {younger, false},
	} {
		t.Run(name, func(t *testing.T) {
			objects := []client.Object{reviewsService(), parse(t, halfRoutes), parse(t, bothSubsets), tc.rollout}
			if tc.rollout.Name != "reviews" {
				objects = append(objects, atHalf("reviews"))
			}
			k := newCluster(t, interceptor.Funcs{}, objects...)
			c := k.begun(tc.rollout)
			in, err := c.observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := in.Written != nil; got != tc.written || len(c.plan.changes) > 0 {
				t.Errorf("known as written: %v, want %v; changes %+v", got, tc.written, c.plan.changes)
			}
			tc.rollout.Status.Traffic.Weight = 10
			if changes := c.makePlan(start).changes; (len(changes) > 0) != tc.written {
				t.Errorf("other weights make %d changes", len(changes))
			}
		})
	}
}
