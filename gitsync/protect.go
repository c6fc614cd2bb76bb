package gitsync

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
)

// DefaultKeepPrevious is how long the version before stays after a run.
const DefaultKeepPrevious = time.Hour

// traffic is what of a Rollout keeps objects of its namespace from being pruned.
type traffic struct {
	rollout *v1.Rollout
	// service of the host; nil: there is none.
	service *corev1.Service
}

// keeps says why an object may not be taken from under the Rollout's traffic; empty: it may. until is when that ends by itself;
// zero: with a change of the Rollout.
func (t traffic) keeps(object *unstructured.Unstructured, now time.Time) (why string, until time.Time) {
	kind := object.GroupVersionKind()
	switch {
	case kind.Group == "" && kind.Kind == "Namespace":
		return "it is in this namespace", until
	case kind.Group == "" && kind.Kind == "Service":
		if name, _, ok := mesh.ServiceOf(t.rollout.Spec.Host, t.rollout.Namespace); ok && name == object.GetName() {
			return "this is its host", until
		}
		return "", until
	}
	if pods, isWorkload := podLabels(object); isWorkload {
		return t.keepsWorkload(object, pods, now)
	}
	return "", until
}

func (t traffic) keepsWorkload(object *unstructured.Unstructured, pods map[string]string, now time.Time) (why string, until time.Time) {
	if t.rollout.Status.Stable == "" && t.serves(pods) {
		return "may be the stable version, which is not known yet,", until
	}
	for _, use := range usesOf(t.rollout) {
		if !use.until.IsZero() && !now.Before(use.until) {
			continue
		}
		if t.runs(object, pods, use.version) && (why == "" || (use.until.IsZero() && !until.IsZero())) {
			why, until = fmt.Sprintf("%s is %s", use.version, use.as), use.until
		}
	}
	return why, until
}

// podLabels of an object that runs pods or stands for one; false for any other kind.
func podLabels(object *unstructured.Unstructured) (map[string]string, bool) {
	kind := object.GroupVersionKind()
	fields := map[string][]string{
		"apps/Deployment": {"spec", "template", "metadata", "labels"}, "apps/StatefulSet": {"spec", "template", "metadata", "labels"},
		"apps/DaemonSet": {"spec", "template", "metadata", "labels"}, "apps/ReplicaSet": {"spec", "template", "metadata", "labels"},
		"/Pod": {"metadata", "labels"}, "networking.istio.io/WorkloadEntry": {"spec", "labels"},
	}[kind.Group+"/"+kind.Kind]
	if fields == nil {
		return nil, false
	}
	set, _, _ := unstructured.NestedStringMap(object.Object, fields...)
	if set == nil {
		set = map[string]string{}
	}
	if kind.Kind == "WorkloadEntry" {
		maps.Copy(set, object.GetLabels()) // Istio selects by these as well
	}
	return set, true
}

// use is what a version is to a Rollout.
type use struct {
	version, as string
	until       time.Time
}

// usesOf lists the versions whose pods a Rollout needs, or needs for a while.
func usesOf(r *v1.Rollout) []use {
	status := &r.Status
	uses := []use{{version: status.Stable, as: "its stable version"}, {version: status.Canary, as: "its canary"}}
	if status.Stable == "" {
		uses = append(uses, use{version: r.Spec.InitialVersion, as: "its initial version"})
	}
	if status.Rejected == nil || status.Rejected.Version != r.Spec.Version {
		uses = append(uses, use{version: r.Spec.Version, as: "the version that it is to bring"})
	}
	if t := status.Traffic; t != nil {
		uses = append(uses, use{version: t.Stable.Version, as: "sent traffic by it"})
		if t.Canary != nil {
			uses = append(uses, use{version: t.Canary.Version, as: "sent traffic by it"})
		}
	}
	if until := previousUntil(r); !until.IsZero() {
		uses = append(uses, use{status.Previous, "its version before, which it keeps until " + until.UTC().Format(time.RFC3339), until})
	}
	return slices.DeleteFunc(uses, func(u use) bool { return u.version == "" })
}

// previousUntil is when the version before may go; zero without one.
func previousUntil(r *v1.Rollout) time.Time {
	keep := DefaultKeepPrevious
	if r.Spec.KeepPrevious != nil {
		keep = r.Spec.KeepPrevious.Duration
	}
	status := &r.Status
	if status.Previous == "" || keep <= 0 {
		return time.Time{}
	}
	for _, run := range status.History {
		if run.To == status.Stable && (run.Verdict == v1.ReasonPromoted || run.Verdict == v1.ReasonReturned) {
			return run.FinishedAt.Add(keep)
		}
	}
	if status.Since == nil {
		return time.Time{}
	}
	return status.Since.Add(keep) // the record had no room in status
}

// runs tells whether a workload's pods are of a version: the spec names the workload, or the Service selects its pods and they
// bear labels that the version may have. Without a Service, which says nothing then, and for a version with a host of its own, the
// labels alone count.
func (t traffic) runs(object *unstructured.Unstructured, pods map[string]string, version string) bool {
	listed := slices.IndexFunc(t.rollout.Spec.Versions, func(v v1.Version) bool { return v.Name == version })
	if listed >= 0 {
		if w := t.rollout.Spec.Versions[listed].Workload; w != nil && w.Name == object.GetName() && (w.Kind == object.GetKind() || (w.Kind == "" && object.GetKind() == "Deployment")) {
			return true
		}
	}
	if elsewhere := t.rollout.Spec.DestinationOf(version) != nil; t.service != nil && !elsewhere && !t.serves(pods) {
		return false
	}
	return slices.ContainsFunc(labelsOf(t.rollout, version), func(set map[string]string) bool {
		return labels.SelectorFromSet(set).Matches(labels.Set(pods))
	})
}

// serves tells whether the host's Service selects pods.
func (t traffic) serves(pods map[string]string) bool {
	return t.service != nil && len(t.service.Spec.Selector) > 0 && labels.SelectorFromSet(t.service.Spec.Selector).Matches(labels.Set(pods))
}

// labelsOf are all sets of labels by which a version's pods may be known.
func labelsOf(r *v1.Rollout, version string) []map[string]string {
	subset := mesh.SubsetName(version)
	var sets []map[string]string
	add := func(set map[string]string) {
		if len(set) > 0 {
			sets = append(sets, set)
		}
	}
	for _, v := range r.Spec.Versions {
		if v.Name == version {
			add(v.Labels)
			if v.Subset != "" {
				subset = v.Subset
			}
		}
	}
	if t := r.Status.Traffic; t != nil {
		for _, target := range []*v1.Target{&t.Stable, t.Canary} {
			if target != nil && target.Version == version {
				add(target.Labels)
			}
		}
	}
	for _, s := range r.Status.Subsets {
		if s.Name == subset {
			add(s.Labels)
		}
	}
	add(map[string]string{"version": version})
	return sets
}
