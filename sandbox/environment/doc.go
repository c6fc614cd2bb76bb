// Package environment brings a namespace of a sandbox's control plane to life.
// No kubelet and no controller-manager run there: for each Deployment of the
// namespace it starts apps with their sidecars in this process, registers them
// as WorkloadEntries, lets Prometheus scrape them, and keeps the Deployment's
// status. So a Deployment that is pushed through Git comes up.
//
// It plays the cluster's part only: it never writes routes, rules or Rollouts.
package environment
