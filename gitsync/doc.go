// Package gitsync brings the manifests of a Git repository into a cluster: it fetches a commit into memory, decodes every
// manifest below a path, tries the whole revision on the API server without writing, applies it as the service account that the
// GitSync names, and prunes what left the repository.
//
// What a Rollout drives in the mesh it takes as found, and what a Rollout's traffic needs it leaves; how a rollout proceeds it
// does not know.
package gitsync
