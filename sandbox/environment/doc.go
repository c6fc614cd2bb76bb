// Package environment brings a namespace of a sandbox's control plane to life.
// No kubelet and no controller-manager run there: for each Deployment of the
// namespace it starts apps with their sidecars in this process, registers them
// as WorkloadEntries, lets Prometheus scrape them, and keeps the Deployment's
// status. So a Deployment that is pushed through Git comes up.
//
// A pod template says what comes up by what it would say in any cluster:
//   - the label app names the app (package bookinfo), or the annotation
//     sandbox.sluice.dev/app; an unknown one echoes what it was sent;
//   - each containerPort is served, at the pod's own address: by name as a
//     Service's port would be (grpc, tls and https; else HTTP, or TCP for tcp-echo);
//   - the label sidecar.istio.io/inject: "false" leaves the sidecar out;
//   - the annotation sandbox.sluice.dev/hosts lists hosts outside the mesh that
//     the pods stand for, such as api.partner.com;
//   - the annotation inject.istio.io/templates: gateway makes a gateway of it;
//   - the label istio-locality says where it is, as region.zone.
//
// It plays the cluster's part only: it never writes routes, rules or Rollouts.
package environment
