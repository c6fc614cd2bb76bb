// Package crd holds the generated CustomResourceDefinitions, so that manifests can be validated without a cluster.
package crd

import "embed"

// Files are the CRDs, one in each.
//
//go:embed sluice.dev_*.yaml
var Files embed.FS
