// Command crdgen writes the CustomResourceDefinitions of api/v1.
//
// It is controller-gen's CRD generator with three additions: fields of Istio's Go types get the schema that Istio's own
// CRDs have for them, times and durations get the patterns that their Go types decode, and the markers of markers.go.
// It reads Go packages and Istio's CRDs, writes YAML, and knows nothing of what the fields mean.
package main
