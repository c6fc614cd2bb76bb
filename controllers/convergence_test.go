package controllers

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// silent is an Analyst without evidence.
type silent struct{}

func (silent) Set(types.NamespacedName, *pipeline.Watch)                    {}
func (silent) Samples(types.NamespacedName) map[string]pipeline.GateSamples { return nil }
func (silent) Probe(types.NamespacedName) *pipeline.ProbeResult             { return nil }

func (silent) Breaker(types.NamespacedName) *pipeline.BreakerState { return nil }

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

// begun is a convergence that has seen the Service, the routes, the rule and some Rollouts.
func begun(t *testing.T, rollout *v1.Rollout, others ...*v1.Rollout) *convergence {
	t.Helper()
	r := NewRolloutReconciler(Dependencies{Clock: clocktesting.NewFakePassiveClock(start), Analyst: silent{}})
	c := r.begin(rollout)
	c.sight = &sight{
		place:           place{service: reviewsService()},
		rollouts:        []v1.Rollout{*rollout},
		virtualServices: []*unstructured.Unstructured{parse(t, halfRoutes)}, destinationRules: []*unstructured.Unstructured{parse(t, bothSubsets)},
	}
	for _, other := range others {
		c.sight.rollouts = append(c.sight.rollouts, *other)
	}
	c.plan = c.makePlan(start)
	return c
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
			var others []*v1.Rollout
			if tc.rollout.Name != "reviews" {
				others = append(others, atHalf("reviews"))
			}
			c := begun(t, tc.rollout, others...)
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
