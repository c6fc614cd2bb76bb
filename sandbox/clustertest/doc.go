// Package clustertest runs the examples whose effect lies in Envoy's own filters and certificates (21, 22, 23 and 26), which the
// sandbox's proxies lack or only imitate, in a cluster of one's own with a real Istio, and asserts on what clients see there. Without
// SLUICE_E2E=cluster it does nothing.
//
//	SLUICE_E2E=cluster KUBECONFIG=... PROMETHEUS_URL=http://127.0.0.1:9090 make test-cluster
//
// The cluster, kind's for instance, has Istio in sidecar mode and its Prometheus addon, which is reached at PROMETHEUS_URL
// (`kubectl -n istio-system port-forward svc/prometheus 9090`), and no operator of Sluice: the tests install the CRDs and the rights
// of config/, and run the operator and a Git server on this machine, on loopback. kubectl and git are those of the PATH.
// The manifests are the examples' own but for the gates' window: a minute, as the addon scrapes every 15 s.
// Each test has a namespace with sidecar injection, which is deleted at its end; a client pod there sends the requests, by kubectl exec.
//
// No real cluster has seen these tests yet (2026-11-21). Against the sandbox's servers and proxies, with kubectl exec redirected to a proxy of
// the mesh, 22 and 26 passed, 21 but for what the egress gateway's pod does, and 23 but for the certificates.
package clustertest
