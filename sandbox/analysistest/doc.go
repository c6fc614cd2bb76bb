// Package analysistest tests what the analysis makes of a real Prometheus that scrapes an exporter whose every
// series the test controls: what the queries mean, and what becomes of outages and of queries that are wrong.
//
// It knows no mesh and no Kubernetes; the timing of samples is tested beside the analysis itself.
package analysistest
