// Package v1 holds the API of sluice.dev/v1: Rollout and GitSync, their validation, their conditions, and
// Traffic, the value that the pipeline decides, the status keeps and the mesh renders.
//
// It knows no client, no clock and no Prometheus.
//
// +kubebuilder:object:generate=true
// +groupName=sluice.dev
package v1
