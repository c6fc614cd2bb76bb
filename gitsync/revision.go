package gitsync

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	v1 "sluice.dev/sluice/api/v1"
)

// Scope tells whether objects of a kind live in a namespace; known is false for a kind that the cluster does not serve.
type Scope func(schema.GroupVersionKind) (namespaced, known bool, err error)

// Place gives manifests of namespaced kinds that name no namespace the one of the GitSync, marks Rollouts with the commit,
// and refuses an object that stands in the revision twice. It changes the objects of manifests.
func Place(manifests []Manifest, namespace, commit string, scope Scope) error {
	scope = orDefinedIn(manifests, scope)
	seen := map[v1.InventoryEntry]Manifest{}
	for _, manifest := range manifests {
		object := manifest.Object
		namespaced, known, err := scope(object.GroupVersionKind())
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", manifest.Where(), err)
		case known && !namespaced:
			unstructured.RemoveNestedField(object.Object, "metadata", "namespace")
		case object.GetNamespace() == "":
			object.SetNamespace(namespace)
		}
		id := entryFor(object)
		id.Version = "" // versions of a kind are views of one object
		if first, twice := seen[id]; twice {
			return &ContentError{Err: fmt.Errorf("%s: %s stands in %s as well: an object may stand in a revision once",
				manifest.Where(), describe(object), first.Where())}
		}
		seen[id] = manifest
		if isRollout(object) {
			annotate(object, v1.RevisionAnnotation, commit)
		}
	}
	return nil
}

// orDefinedIn also knows the kinds of the CustomResourceDefinitions of the revision itself.
func orDefinedIn(manifests []Manifest, scope Scope) Scope {
	defined := map[schema.GroupKind]bool{}
	for _, manifest := range manifests {
		if kind, namespaced, ok := definition(manifest.Object); ok {
			defined[kind] = namespaced
		}
	}
	return func(kind schema.GroupVersionKind) (namespaced, known bool, err error) {
		if namespaced, known := defined[kind.GroupKind()]; known {
			return namespaced, true, nil
		}
		return scope(kind)
	}
}

// definition reads the kind that a CustomResourceDefinition defines.
func definition(object *unstructured.Unstructured) (kind schema.GroupKind, namespaced, ok bool) {
	if object.GetKind() != "CustomResourceDefinition" || object.GroupVersionKind().Group != "apiextensions.k8s.io" {
		return schema.GroupKind{}, false, false
	}
	kind.Group, _, _ = unstructured.NestedString(object.Object, "spec", "group")
	kind.Kind, _, _ = unstructured.NestedString(object.Object, "spec", "names", "kind")
	scope, _, _ := unstructured.NestedString(object.Object, "spec", "scope")
	return kind, scope == "Namespaced", kind.Kind != ""
}

func isRollout(object *unstructured.Unstructured) bool {
	return object.GetKind() == "Rollout" && object.GroupVersionKind().Group == v1.GroupVersion.Group
}

func annotate(object *unstructured.Unstructured, key, value string) {
	annotations := object.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[key] = value
	object.SetAnnotations(annotations)
}

func entryFor(object *unstructured.Unstructured) v1.InventoryEntry {
	kind := object.GroupVersionKind()
	return v1.InventoryEntry{Group: kind.Group, Version: kind.Version, Kind: kind.Kind, Namespace: object.GetNamespace(), Name: object.GetName()}
}

// describe names an object as people write it.
func describe(object *unstructured.Unstructured) string {
	if namespace := object.GetNamespace(); namespace != "" {
		return fmt.Sprintf("%s %s/%s", object.GetKind(), namespace, object.GetName())
	}
	return fmt.Sprintf("%s %s", object.GetKind(), object.GetName())
}

// errNoKind is what a kind that neither the cluster serves nor the revision defines comes to.
var errNoKind = errors.New("the cluster serves no such kind: install its CustomResourceDefinition first, or check apiVersion and kind")
