// Package controlplane starts everything that Sluice talks to, as real programs
// on loopback: etcd, Kubernetes' API server, Istio's control plane, Prometheus
// and a Git server. It knows nothing of the applications in the mesh.
//
// What a cluster has and this one has not: there is no controller-manager, so
// nothing creates default ServiceAccounts (see CreateNamespace), fills the
// aggregated ClusterRoles (admin, edit, view), collects garbage by owner
// reference, finishes the deletion of namespaces, or runs Deployments.
package controlplane
