// Package sidecar is a small stand-in for Envoy: a proxy that speaks the
// aggregated discovery service (state of the world, v3) to istiod and obeys
// what it is sent, on loopback addresses.
//
// It knows nothing about Kubernetes or Istio objects: listeners, routes,
// clusters, endpoints, faults, timeouts, retries, mirrors, rewrites, CORS, load
// balancing, connection pools and outlier detection all come from istiod, so
// that a test through it asserts on what istiod made of the objects. It reports
// Istio's standard metrics of HTTP, gRPC and TCP for both reporters.
//
// No iptables redirect traffic here. Requests enter by the outbound HTTP proxy
// (Client), connections by its method CONNECT (DialTCP); either way the
// service's name and port find the listener that a redirected connection would
// have met, and its filter chains decide, after the first bytes where they ask
// for it. Hosts outside the mesh are what Options.Resolve makes of them.
//
// What it leaves out, or does in its own way:
//   - Mutual TLS of the mesh. Proxies of one process know each other by their
//     addresses instead, and connections are reported as plain text.
//   - TLS is passed on by server name, ended at gateways with the certificate of
//     Options.Certificate (clients' are not asked for), and begun towards hosts
//     outside the mesh without verifying theirs.
//   - Requests are read whole before they are sent on, because of retries and
//     mirrors: no streams from clients, no upgrades (WebSocket).
//   - Connections stay with their host for life; Envoy closes those of a filter
//     chain that was replaced after 45 s.
//   - HTTP filters other than fault, CORS, JWT, RBAC, the local rate limit and the
//     router are not obeyed; the log names each once. Routes, matches and chains that it does not know make it
//     refuse the whole response, which istiod tells of.
package sidecar
