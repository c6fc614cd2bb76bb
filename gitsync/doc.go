// Package gitsync brings the manifests of a Git repository into a cluster: it fetches a commit into memory, decodes every
// manifest below a path, tries the whole revision on the API server without writing, and only then applies it as the
// service account that the GitSync names.
//
// It knows nothing of traffic: what a Rollout drives in the mesh is not its to write.
package gitsync
