package cli

import (
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// lastApplied holds all that kubectl apply was given, the values of a Secret too.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// masked hides the values of a Secret, as kubectl diff does: of each it is told only whether it changes. Anything else stays as it is.
func masked(before, after *unstructured.Unstructured) (maskedBefore, maskedAfter *unstructured.Unstructured) {
	if after.GetKind() != "Secret" || after.GroupVersionKind().Group != "" {
		return before, after
	}
	if before != nil {
		before = before.DeepCopy()
	}
	after = after.DeepCopy()
	for _, path := range [][]string{{"data"}, {"stringData"}, {"metadata", "annotations", lastApplied}} {
		hide(before, after, path)
	}
	return before, after
}

func hide(before, after *unstructured.Unstructured, path []string) {
	was, is := valueAt(before, path), valueAt(after, path)
	same := reflect.DeepEqual(was, is)
	wasFields, _ := was.(map[string]any)
	isFields, _ := is.(map[string]any)
	mask := func(object *unstructured.Unstructured, value any, fields, others map[string]any, shown string) {
		switch {
		case value == nil:
		case fields == nil && same:
			_ = unstructured.SetNestedField(object.Object, "***", path...)
		case fields == nil:
			_ = unstructured.SetNestedField(object.Object, shown, path...)
		default:
			out := map[string]any{}
			for key, item := range fields {
				out[key] = shown
				if other, ok := others[key]; (ok && reflect.DeepEqual(item, other)) || !ok {
					out[key] = "***"
				}
			}
			_ = unstructured.SetNestedMap(object.Object, out, path...)
		}
	}
	mask(before, was, wasFields, isFields, "*** (before)")
	mask(after, is, isFields, wasFields, "*** (after)")
}

func valueAt(object *unstructured.Unstructured, path []string) any {
	if object == nil {
		return nil
	}
	value, _, err := unstructured.NestedFieldNoCopy(object.Object, path...)
	if err != nil {
		return nil
	}
	return value
}
