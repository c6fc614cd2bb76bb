package lint

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/manifest"
	"sluice.dev/sluice/internal/mesh"
	"sluice.dev/sluice/internal/plan"
)

// subject is a Rollout with what stands beside it.
type subject struct {
	*checker
	object  manifest.Object
	rollout *v1.Rollout
	// near are the other objects of its namespace, without those that the API server would refuse.
	near []manifest.Object
	// surveyed of the VirtualServices and DestinationRules.
	surveyed mesh.Surveyed
	// workloads that the host's Service selects, when both are given.
	workloads []workload
}

// workload is what makes pods, or is an endpoint itself.
type workload struct {
	manifest.Object
	labels labels.Set
}

func (c *checker) subjects() []*subject {
	var subjects []*subject
	for _, o := range c.objects {
		if !isRollout(o) {
			continue
		}
		s := &subject{checker: c, object: o}
		for _, other := range c.objects {
			if other.GetNamespace() == o.GetNamespace() && other.Unstructured != o.Unstructured && !c.invalid[other] && !plan.Namesake(other.Unstructured) {
				s.near = append(s.near, other)
			}
		}
		subjects = append(subjects, s)
	}
	return subjects
}

func isRollout(o manifest.Object) bool {
	return o.GroupVersionKind() == v1.GroupVersion.WithKind("Rollout")
}

// check asks all rules that are about a Rollout. What can not be decoded was refused before.
func (s *subject) check(ctx context.Context) {
	s.checkHostTwice()
	s.rollout = &v1.Rollout{}
	if err := decode(s.object.Unstructured, s.rollout); err != nil {
		if !s.invalid[s.object] {
			s.find(ruleSchema, s.object, "", "%v", err)
		}
		return
	}
	s.surveyed = mesh.Survey(s.rollout, s.ofKind("VirtualService"), s.ofKind("DestinationRule"))
	s.workloads = s.hostWorkloads()
	s.checkVersions()
	s.checkSubsets()
	s.checkQueries()
	s.checkLimits()
	s.checkWindows()
	s.checkWeights()
	s.checkFaults()
	s.checkCreated()
	s.checkBreaker()
	if !s.invalid[s.object] {
		s.checkRun(ctx)
	}
}

func decode(object *unstructured.Unstructured, into any) error {
	raw, err := json.Marshal(object.Object)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

// ofKind lists the objects of a kind that stand beside the Rollout.
func (s *subject) ofKind(kind string) []*unstructured.Unstructured {
	var objects []*unstructured.Unstructured
	for _, o := range s.near {
		if o.GetKind() == kind {
			objects = append(objects, o.Unstructured)
		}
	}
	return objects
}

// hostWorkloads are the workloads that the host's Service selects.
func (s *subject) hostWorkloads() []workload {
	name, namespace, ok := mesh.ServiceOf(s.rollout.Spec.Host, s.object.GetNamespace())
	if !ok || namespace != s.object.GetNamespace() {
		return nil
	}
	var service corev1.Service
	for _, o := range s.near {
		if o.GetKind() == "Service" && o.GetName() == name && decode(o.Unstructured, &service) != nil {
			return nil
		}
	}
	if len(service.Spec.Selector) == 0 {
		return nil
	}
	selector := labels.SelectorFromSet(service.Spec.Selector)
	var found []workload
	for _, o := range s.near {
		if set := podLabels(o); set != nil && selector.Matches(set) {
			found = append(found, workload{o, set})
		}
	}
	return found
}

// podLabels are those of the pods that a workload makes, or of what is an endpoint itself; nil for any other kind.
func podLabels(o manifest.Object) labels.Set {
	var paths [][]string
	switch o.GetKind() {
	case "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet":
		paths = [][]string{{"spec", "template", "metadata", "labels"}}
	case "Pod":
		paths = [][]string{{"metadata", "labels"}}
	case "WorkloadEntry":
		paths = [][]string{{"spec", "labels"}, {"metadata", "labels"}}
	default:
		return nil
	}
	set := labels.Set{}
	for _, path := range paths {
		some, _, err := unstructured.NestedStringMap(o.Object, path...)
		if err != nil {
			return nil
		}
		maps.Copy(set, some)
	}
	return set
}

// checkObjectTwice finds objects that stand before.
func (c *checker) checkObjectTwice() {
	type identity struct{ group, kind, namespace, name string }
	first := map[identity]manifest.Object{}
	for _, o := range c.objects {
		id := identity{o.GroupVersionKind().Group, o.GetKind(), o.GetNamespace(), o.GetName()}
		before, twice := first[id]
		switch {
		case id.name == "":
		case twice:
			c.find(ruleObjectTwice, o, "metadata.name", "%s stands at %s already: a revision with both is refused by GitSync, and elsewhere the one that is applied last replaces the other",
				o.Ref(), before.At("metadata.name"))
		default:
			first[id] = o
		}
	}
}

// checkHostTwice finds another Rollout of the host that stands before this one.
func (s *subject) checkHostTwice() {
	host, _, err := unstructured.NestedString(s.object.Object, "spec", "host")
	if err != nil || host == "" {
		return
	}
	for _, other := range s.objects {
		if other.Unstructured == s.object.Unstructured {
			return
		}
		theirs, _, err := unstructured.NestedString(other.Object, "spec", "host")
		same := err == nil && isRollout(other) && other.GetNamespace() == s.object.GetNamespace() &&
			mesh.HostKey(theirs, other.GetNamespace()) == mesh.HostKey(host, s.object.GetNamespace())
		if same && other.GetName() != s.object.GetName() {
			s.find(ruleHostTwice, s.object, "spec.host", "%s is the host of %s already (%s): the younger of the two would be Stalled, HostConflict",
				host, other.Ref(), other.At("spec.host"))
			return
		}
	}
}

// at is the path of an item: spec.gates[2].
func at(list string, i int) string { return fmt.Sprintf("%s[%d]", list, i) }
