package controllers

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
	"sluice.dev/sluice/internal/pipeline"
)

// versionLabel is the pod label that names a version which nothing else describes.
const versionLabel = "version"

// observeVersions describes every version that a decision may be about, by name, and says which ones the ready endpoints
// belong to.
func observeVersions(rollout *v1.Rollout, s *sight, subsets []v1.Subset) (versions map[string]pipeline.Version, serving []string) {
	named := knownVersions(rollout)
	if rollout.Status.Stable == "" {
		for _, subset := range subsets {
			named = append(named, subset.Labels[versionLabel])
		}
		serving = s.serving(rollout, named, subsets)
		named = append(named, serving...)
	}
	versions = map[string]pipeline.Version{}
	for _, name := range named {
		if _, done := versions[name]; name != "" && !done {
			versions[name] = s.version(rollout, name, subsets)
		}
	}
	s.noteSharedEndpoints(rollout, versions)
	s.noteInPlace(rollout, versions)
	noteOverlaps(versions)
	return versions, serving
}

// knownVersions are those that spec and status name.
func knownVersions(rollout *v1.Rollout) []string {
	spec, status := rollout.Spec, rollout.Status
	names := []string{spec.Version, spec.InitialVersion, status.Stable, status.Canary, status.Previous}
	if status.Rejected != nil {
		names = append(names, status.Rejected.Version)
	}
	if status.Traffic != nil {
		names = append(names, status.Traffic.Stable.Version)
	}
	for _, v := range spec.Versions {
		names = append(names, v.Name)
	}
	return names
}

// version describes a version as the spec has it. What is ready is counted where traffic has been committed to, though: an edit of
// the spec moves no pods, and a way back must neither wait for the edited place nor trust it.
func (s *sight) version(rollout *v1.Rollout, name string, subsets []v1.Subset) pipeline.Version {
	seen := s.versionOfSpec(rollout, name, subsets)
	for _, t := range committedTargets(rollout) {
		now := v1.Target{Subset: seen.Subset, Host: seen.Host, Port: seen.Port}
		if t.Version == name && !(t.Same(now, rollout.Namespace) && (t.Host != "" || maps.Equal(t.Labels, seen.Labels))) {
			seen.Ready = s.readyAt(rollout, t)
		}
	}
	return seen
}

// committedTargets are where status says that traffic goes.
func committedTargets(rollout *v1.Rollout) []v1.Target {
	t := rollout.Status.Traffic
	switch {
	case t == nil:
		return nil
	case t.Canary == nil:
		return []v1.Target{t.Stable}
	}
	return []v1.Target{t.Stable, *t.Canary}
}

// readyAt counts what serves a committed target, whatever the spec says of its version by now.
func (s *sight) readyAt(rollout *v1.Rollout, t v1.Target) int32 {
	at, set, selector := &s.place, t.Labels, labels.SelectorFromSet(t.Labels)
	if t.Host != "" {
		if at = s.elsewhere[v1.HostKey(t.Host, rollout.Namespace)]; at == nil {
			return 0
		}
		if at.unlisted() {
			return 1
		}
		set, selector = nil, at.selector()
	}
	ready := at.readyEndpoints(set)
	for i := range at.workloads {
		if w := &at.workloads[i]; selector.Matches(labels.Set(w.template.Labels)) {
			ready = max(ready, w.ready)
		}
	}
	return ready
}

// versionOfSpec describes a version by its workload and its endpoints; either may be missing.
func (s *sight) versionOfSpec(rollout *v1.Rollout, name string, subsets []v1.Subset) pipeline.Version {
	if d := rollout.Spec.DestinationOf(name); d != nil {
		return s.versionElsewhere(rollout, name, d)
	}
	subset, set := resolveSubset(rollout, name, subsets)
	seen := pipeline.Version{Labels: set, Subset: subset, Ready: s.readyEndpoints(set)}
	seen.Found, seen.Available = seen.Ready > 0, seen.Ready > 0
	if w := s.workload(rollout, name, labels.SelectorFromSet(set)); w != nil {
		// Replicas that the Service does not send to, or that the subset does not select, serve nobody.
		seen.Found, seen.Available = true, w.available && (seen.Ready > 0 || !s.selects())
		seen.Ready = max(seen.Ready, w.ready)
		seen.Revision, seen.Workload = w.revision(), w.name
	}
	return seen
}

// readyEndpoints counts those that bear the labels.
func (p *place) readyEndpoints(set map[string]string) int32 {
	selector := labels.SelectorFromSet(set)
	ready := int32(0)
	for _, e := range p.endpoints {
		if e.ready && selector.Matches(labels.Set(e.labels)) {
			ready++
		}
	}
	return ready
}

// workload is the named one, else among those whose pods bear the labels one that has ready replicas, rather the one that
// status knows by its revision, then the first by kind and name.
func (p *place) workload(rollout *v1.Rollout, name string, selector labels.Selector) *workload {
	version := listed(rollout, name)
	var best *workload
	for i := range p.workloads {
		w := &p.workloads[i]
		if version != nil && version.Workload != nil {
			if w.kind == workloadKind(version.Workload) && w.name == version.Workload.Name {
				return w
			}
			continue
		}
		if selector.Matches(labels.Set(w.template.Labels)) && (best == nil || w.preferred(best, knownRevision(&rollout.Status, name))) {
			best = w
		}
	}
	return best
}

// preferred tells whether a workload stands for a version rather than another one that comes before it.
func (w *workload) preferred(before *workload, known string) bool {
	if ready, had := w.ready > 0, before.ready > 0; ready != had {
		return ready
	}
	return known != "" && w.revision() == known && before.revision() != known
}

// knownRevision is the pod template with which status last saw a version; empty: it did not.
func knownRevision(status *v1.RolloutStatus, version string) string {
	switch {
	case status.Run != nil && version == status.Run.To:
		return status.Run.Revision
	case version == status.Stable:
		return status.StableRevision
	case status.Rejected != nil && version == status.Rejected.Version:
		return status.Rejected.Revision
	}
	return ""
}

func listed(rollout *v1.Rollout, name string) *v1.Version {
	for i := range rollout.Spec.Versions {
		if rollout.Spec.Versions[i].Name == name {
			return &rollout.Spec.Versions[i]
		}
	}
	return nil
}

// resolveSubset gives the subset and labels of a version: as the spec lists them, else as found, else by name.
func resolveSubset(rollout *v1.Rollout, name string, subsets []v1.Subset) (string, map[string]string) {
	version := listed(rollout, name)
	subset := ""
	if version != nil {
		subset = version.Subset
	}
	found := foreignSubsets(rollout, subsets)
	if subset == "" {
		subset = defaultSubset(rollout, name, found)
	}
	if version != nil && len(version.Labels) > 0 {
		return subset, version.Labels
	}
	if set, ok := found[subset]; ok && len(set) > 0 {
		return subset, set
	}
	return subset, map[string]string{versionLabel: name}
}

// foreignSubsets are the found subsets that Sluice did not add, with their labels.
func foreignSubsets(rollout *v1.Rollout, subsets []v1.Subset) map[string]map[string]string {
	foreign := map[string]map[string]string{}
	for _, s := range subsets {
		foreign[s.Name] = s.Labels
	}
	for _, s := range rollout.Status.Subsets {
		if s.Added {
			delete(foreign, s.Name)
		}
	}
	return foreign
}

// defaultSubset is named after the version, unless the version serves under another name already or the only found subset
// of that version bears another name.
func defaultSubset(rollout *v1.Rollout, name string, found map[string]map[string]string) string {
	if t := rollout.Status.Traffic; t != nil && t.Stable.Version == name {
		return t.Stable.Subset
	} else if t != nil && t.Canary != nil && t.Canary.Version == name {
		return t.Canary.Subset
	}
	subset := mesh.SubsetName(name)
	if _, ok := found[subset]; ok {
		return subset
	}
	var same []string
	for other, set := range found {
		if set[versionLabel] == name {
			same = append(same, other)
		}
	}
	if len(same) == 1 {
		return same[0]
	}
	return subset
}

// serving lists the versions that the ready endpoints belong to, sorted. An endpoint of no version makes the answer
// ambiguous, by an entry that no version has.
func (s *sight) serving(rollout *v1.Rollout, named []string, subsets []v1.Subset) []string {
	names := slices.Compact(slices.Sorted(slices.Values(named)))
	selectors := map[string]labels.Selector{}
	for _, name := range names {
		_, set := resolveSubset(rollout, name, subsets)
		selectors[name] = labels.SelectorFromSet(set)
	}
	versions := map[string]bool{}
	for _, e := range s.endpoints {
		if !e.ready {
			continue
		}
		version := e.labels[versionLabel]
		for _, name := range names {
			elsewhere := s.destination(rollout, name)
			if name != "" && (elsewhere.serves(e) || (elsewhere == nil && selectors[name].Matches(labels.Set(e.labels)))) {
				version = name
				break
			}
		}
		if version == "" {
			versions["none"], versions["none ("+e.name+" has no label version)"] = true, true
			continue
		}
		versions[version] = true
	}
	return slices.Sorted(maps.Keys(versions))
}

// unready: there are endpoints and none of them is ready. Which version serves can't be told then, and it is not that none does.
func (s *sight) unready() bool {
	return len(s.endpoints) > 0 && !slices.ContainsFunc(s.endpoints, func(e endpoint) bool { return e.ready })
}

// alone tells whether all ready endpoints of the host are stable's.
func (s *sight) alone(rollout *v1.Rollout) bool {
	t := rollout.Status.Traffic
	if t == nil || t.Stable.Host != "" || len(t.Stable.Labels) == 0 {
		return false
	}
	ready := s.readyEndpoints(t.Stable.Labels)
	return ready > 0 && ready == s.readyEndpoints(nil)
}

// noteOverlaps finds versions that select the same pods: the same workload, or labels all of which another one has.
func noteOverlaps(versions map[string]pipeline.Version) {
	names := slices.Sorted(maps.Keys(versions))
	for _, a := range names {
		for _, b := range names {
			if a != b && versions[a].Overlaps == "" && overlap(versions[a], versions[b]) {
				seen := versions[a]
				seen.Overlaps = b
				versions[a] = seen
				break
			}
		}
	}
}

func overlap(a, b pipeline.Version) bool {
	if a.Workload != "" && a.Workload == b.Workload {
		return true
	}
	if a.Host != "" || b.Host != "" {
		return false // their endpoints are compared
	}
	return labels.SelectorFromSet(a.Labels).Matches(labels.Set(b.Labels)) ||
		labels.SelectorFromSet(b.Labels).Matches(labels.Set(a.Labels))
}
