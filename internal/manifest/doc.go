// Package manifest reads Kubernetes objects from files and remembers where each field of them stands, so that what is said of
// an object can name file, line and column.
//
// It knows no cluster and no kind.
package manifest
