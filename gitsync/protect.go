package gitsync

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
)

// DefaultKeepPrevious is how long the version before stays after a run.
const DefaultKeepPrevious = time.Hour

// drained is how long after the decision to leave a version its pods stay in any case.
const drained = 30 * time.Second

// traffic is what of a Rollout keeps objects of its namespace from being pruned.
type traffic struct {
	rollout *v1.Rollout
	// services of the hosts, the Rollout's and those that versions have of their own, by the hosts' keys.
	services map[string]*corev1.Service
}

// keeps says why an object may not be taken from under the Rollout's traffic; empty: it may. until is when that ends by itself;
// zero: with a change of the Rollout.
func (t traffic) keeps(object *unstructured.Unstructured, now time.Time) (why string, until time.Time) {
	if isNamespace(object) {
		return "it is in this namespace", until
	}
	if hosts := hostsOf(object); len(hosts) > 0 {
		return t.keepsHost(hosts, now)
	}
	if pods, isWorkload := podLabels(object); isWorkload {
		return t.keepsWorkload(object, pods, now)
	}
	return "", until
}

// hostsOf are the keys of the hosts that a Service or ServiceEntry stands for; none for any other kind.
func hostsOf(object *unstructured.Unstructured) (keys []string) {
	switch kind := object.GroupVersionKind(); {
	case kind.Group == "" && kind.Kind == "Service":
		keys = append(keys, v1.HostKey(object.GetName(), object.GetNamespace()))
	case kind.Group == "networking.istio.io" && kind.Kind == "ServiceEntry":
		hosts, _, _ := unstructured.NestedStringSlice(object.Object, "spec", "hosts")
		for _, host := range hosts {
			keys = append(keys, v1.HostKey(host, object.GetNamespace()))
		}
	}
	return keys
}

// keepsHost: the Rollout's own host is kept for as long as the Rollout is there, that of a version for as long as the version.
func (t traffic) keepsHost(keys []string, now time.Time) (why string, until time.Time) {
	stands := func(host string) bool {
		return slices.ContainsFunc(keys, func(key string) bool {
			return key == host || mesh.Wildcard(key) && strings.HasSuffix(host, key[1:])
		})
	}
	if stands(v1.HostKey(t.rollout.Spec.Host, t.rollout.Namespace)) {
		return "this is its host", until
	}
	if t.rollout.Status.Stable == "" && slices.ContainsFunc(t.rollout.HostKeys(), stands) {
		return "may be the host of the stable version, which is not known yet,", until
	}
	return t.longest(now, func(version string) bool { return slices.ContainsFunc(hostsOfVersion(t.rollout, version), stands) }, "the host of %s, which is %s")
}

// hostsOfVersion are the keys of a version's own hosts, by the spec and by the traffic that is committed.
func hostsOfVersion(r *v1.Rollout, version string) (keys []string) {
	if d := r.Spec.DestinationOf(version); d != nil {
		keys = append(keys, v1.HostKey(d.Host, r.Namespace))
	}
	if t := r.Status.Traffic; t != nil {
		for _, target := range []*v1.Target{&t.Stable, t.Canary} {
			if target != nil && target.Version == version && target.Host != "" {
				keys = append(keys, v1.HostKey(target.Host, r.Namespace))
			}
		}
	}
	return keys
}

func (t traffic) keepsWorkload(object *unstructured.Unstructured, pods map[string]string, now time.Time) (why string, until time.Time) {
	served := func(host string) bool { return t.serves(host, pods) }
	if t.rollout.Status.Stable == "" && slices.ContainsFunc(t.rollout.HostKeys(), served) {
		return "may be the stable version, which is not known yet,", until
	}
	return t.longest(now, func(version string) bool { return t.runs(object, pods, version) }, "%s is %s")
}

// longest is the use that lasts longest of the versions that something is for.
func (t traffic) longest(now time.Time, is func(version string) bool, format string) (why string, until time.Time) {
	for _, use := range usesOf(t.rollout) {
		if !use.until.IsZero() && !now.Before(use.until) {
			continue
		}
		if is(use.version) && (why == "" || (use.until.IsZero() && !until.IsZero())) {
			why, until = fmt.Sprintf(format, use.version, use.as), use.until
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
	if left, until := justLeft(r); left != "" {
		uses = append(uses, use{left, "what it left a moment ago: proxies hear of it until " + until.UTC().Format(time.RFC3339), until})
	}
	return slices.DeleteFunc(uses, func(u use) bool { return u.version == "" })
}

// justLeft is the version that a run which went back, or an instant return, has taken all traffic from. Status says so before the
// routes are written, and they are before proxies know them. A run that was promoted had no traffic left on the version before.
func justLeft(r *v1.Rollout) (version string, until time.Time) {
	if len(r.Status.History) == 0 {
		return "", until
	}
	run := r.Status.History[0]
	until = run.FinishedAt.Add(drained)
	switch run.Verdict {
	case v1.ReasonPromoted:
		return "", until
	case v1.ReasonReturned:
		return run.From, until
	default:
		return run.To, until
	}
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
// bear labels that the version may have. Without a Service, which says nothing then, the labels alone count. Of a version with a
// host of its own are also the pods that the Service of that host selects.
func (t traffic) runs(object *unstructured.Unstructured, pods map[string]string, version string) bool {
	listed := slices.IndexFunc(t.rollout.Spec.Versions, func(v v1.Version) bool { return v.Name == version })
	if listed >= 0 {
		if w := t.rollout.Spec.Versions[listed].Workload; w != nil && w.Name == object.GetName() && (w.Kind == object.GetKind() || (w.Kind == "" && object.GetKind() == "Deployment")) {
			return true
		}
	}
	own := hostsOfVersion(t.rollout, version)
	if slices.ContainsFunc(own, func(host string) bool { return t.serves(host, pods) }) {
		return true
	}
	if host := v1.HostKey(t.rollout.Spec.Host, t.rollout.Namespace); len(own) == 0 && t.services[host] != nil && !t.serves(host, pods) {
		return false
	}
	return slices.ContainsFunc(labelsOf(t.rollout, version), func(set map[string]string) bool {
		return labels.SelectorFromSet(set).Matches(labels.Set(pods))
	})
}

// serves tells whether the Service of a host selects pods.
func (t traffic) serves(host string, pods map[string]string) bool {
	service := t.services[host]
	return service != nil && len(service.Spec.Selector) > 0 && labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(pods))
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
