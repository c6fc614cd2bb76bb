// Package analysis measures. It turns a pipeline.Watch into the samples of its gates, by asking Prometheus, and into
// the result of its probe, by sending requests; both outside the reconcile, which it wakes when there is news.
//
// What a sample is worth is a pure function of Prometheus' answer and of the gate: the queries (queries.go), their
// times (grid.go), and the judging (judge.go, limits.go) do no I/O. What follows from a verdict is the pipeline's
// business; this package knows no Kubernetes object and no mesh.
package analysis
