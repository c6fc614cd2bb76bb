// Package controllers is the operator's I/O shell around the pure core: it observes a Rollout's world, lets the pipeline
// decide, commits the decision to status, and writes the mesh as the committed status says.
//
// It decides nothing by itself and renders nothing by itself. It knows no PromQL, reads no clock but the injected one,
// and never waits for Prometheus.
package controllers
