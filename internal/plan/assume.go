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

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/controllers"
	"sluice.dev/sluice/internal/mesh"
)

// assumedLabel is on what is made up, and selected by a Service that is.
const assumedLabel = "sluice.dev/assumed"

// hostsOf a Rollout: its own, and those of its versions, faults and mirrors.
func hostsOf(rollout *v1.Rollout) []string {
	spec := &rollout.Spec
	hosts := []string{spec.Host}
	for i := range spec.Versions {
		if d := spec.Versions[i].Destination; d != nil {
			hosts = append(hosts, d.Host)
		}
	}
	for i := range spec.Steps {
		if f := spec.Steps[i].Fault; f != nil && f.Host != "" {
			hosts = append(hosts, f.Host)
		}
		if m := spec.Steps[i].Mirror; m != nil && m.Host != "" {
			hosts = append(hosts, m.Host)
		}
	}
	return hosts
}

// assumeHosts makes the Services and ServiceEntries of the Rollout's hosts that are not given.
func (w *world) assumeHosts(rollout *v1.Rollout) error {
	for _, host := range hostsOf(rollout) {
		name, namespace, ok := mesh.ServiceOf(host, w.key.Namespace)
		service, entry := w.serviceOf(host), w.entryOf(host)
		if service != nil || entry != nil || (ok && namespace != w.key.Namespace) {
			continue
		}
		if !ok {
			w.assume("a ServiceEntry names %s", host)
			w.store.put(externalHost(host, w.key.Namespace))
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

func externalHost(host, namespace string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
		"metadata": map[string]any{"name": "assumed-" + host, "namespace": namespace},
		"spec":     map[string]any{"hosts": []any{host}, "resolution": "DNS"},
	}}
}

// serviceOf a host of the namespace, nil when there is none.
func (w *world) serviceOf(host string) *unstructured.Unstructured {
	name, namespace, ok := mesh.ServiceOf(host, w.key.Namespace)
	if !ok {
		return nil
	}
	return w.store.get(key{"Service", namespace, name})
}

// entryOf is the ServiceEntry of a host, nil when there is none.
func (w *world) entryOf(host string) *unstructured.Unstructured {
	for _, entry := range w.store.list("ServiceEntry", w.key.Namespace) {
		hosts, _, err := unstructured.NestedStringSlice(entry.Object, "spec", "hosts")
		if err == nil && slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, mesh.HostKey(host, w.key.Namespace)) }) {
			return entry
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

// assumePods makes something ready for each version that the run is about and that has nothing.
func (w *world) assumePods(rollout *v1.Rollout) error {
	namespace := w.key.Namespace
	surveyed := mesh.Survey(rollout, w.store.list("VirtualService", namespace), w.store.list("DestinationRule", namespace))
	for _, version := range w.versions(rollout, surveyed.Subsets) {
		host, set := rollout.Spec.Host, map[string]string(nil)
		if d := rollout.Spec.DestinationOf(version); d != nil {
			host = d.Host
		} else {
			_, set = controllers.SubsetOf(rollout, version, surveyed.Subsets)
		}
		if err := w.assumeReady(version, host, set); err != nil {
			return err
		}
	}
	return nil
}

// assumeReady sees to it that something with the labels serves the host.
func (w *world) assumeReady(version, host string, set map[string]string) error {
	var selector map[string]string
	var err error
	service, entry := w.serviceOf(host), w.entryOf(host)
	switch {
	case service != nil:
		selector, _, err = unstructured.NestedStringMap(service.Object, "spec", "selector")
	case entry != nil:
		selector, _, err = unstructured.NestedStringMap(entry.Object, "spec", "workloadSelector", "labels")
	}
	if err != nil {
		return fmt.Errorf("the Service or ServiceEntry of %s: %w", host, err)
	}
	switch {
	case len(selector) > 0:
		return w.assumePod(version, selector, set)
	case service == nil && entry != nil && len(set) > 0:
		return w.assumeEndpoint(version, entry, set)
	}
	return nil
}

func (w *world) assumePod(version string, selector, set map[string]string) error {
	want := maps.Clone(selector)
	maps.Copy(want, set)
	if w.hasReadyPod(want) {
		return nil
	}
	shown := set
	if len(shown) == 0 {
		shown = selector
	}
	w.assume("pods of %s with labels %s are ready", version, labels.FormatLabels(shown))
	return w.putPod("assumed-"+strings.ToLower(version), want)
}

// assumeEndpoint adds an endpoint to a ServiceEntry that lists them, or leaves them to DNS.
func (w *world) assumeEndpoint(version string, entry *unstructured.Unstructured, set map[string]string) error {
	endpoints, _, err := unstructured.NestedSlice(entry.Object, "spec", "endpoints")
	if err != nil {
		return err
	}
	own := map[string]any{}
	for key, value := range set {
		own[key] = value
	}
	for _, raw := range endpoints {
		fields, ok := raw.(map[string]any)
		theirs, _, err := unstructured.NestedStringMap(fields, "labels")
		if ok && err == nil && labels.SelectorFromSet(set).Matches(labels.Set(theirs)) {
			return nil
		}
	}
	w.assume("ServiceEntry %s has an endpoint of %s with labels %s", entry.GetName(), version, labels.FormatLabels(set))
	more := entry.DeepCopy()
	endpoints = append(endpoints, map[string]any{"address": strings.ToLower(version) + ".assumed.example", "labels": own})
	if err := unstructured.SetNestedSlice(more.Object, endpoints, "spec", "endpoints"); err != nil {
		return err
	}
	w.store.put(more)
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
