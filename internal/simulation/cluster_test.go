package simulation

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

// load makes an object from YAML; people write what the simulation starts from.
func load(text string) *unstructured.Unstructured {
	var out map[string]any
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		panic(fmt.Sprintf("simulation: %v in\n%s", err, text))
	}
	obj := normal(&unstructured.Unstructured{Object: out})
	obj.SetNamespace(namespace)
	return obj
}

// add creates an object.
func (w *world) add(actor, text string) {
	obj := load(text)
	if w.store.live(keyOf(obj)) != nil {
		return
	}
	if _, err := w.store.create(actor, obj); err != nil {
		panic(fmt.Sprintf("simulation: create %s: %v", keyOf(obj), err))
	}
}

func (w *world) addServices() {
	for _, name := range []string{"reviews", "ratings", "shadow"} {
		w.add("cluster", fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {selector: {app: %s}, ports: [{name: http, port: 9080}]}}`, name, name))
	}
}

func workloadName(version string) string {
	return "reviews-" + strings.ReplaceAll(version, ".", "-")
}

func deploymentKey(version string) objectKey {
	return objectKey{kindDeployment, namespace, workloadName(version)}
}

func podKey(version string) objectKey {
	return objectKey{kindPod, namespace, workloadName(version) + "-0"}
}

// deploy brings up a version's Deployment and its pod, not ready yet.
func (w *world) deploy(version string) {
	name := workloadName(version)
	w.add("cluster", fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %s, labels: {app: reviews}}
spec:
  replicas: 1
  selector: {matchLabels: {app: reviews, version: %q}}
  template:
    metadata: {labels: {app: reviews, version: %q}}
    spec: {containers: [{name: reviews, image: "reviews:%s-build1"}]}
`, name, version, version, version))
	w.add("cluster", fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s-0, labels: {app: reviews, version: %q}}
spec: {containers: [{name: reviews, image: "reviews"}]}
`, name, version))
}

// undeploy takes a version's Deployment and pod away.
func (w *world) undeploy(version string) {
	for _, key := range []objectKey{deploymentKey(version), podKey(version)} {
		if w.store.live(key) != nil {
			w.store.record("cluster", key, nil)
		}
	}
}

// setReady makes a version's replica ready or not, at the Deployment's current generation.
func (w *world) setReady(version string, ready bool) {
	replicas, status := int64(0), "False"
	if ready {
		replicas, status = 1, "True"
	}
	w.store.edit("cluster", deploymentKey(version), func(o map[string]any) {
		generation, _, _ := unstructured.NestedInt64(o, "metadata", "generation")
		o["status"] = map[string]any{"observedGeneration": generation, "replicas": int64(1), "updatedReplicas": int64(1), "readyReplicas": replicas, "availableReplicas": replicas}
	})
	w.store.edit("cluster", podKey(version), func(o map[string]any) {
		o["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Ready", "status": status}}}
	})
}

// rebuild changes a version's pod template: another revision of the same version.
func (w *world) rebuild(version string) {
	w.store.edit("cluster", deploymentKey(version), func(o map[string]any) {
		containers, _, _ := unstructured.NestedSlice(o, "spec", "template", "spec", "containers")
		container := containers[0].(map[string]any)
		container["image"] = fmt.Sprint(container["image"], "+")
		_ = unstructured.SetNestedSlice(o, containers, "spec", "template", "spec", "containers")
	})
}

// readyAt tells what a reader at a position sees of a version: whether it is available, has a ready replica, and its image.
func (w *world) readyAt(version string, position int64) (available, ready bool, image string) {
	v := w.store.at(deploymentKey(version), position)
	if v == nil {
		return false, false, ""
	}
	o := v.object.Object
	replicas, _, _ := unstructured.NestedInt64(o, "status", "readyReplicas")
	observed, _, _ := unstructured.NestedInt64(o, "status", "observedGeneration")
	containers, _, _ := unstructured.NestedSlice(o, "spec", "template", "spec", "containers")
	if len(containers) > 0 {
		image, _ = containers[0].(map[string]any)["image"].(string)
	}
	return replicas > 0 && observed >= v.object.GetGeneration(), replicas > 0, image
}

func podReady(pod *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(pod.Object, "status", "conditions")
	return len(conditions) > 0 && conditions[0].(map[string]any)["status"] == "True"
}

// editSpec changes the Rollout's spec as people and GitSync do.
func (w *world) editSpec(change func(*v1.RolloutSpec)) {
	w.store.edit("people", rolloutKey, func(o map[string]any) {
		r := w.rollout().DeepCopy()
		change(&r.Spec)
		o["spec"] = toJSON(r)["spec"]
	})
}

func (w *world) push(version string) {
	w.transcript.line("git", "push spec.version: %s", version)
	w.editSpec(func(s *v1.RolloutSpec) { s.Version = version })
}

func (w *world) annotate(key, value string) {
	w.store.edit("people", rolloutKey, func(o map[string]any) {
		obj := &unstructured.Unstructured{Object: o}
		annotations := obj.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		if value == "" {
			delete(annotations, key)
		} else {
			annotations[key] = value
		}
		obj.SetAnnotations(annotations)
	})
}

// editRoutes changes the routes of a VirtualService by hand.
func (w *world) editRoutes(key objectKey, change func(route map[string]any)) {
	w.store.edit("people", key, func(o map[string]any) {
		for _, list := range routeLists {
			for _, r := range routesIn(o, list) {
				change(r.(map[string]any))
			}
		}
	})
}
