package gitsync

import (
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
)

// keptWorkload is a workload that stays for a while though it left the repository. What its pods can not start or scale without
// stays as long, even where it left too: a ConfigMap whose name holds a hash of its content goes with each change of it.
type keptWorkload struct {
	object *unstructured.Unstructured
	pods   map[string]string
	until  time.Time
	// refers holds what the pods refer to, as referenceKey.
	refers map[string]bool
}

func referenceKey(kind, name string) string { return kind + "/" + name }

// newKeptWorkload reads what a workload's pods refer to.
func newKeptWorkload(object *unstructured.Unstructured, until time.Time) (keptWorkload, bool) {
	pods, isWorkload := podLabels(object)
	if !isWorkload {
		return keptWorkload{}, false
	}
	k := keptWorkload{object: object, pods: pods, until: until, refers: map[string]bool{}}
	spec, _, _ := unstructured.NestedMap(object.Object, "spec")
	k.note("", spec)
	return k, true
}

// note walks a value that stands in a field, and takes down each reference of a PodSpec in it.
func (k *keptWorkload) note(field string, value any) {
	switch value := value.(type) {
	case string:
		if field == "serviceAccountName" {
			k.refers[referenceKey("ServiceAccount", value)] = true
		}
	case []any:
		for _, item := range value {
			k.note(field, item)
		}
	case map[string]any:
		for name, item := range value {
			if text, isText := item.(string); isText && referredKind(field) != "" && slices.Contains(nameFields, name) {
				k.refers[referenceKey(referredKind(field), text)] = true
			}
			k.note(name, item)
		}
	}
}

// nameFields hold the name of what a block of a PodSpec refers to.
var nameFields = []string{"name", "secretName", "claimName"}

// referredKind is the kind that the block in a field of a PodSpec refers to; empty: none that is kept.
func referredKind(field string) string {
	switch {
	case field == "configMap", field == "configMapRef", field == "configMapKeyRef":
		return "ConfigMap"
	case field == "secret", field == "secretRef", field == "secretKeyRef", field == "imagePullSecrets", strings.HasSuffix(field, "SecretRef"):
		return "Secret"
	case field == "persistentVolumeClaim":
		return "PersistentVolumeClaim"
	}
	return ""
}

// needs tells whether the workload can not start pods, or scale, without an object of its namespace.
func (k keptWorkload) needs(object *unstructured.Unstructured) bool {
	if object.GetNamespace() != k.object.GetNamespace() {
		return false
	}
	switch kind := object.GroupVersionKind(); kind.Group + "/" + kind.Kind {
	case "/ConfigMap", "/Secret", "/ServiceAccount", "/PersistentVolumeClaim":
		return k.refers[referenceKey(kind.Kind, object.GetName())]
	case "autoscaling/HorizontalPodAutoscaler":
		target, _, _ := unstructured.NestedStringMap(object.Object, "spec", "scaleTargetRef")
		return target["kind"] == k.object.GetKind() && target["name"] == k.object.GetName()
	case "policy/PodDisruptionBudget":
		return selects(object, k.pods)
	}
	return false
}

// selects tells whether an object's spec.selector selects pods.
func selects(object *unstructured.Unstructured, pods map[string]string) bool {
	fields, found, _ := unstructured.NestedMap(object.Object, "spec", "selector")
	if !found {
		return false
	}
	var stated metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &stated); err != nil {
		return true // in doubt it does
	}
	selector, err := metav1.LabelSelectorAsSelector(&stated)
	return err != nil || selector.Matches(labels.Set(pods))
}

// keepsNeeded says for which of the workloads that stay an object stays as well; empty: for none. until is that of the last to go.
func keepsNeeded(kept []keptWorkload, object *unstructured.Unstructured) (why string, until time.Time) {
	for _, k := range kept {
		if k.needs(object) && (why == "" || !until.IsZero() && (k.until.IsZero() || k.until.After(until))) {
			why, until = fmt.Sprintf("%s needs it, which is kept", describe(k.object)), k.until
		}
	}
	return why, until
}
