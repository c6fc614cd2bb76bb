package controllertest

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
)

// A Deployment whose version label is changed together with spec.version leaves nothing to step between: the message says so, and
// what to do instead. Nothing is written.
func TestUpdatedInPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	app := map[string]string{"app": "orders"}
	labelled := func(version string) map[string]string { return map[string]string{"app": "orders", "version": version} }
	w.service("orders")
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "orders"},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: app},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labelled("v1")},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "orders", Image: "orders:v1"}}},
			},
		},
	}
	w.create(d)
	serve := func(version string) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "orders-" + version, Labels: labelled(version)}, Spec: d.Spec.Template.Spec}
		w.create(pod)
		pod.Status.Phase, pod.Status.Conditions = corev1.PodRunning, []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if err := w.client.Status().Update(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: d.Generation, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1, AvailableReplicas: 1}
		if err := w.client.Status().Update(t.Context(), d); err != nil {
			t.Fatal(err)
		}
	}
	serve("v1")
	w.rollout("host: orders\nversion: v1\nsteps: [{name: half, weight: 50}]\n")
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)

	d.Spec.Template.Labels, d.Spec.Template.Spec.Containers[0].Image = labelled("v2"), "orders:v2"
	if err := w.client.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	serve("v2")
	w.eventually("the operator's cache has the Deployment", func() error { return w.operator.knows(t.Context(), d) })
	w.push("v2")
	r := w.awaitPhase(v1.PhaseStalled, v1.ReasonVersionsOverlap)
	for _, want := range []string{"orders", "updated in place", "docs/gitsync.md"} {
		if !strings.Contains(r.Status.Message, want) {
			t.Errorf("message %q lacks %q", r.Status.Message, want)
		}
	}
	w.awaitRoutes("reviews", "v1") // of the Rollout's name
}
