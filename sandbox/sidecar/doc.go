// Package sidecar is a small stand-in for Envoy: a proxy that speaks the
// aggregated discovery service (state of the world, v3) to istiod and obeys
// what it is sent, for HTTP traffic on loopback addresses.
//
// It knows nothing about Kubernetes or Istio objects: routes, clusters,
// endpoints, faults, timeouts, retries, mirrors, connection pools and outlier
// detection all come from istiod, so that a test through it asserts on what
// istiod made of the objects. It reports Istio's standard metrics for both
// reporters. TLS, HTTP/2 and TCP filter chains of its own outbound side are
// not part of it.
package sidecar
