package lint

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"sluice.dev/sluice/controllers"
	"sluice.dev/sluice/internal/manifest"
	"sluice.dev/sluice/internal/mesh"
)

// named is a version with the place that names it.
type named struct {
	name, path string
	subset     string
	labels     labels.Set
	// workload that the spec names for it; elsewhere: it has a host of its own.
	workload  string
	elsewhere bool
}

// versions that the spec names, each once, with their labels as a run resolves them.
func (s *subject) versions() []named {
	spec := &s.rollout.Spec
	var all []named
	for i, v := range spec.Versions {
		one := named{name: v.Name, path: at("spec.versions", i), elsewhere: v.Destination != nil}
		if v.Workload != nil {
			one.workload = v.Workload.Name
		}
		all = append(all, one)
	}
	for path, name := range map[string]string{"spec.version": spec.Version, "spec.initialVersion": spec.InitialVersion} {
		if name != "" && !slices.ContainsFunc(all, func(n named) bool { return n.name == name }) {
			all = append(all, named{name: name, path: path})
		}
	}
	slices.SortFunc(all, func(a, b named) int { return strings.Compare(a.path, b.path) })
	for i := range all {
		all[i].subset, all[i].labels = controllers.SubsetOf(s.rollout, all[i].name, s.surveyed.Subsets)
	}
	return all
}

// selects tells whether a version's pods are a workload's.
func (n *named) selects(w workload) bool {
	if n.workload != "" {
		return n.workload == w.GetName()
	}
	return labels.SelectorFromSet(n.labels).Matches(w.labels)
}

func (s *subject) checkVersions() {
	versions := s.versions()
	for i := range versions {
		if v := &versions[i]; !v.elsewhere && len(s.workloads) > 0 && !slices.ContainsFunc(s.workloads, v.selects) {
			s.reportAbsent(v)
		}
	}
	for i := range versions {
		for j := range versions[:i] {
			if a, b := &versions[j], &versions[i]; !a.elsewhere && !b.elsewhere && s.overlap(a, b) {
				s.find(ruleOverlap, s.object, b.path, "versions %s (%s) and %s (%s) select the same pods: give each labels of its own in spec.versions",
					a.name, a.labels, b.name, b.labels)
			}
		}
	}
}

// reportAbsent names what is there instead of a version.
func (s *subject) reportAbsent(v *named) {
	var there []string
	for _, w := range s.workloads {
		there = append(there, fmt.Sprintf("%s (%s)", w.GetName(), w.labels))
	}
	message := fmt.Sprintf("no workload of %s has the labels %s of version %s; there are: %s",
		s.rollout.Spec.Host, v.labels, v.name, strings.Join(there, "; "))
	if v.workload != "" {
		message = fmt.Sprintf("version %s names the workload %s, which %s does not have; there are: %s",
			v.name, v.workload, s.rollout.Spec.Host, strings.Join(there, "; "))
	}
	spec := &s.rollout.Spec
	if v.name == spec.Version || v.name == spec.InitialVersion {
		s.find(ruleVersion, s.object, v.path, "%s", message)
		return
	}
	s.find(ruleSelects, s.object, v.path, "%s", message)
}

func (s *subject) overlap(a, b *named) bool {
	if labels.SelectorFromSet(a.labels).Matches(b.labels) || labels.SelectorFromSet(b.labels).Matches(a.labels) {
		return true
	}
	return slices.ContainsFunc(s.workloads, func(w workload) bool { return a.selects(w) && b.selects(w) })
}

// checkSubsets finds routes to the host whose subset is nowhere.
func (s *subject) checkSubsets() {
	if s.surveyed.DestinationRule == nil {
		return
	}
	var known []string
	for _, subset := range s.surveyed.Subsets {
		known = append(known, subset.Name)
	}
	for _, v := range s.versions() {
		known = append(known, v.subset)
	}
	slices.Sort(known)
	known = slices.Compact(known)
	for _, o := range s.near {
		if o.GetKind() != "VirtualService" {
			continue
		}
		eachDestination(o, func(path string, destination map[string]any) {
			host, _ := destination["host"].(string)
			subset, _ := destination["subset"].(string)
			ours := mesh.HostKey(host, o.GetNamespace()) == mesh.HostKey(s.rollout.Spec.Host, s.object.GetNamespace())
			if ours && subset != "" && !slices.Contains(known, subset) {
				s.find(ruleSubset, o, path+".subset", "%s has no subset %s: DestinationRule %s and the versions of %s have %s",
					host, subset, s.surveyed.DestinationRule.Name, s.object.Ref(), strings.Join(known, ", "))
			}
		})
	}
}

// eachDestination visits the destinations of a VirtualService's routes and mirrors.
func eachDestination(vs manifest.Object, visit func(path string, destination map[string]any)) {
	var walk func(path string, value any)
	walk = func(path string, value any) {
		switch v := value.(type) {
		case []any:
			for i, item := range v {
				walk(at(path, i), item)
			}
		case map[string]any:
			if _, ok := v["subset"]; ok {
				visit(path, v)
			}
			for key, item := range v {
				walk(path+"."+key, item)
			}
		}
	}
	spec, _ := vs.Object["spec"].(map[string]any)
	for _, list := range []string{"http", "tcp", "tls"} {
		walk("spec."+list, spec[list])
	}
}
