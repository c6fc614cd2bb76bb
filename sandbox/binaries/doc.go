// Package binaries builds the real servers that the sandbox runs (Kubernetes'
// API server and kubectl, etcd, Istio's control plane, Prometheus) from the
// module sandbox/servers, and fetches Istio's CRDs of the same version.
//
// They are built once into the user's cache folder, keyed by what they are
// built from, so that every later clone on the machine starts at once. A key
// that is no longer used can be deleted by hand: <cache>/sluice/servers-*.
package binaries
