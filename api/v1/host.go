package v1

import "strings"

// ClusterDomain is the DNS suffix of Services.
const ClusterDomain = "svc.cluster.local"

// HostKey is the name that Istio gives a host of a namespace's VirtualService or DestinationRule: a name without dots is a
// Service of that namespace, any other name stands as it is. Hosts are the same when their keys are.
func HostKey(host, namespace string) string {
	host = strings.ToLower(host)
	if strings.Contains(host, ".") || host == "*" || host == "" {
		return host
	}
	return host + "." + namespace + "." + ClusterDomain
}
