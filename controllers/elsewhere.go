package controllers

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
	"sluice.dev/sluice/internal/pipeline"
)

// destination is the host that a version has of its own, as it was found; nil: it has none.
func (s *sight) destination(rollout *v1.Rollout, version string) *place {
	d := rollout.Spec.DestinationOf(version)
	if d == nil {
		return nil
	}
	if found := s.elsewhere[v1.HostKey(d.Host, rollout.Namespace)]; found != nil {
		return found
	}
	return &place{}
}

// serves tells whether an endpoint is one of the host's.
func (p *place) serves(e endpoint) bool {
	return p != nil && slices.ContainsFunc(p.endpoints, func(own endpoint) bool { return own.name == e.name })
}

// versionElsewhere describes a version by what serves its own host: all of its endpoints, whatever their labels. Where addresses
// are left to DNS nobody can tell whether any is ready, so the version is available for as long as a ServiceEntry names its host.
func (s *sight) versionElsewhere(rollout *v1.Rollout, name string, d *v1.Destination) pipeline.Version {
	found := s.destination(rollout, name)
	seen := pipeline.Version{Host: d.Host, Port: d.Port.GetNumber(), Ready: found.readyEndpoints(nil)}
	if s.problem == nil {
		seen.Foreign = foreignHost(fmt.Sprintf("the destination of version %s,", name), d.Host, rollout.Namespace, found.exists())
	}
	if found.unlisted() {
		seen.Ready = 1
	}
	seen.Labels = destinationLabels(rollout, name, found)
	seen.Found, seen.Available = seen.Ready > 0, seen.Ready > 0
	if w := found.workload(rollout, name, found.selector()); w != nil {
		seen.Found, seen.Available = true, w.available && (seen.Ready > 0 || !found.selects())
		seen.Ready = max(seen.Ready, w.ready)
		seen.Revision, seen.Workload = w.revision(), w.name
	}
	return seen
}

// destinationLabels are those by which the host's Service selects its pods. While there is no Service they are what is committed:
// one that is gone for a moment is no other version.
func destinationLabels(rollout *v1.Rollout, name string, found *place) map[string]string {
	if found.service != nil {
		return found.service.Spec.Selector
	}
	if t := rollout.Status.Traffic; t != nil && len(found.entries) == 0 {
		for _, target := range []*v1.Target{&t.Stable, t.Canary} {
			if target != nil && target.Version == name {
				return target.Labels
			}
		}
	}
	return nil
}

// noteSharedEndpoints finds versions that have endpoints in common where one has a host of its own.
func (s *sight) noteSharedEndpoints(rollout *v1.Rollout, versions map[string]pipeline.Version) {
	names := slices.Sorted(maps.Keys(versions))
	for _, a := range names {
		elsewhere := s.destination(rollout, a)
		for _, b := range names {
			if a == b || elsewhere == nil || apart(versions[a], versions[b]) || !slices.ContainsFunc(s.endpointsOf(rollout, b, versions[b]), elsewhere.serves) {
				continue
			}
			for version, other := range map[string]string{a: b, b: a} {
				if seen := versions[version]; seen.Overlaps == "" {
					seen.Overlaps = other
					versions[version] = seen
				}
			}
		}
	}
}

// apart: two versions answer on different ports.
func apart(a, b pipeline.Version) bool { return a.Host != "" && b.Host != "" && a.Port != b.Port }

// endpointsOf a version, ready or not.
func (s *sight) endpointsOf(rollout *v1.Rollout, name string, seen pipeline.Version) []endpoint {
	if elsewhere := s.destination(rollout, name); elsewhere != nil {
		return elsewhere.endpoints
	}
	selector := labels.SelectorFromSet(seen.Labels)
	return slices.DeleteFunc(slices.Clone(s.endpoints), func(e endpoint) bool { return !selector.Matches(labels.Set(e.labels)) })
}

// breakersElsewhere adds the hosts that versions have of their own, in full, whose rules break circuits.
func (s *sight) breakersElsewhere(known map[string]bool, rollout *v1.Rollout) map[string]bool {
	for _, rule := range s.destinationRules {
		host, _, err := unstructured.NestedString(rule.Object, "spec", "host")
		key := v1.HostKey(host, rollout.Namespace)
		if err != nil || s.elsewhere[key] == nil || !mesh.CircuitBreakers(rule)[""] {
			continue
		}
		if known == nil {
			known = map[string]bool{}
		}
		known[key] = true
	}
	return known
}
