// Package kube applies YAML manifests to an API server, the way `kubectl apply
// --server-side` does, for the sandbox and its tests. It knows no kind but the
// CustomResourceDefinition, which it waits for.
package kube
