package plan

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// Kinds are those that a run may depend on.
func Kinds() []schema.GroupKind {
	const istio = "networking.istio.io"
	return []schema.GroupKind{
		{Group: v1.GroupVersion.Group, Kind: "Rollout"},
		{Group: istio, Kind: "VirtualService"},
		{Group: istio, Kind: "DestinationRule"},
		{Group: istio, Kind: "ServiceEntry"},
		{Group: istio, Kind: "WorkloadEntry"},
		{Kind: "Service"},
		{Kind: "Pod"},
		{Group: "apps", Kind: "Deployment"},
		{Group: "apps", Kind: "StatefulSet"},
		{Group: "apps", Kind: "DaemonSet"},
	}
}

// Namesake tells whether an object is of another group's kind that has the name of one of Kinds, as Knative's Service and Argo's Rollout.
func Namesake(object *unstructured.Unstructured) bool {
	kind := object.GroupVersionKind().GroupKind()
	return slices.ContainsFunc(Kinds(), func(k schema.GroupKind) bool { return k.Kind == kind.Kind && k.Group != kind.Group })
}

// populate puts what is given into the store, and what the given objects leave open.
func (w *world) populate() error {
	for _, object := range w.in.Objects {
		if object.GetNamespace() == w.key.Namespace && !Namesake(object) {
			w.store.put(normal(object))
		}
	}
	given := normal(w.in.Rollout)
	if suspended, _, _ := unstructured.NestedBool(given.Object, "spec", "suspend"); suspended {
		w.assume("spec.suspend is cleared")
		unstructured.RemoveNestedField(given.Object, "spec", "suspend")
	}
	w.store.put(given)
	if err := w.runWorkloads(); err != nil {
		return err
	}
	rollout, err := w.rollout()
	if err != nil {
		return err
	}
	if err := w.assumeHosts(rollout); err != nil {
		return err
	}
	return w.assumePods(rollout)
}

// normal is an object as the API server would hand it out: in the version that the operator reads.
func normal(object *unstructured.Unstructured) *unstructured.Unstructured {
	out := object.DeepCopy()
	if group, _, _ := strings.Cut(out.GetAPIVersion(), "/"); group == "networking.istio.io" {
		out.SetAPIVersion(group + "/v1")
	}
	return out
}

func (w *world) assume(format string, args ...any) {
	if sentence := fmt.Sprintf(format, args...); !slices.Contains(w.plan.Assumed, sentence) {
		w.plan.Assumed = append(w.plan.Assumed, sentence)
	}
}

// runWorkloads lets every workload without a status run: manifests do not say what runs.
func (w *world) runWorkloads() error {
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		for _, object := range w.store.list(kind, w.key.Namespace) {
			if _, known, err := unstructured.NestedMap(object.Object, "status"); known && err == nil {
				continue // it came from a cluster, with its pods
			}
			running := object.DeepCopy()
			running.Object["status"] = map[string]any{
				"observedGeneration": object.GetGeneration(), "replicas": int64(1), "readyReplicas": int64(1), "updatedReplicas": int64(1),
				"numberReady": int64(1), "currentNumberScheduled": int64(1), "updatedNumberScheduled": int64(1),
			}
			w.store.put(running)
			set, _, err := unstructured.NestedStringMap(object.Object, "spec", "template", "metadata", "labels")
			if err != nil {
				return fmt.Errorf("%s %s: spec.template.metadata.labels: %w", kind, object.GetName(), err)
			}
			if err := w.putPod(object.GetName(), set); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *world) putPod(name string, set map[string]string) error {
	return w.putTyped("v1", "Pod", &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.key.Namespace, Labels: set},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
		},
	})
}

func (w *world) putTyped(apiVersion, kind string, object client.Object) error {
	content, err := toJSON(object)
	if err != nil {
		return err
	}
	out := &unstructured.Unstructured{Object: content}
	out.SetAPIVersion(apiVersion)
	out.SetKind(kind)
	w.store.put(out)
	return nil
}
