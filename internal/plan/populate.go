package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/controllers"
	"sluice.dev/sluice/internal/mesh"
)

// assumedLabel is on what is made up, and selected by a Service that is.
const assumedLabel = "sluice.dev/assumed"

// populate puts what is given into the store, and what the given objects leave open.
func (w *world) populate() error {
	for _, object := range w.in.Objects {
		if object.GetNamespace() == w.key.Namespace {
			w.store.put(normal(object))
		}
	}
	given := normal(w.in.Rollout)
	unstructured.RemoveNestedField(given.Object, "spec", "suspend")
	w.store.put(given)
	if err := w.runWorkloads(); err != nil {
		return err
	}
	rollout, err := w.rollout()
	if err != nil {
		return err
	}
	if err := w.assumeServices(rollout); err != nil {
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
				"observedGeneration": int64(1), "replicas": int64(1), "readyReplicas": int64(1), "updatedReplicas": int64(1),
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

// assumeServices makes the Services of the Rollout's hosts that are not given.
func (w *world) assumeServices(rollout *v1.Rollout) error {
	hosts := []string{rollout.Spec.Host}
	for i := range rollout.Spec.Steps {
		if f := rollout.Spec.Steps[i].Fault; f != nil && f.Host != "" {
			hosts = append(hosts, f.Host)
		}
	}
	for _, host := range hosts {
		name, namespace, ok := mesh.ServiceOf(host, w.key.Namespace)
		if !ok || namespace != w.key.Namespace || w.store.get(key{"Service", namespace, name}) != nil {
			continue
		}
		w.assume("Service %s exists", name)
		if err := w.putTyped("v1", "Service", &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace},
			Spec:       corev1.ServiceSpec{Selector: w.selectorFor(name)},
		}); err != nil {
			return err
		}
	}
	return nil
}

// selectorFor a Service that is not given: the label app of the workloads, if any has it with that value.
func (w *world) selectorFor(service string) map[string]string {
	for _, object := range w.store.list("Deployment", w.key.Namespace) {
		var deployment appsv1.Deployment
		if decode(object, &deployment) == nil && deployment.Spec.Template.Labels["app"] == service {
			return map[string]string{"app": service}
		}
	}
	return map[string]string{assumedLabel: service}
}

// assumePods makes a ready pod for each version that the run is about and that has none.
func (w *world) assumePods(rollout *v1.Rollout) error {
	service := &corev1.Service{}
	name, namespace, ok := mesh.ServiceOf(rollout.Spec.Host, w.key.Namespace)
	found := w.store.get(key{"Service", namespace, name})
	if !ok || found == nil {
		return nil
	}
	if err := decode(found, service); err != nil {
		return err
	}
	if len(service.Spec.Selector) == 0 {
		return nil
	}
	surveyed := mesh.Survey(rollout, w.store.list("VirtualService", namespace), w.store.list("DestinationRule", namespace))
	for _, version := range w.versions(rollout, surveyed.Subsets) {
		_, set := controllers.SubsetOf(rollout, version, surveyed.Subsets)
		want := maps.Clone(service.Spec.Selector)
		maps.Copy(want, set)
		if w.hasReadyPod(want) {
			continue
		}
		w.assume("pods of %s with labels %s are ready", version, labels.FormatLabels(set))
		if err := w.putPod("assumed-"+strings.ToLower(version), want); err != nil {
			return err
		}
	}
	return nil
}

// versions that the run is about: those that are named, and those to which routes send.
func (w *world) versions(rollout *v1.Rollout, subsets []v1.Subset) []string {
	named := []string{rollout.Spec.Version, rollout.Spec.InitialVersion, rollout.Status.Stable, w.from(), w.in.To}
	routed := mesh.References(w.store.list("VirtualService", w.key.Namespace), w.key.Namespace, rollout.Spec.Host)
	for _, s := range subsets {
		if routed[s.Name] {
			named = append(named, s.Labels["version"])
		}
	}
	slices.Sort(named)
	return slices.DeleteFunc(slices.Compact(named), func(v string) bool { return v == "" })
}

// hasReadyPod tells whether a pod, or a WorkloadEntry, bears the labels.
func (w *world) hasReadyPod(set map[string]string) bool {
	selector := labels.SelectorFromSet(set)
	for _, object := range w.store.list("Pod", w.key.Namespace) {
		var pod corev1.Pod
		ready := func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }
		if decode(object, &pod) == nil && selector.Matches(labels.Set(pod.Labels)) && slices.ContainsFunc(pod.Status.Conditions, ready) {
			return true
		}
	}
	for _, entry := range w.store.list("WorkloadEntry", w.key.Namespace) {
		own, _, err := unstructured.NestedStringMap(entry.Object, "spec", "labels")
		if err != nil || own == nil {
			own = map[string]string{}
		}
		maps.Copy(own, entry.GetLabels())
		if selector.Matches(labels.Set(own)) {
			return true
		}
	}
	return false
}
