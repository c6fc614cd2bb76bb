package gitsync

import (
	"errors"
	"fmt"
	"slices"

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

// Driven is a host whose routing a Rollout writes.
type Driven struct {
	// Rollout that drives it, as namespace/name.
	Rollout   string
	Namespace string
	// Host as the Rollout names it.
	Host string
	// Faulted is true for a host in whose routes the Rollout only injects faults: its DestinationRule is not touched.
	Faulted bool
}

// DrivenBy lists the hosts that a Rollout drives.
func DrivenBy(rollout *v1.Rollout) []Driven {
	driven := Driven{Rollout: rollout.Namespace + "/" + rollout.Name, Namespace: rollout.Namespace, Host: rollout.Spec.Host}
	all := []Driven{driven}
	for _, step := range rollout.Spec.Steps {
		if step.Fault != nil && step.Fault.Host != "" && step.Fault.Host != rollout.Spec.Host {
			driven.Host, driven.Faulted = step.Fault.Host, true
			all = append(all, driven)
		}
	}
	return all
}

// RefuseDriven refuses a VirtualService or DestinationRule for a host that a Rollout drives, in the revision or live: applied
// again at each interval, it would take back what the Rollout writes.
func RefuseDriven(manifests []Manifest, live []Driven) error {
	drivers := map[string]Driven{}
	for _, driven := range slices.Concat(live, drivenIn(manifests)) {
		key := driven.Namespace + "|" + v1.HostKey(driven.Host, driven.Namespace)
		if other, ok := drivers[key]; !ok || other.Faulted {
			drivers[key] = driven
		}
	}
	for _, manifest := range manifests {
		object := manifest.Object
		for _, host := range routedHosts(object) {
			driver, ok := drivers[object.GetNamespace()+"|"+v1.HostKey(host, object.GetNamespace())]
			if !ok || (driver.Faulted && object.GetKind() == "DestinationRule") {
				continue
			}
			return &ContentError{Err: fmt.Errorf("%s: %s is for the host %s, whose routing the Rollout %s drives: leave it out of the repository "+
				"and create it with kubectl (applying it through its Rollout does not work yet)", manifest.Where(), describe(object), host, driver.Rollout)}
		}
	}
	return nil
}

// drivenIn reads the Rollouts of the revision, without believing that they are valid: the API server judges that.
func drivenIn(manifests []Manifest) []Driven {
	var all []Driven
	for _, manifest := range manifests {
		if !isRollout(manifest.Object) {
			continue
		}
		rollout := &v1.Rollout{}
		rollout.Name, rollout.Namespace = manifest.Object.GetName(), manifest.Object.GetNamespace()
		rollout.Spec.Host, _, _ = unstructured.NestedString(manifest.Object.Object, "spec", "host")
		steps, _, _ := unstructured.NestedSlice(manifest.Object.Object, "spec", "steps")
		for _, step := range steps {
			fields, _ := step.(map[string]any)
			host, _, _ := unstructured.NestedString(fields, "fault", "host")
			rollout.Spec.Steps = append(rollout.Spec.Steps, v1.Step{Fault: &v1.Fault{Host: host}})
		}
		all = append(all, DrivenBy(rollout)...)
	}
	return all
}

// routedHosts are the hosts that a VirtualService routes for or to, or a DestinationRule is for; none for other kinds.
func routedHosts(object *unstructured.Unstructured) []string {
	if object.GroupVersionKind().Group != "networking.istio.io" {
		return nil
	}
	var hosts []string
	switch object.GetKind() {
	case "DestinationRule":
		host, _, _ := unstructured.NestedString(object.Object, "spec", "host")
		hosts = append(hosts, host)
	case "VirtualService":
		hosts, _, _ = unstructured.NestedStringSlice(object.Object, "spec", "hosts")
		for _, protocol := range []string{"http", "tcp", "tls"} {
			routes, _, _ := unstructured.NestedSlice(object.Object, "spec", protocol)
			hosts = append(hosts, destinations(routes)...)
		}
	}
	return slices.DeleteFunc(hosts, func(host string) bool { return host == "" })
}

func destinations(routes []any) []string {
	var hosts []string
	for _, route := range routes {
		fields, _ := route.(map[string]any)
		targets, _, _ := unstructured.NestedSlice(fields, "route")
		for _, target := range targets {
			fields, _ := target.(map[string]any)
			host, _, _ := unstructured.NestedString(fields, "destination", "host")
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// errNoKind is what a kind that neither the cluster serves nor the revision defines comes to.
var errNoKind = errors.New("the cluster serves no such kind: install its CustomResourceDefinition first, or check apiVersion and kind")
