package v1

import (
	"slices"
	"strings"
)

// ClusterDomain is the DNS suffix of Services.
const ClusterDomain = "svc.cluster.local"

// RevisionLabels are the labels of pods that Istio takes a workload's canonical revision from; the first that is there counts.
var RevisionLabels = []string{"service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"}

// HostKey is the name that Istio gives a host of a namespace's VirtualService or DestinationRule: a name without dots is a
// Service of that namespace, any other name stands as it is. Hosts are the same when their keys are.
func HostKey(host, namespace string) string {
	host = strings.ToLower(host)
	if strings.Contains(host, ".") || host == "*" || host == "" {
		return host
	}
	return host + "." + namespace + "." + ClusterDomain
}

// DestinationOf is the host that a listed version has of its own; nil: it is a subset of the Rollout's.
func (s *RolloutSpec) DestinationOf(version string) *Destination {
	for i := range s.Versions {
		if s.Versions[i].Name == version {
			return s.Versions[i].Destination
		}
	}
	return nil
}

// HostKeys are the keys of the Rollout's hosts: its own first, then those that versions have of their own, by its spec and by
// the traffic that is committed.
func (r *Rollout) HostKeys() []string {
	hosts := []string{r.Spec.Host}
	for i := range r.Spec.Versions {
		if d := r.Spec.Versions[i].Destination; d != nil {
			hosts = append(hosts, d.Host)
		}
	}
	if t := r.Status.Traffic; t != nil {
		hosts = append(hosts, t.Stable.Host)
		if t.Canary != nil {
			hosts = append(hosts, t.Canary.Host)
		}
	}
	var keys []string
	for _, host := range hosts {
		if key := HostKey(host, r.Namespace); host != "" && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// Same tells whether two targets are one place in the mesh of a namespace.
func (t Target) Same(other Target, namespace string) bool {
	return t.Subset == other.Subset && HostKey(t.Host, namespace) == HostKey(other.Host, namespace) && t.Port == other.Port
}

// SendsTo tells whether a route named a version's subset or own host, and its port if it named a version's, when it was found.
func (r ManagedRoute) SendsTo(t Target, namespace string) bool {
	if r.Host != "" {
		return t.Host != "" && r.Host == HostKey(t.Host, namespace) && (r.Port == 0 || r.Port == t.Port)
	}
	return t.Host == "" && r.Subset == t.Subset
}
