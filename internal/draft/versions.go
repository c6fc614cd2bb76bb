package draft

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	v1 "sluice.dev/sluice/api/v1"
)

// version is one that is there.
type version struct {
	name string
	// labels that have to be listed; nil: the default {version: NAME} is right.
	labels map[string]string
	// seen tells where it was found.
	seen []string
}

const versionLabel = "version"

// findVersions takes them from the pods that the Service selects, and from the subsets of its DestinationRule.
func (f *found) findVersions() error {
	selector := labels.SelectorFromSet(f.service.Spec.Selector)
	var unnamed []*unstructured.Unstructured
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		for _, o := range f.ofKind(kind) {
			set := podLabels(o)
			if selector.Empty() || !selector.Matches(labels.Set(set)) {
				continue
			}
			if name := set[versionLabel]; name != "" {
				f.see(version{name: name}, o.GetKind()+" "+o.GetName())
			} else {
				unnamed = append(unnamed, o)
			}
		}
	}
	for _, o := range unnamed {
		f.see(f.byLabels(o, unnamed), o.GetKind()+" "+o.GetName())
	}
	for _, s := range f.subsets {
		if name := s.Labels[versionLabel]; name != "" {
			f.see(version{name: name}, "subset "+s.Name)
		}
	}
	slices.SortFunc(f.versions, func(a, b version) int { return strings.Compare(a.name, b.name) })
	if len(f.versions) == 0 {
		return errors.New(f.nothingFound())
	}
	return nil
}

func (f *found) nothingFound() string {
	return fmt.Sprintf("no version of Service %s is found: its selector %s selects no Deployment, StatefulSet or DaemonSet, and no DestinationRule has subsets with the label version",
		f.Service, labels.FormatLabels(f.service.Spec.Selector))
}

func podLabels(o *unstructured.Unstructured) map[string]string {
	set, _, err := unstructured.NestedStringMap(o.Object, "spec", "template", "metadata", "labels")
	if err != nil {
		return nil
	}
	return set
}

// see notes a version, or where else it was seen.
func (f *found) see(v version, where string) {
	i := slices.IndexFunc(f.versions, func(known version) bool { return known.name == v.name })
	if i < 0 {
		f.versions, i = append(f.versions, v), len(f.versions)
	}
	f.versions[i].seen = append(f.versions[i].seen, where)
}

// byLabels describes a workload without the label version by the labels that no other one of the Service has.
func (f *found) byLabels(o *unstructured.Unstructured, all []*unstructured.Unstructured) version {
	own := podLabels(o)
	for _, other := range all {
		if other == o {
			continue
		}
		theirs := podLabels(other)
		maps.DeleteFunc(own, func(key, value string) bool { return theirs[key] == value })
	}
	maps.DeleteFunc(own, func(key, value string) bool { return len(all) > 1 && f.service.Spec.Selector[key] == value })
	return version{name: o.GetName(), labels: own}
}

// listed are the versions that need an entry in spec.versions.
func (f *found) listed() []v1.Version {
	var list []v1.Version
	for _, v := range f.versions {
		if v.labels != nil {
			list = append(list, v1.Version{Name: v.name, Labels: v.labels})
		}
	}
	return list
}
