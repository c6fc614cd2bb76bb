// Package webhook is where forges and CI say that there is something to fetch: POST /hooks/gitsync/NAMESPACE/NAME.
//
// A delivery is verified over its raw body by the provider's own signature, and then only ever means "fetch now": nothing that
// it says is acted on. Every replica verifies and marks the GitSync's status; the leader sees the mark and fetches. The package
// knows no Git and applies nothing, and it does not tell strangers which GitSyncs there are.
package webhook
