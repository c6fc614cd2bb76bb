package bookinfo

import _ "embed" // for the manifests

// Manifests are the Services and Deployments of all apps: productpage, details
// and ratings v1, reviews v1, v2 and v3. They name no namespace.
//
//go:embed bookinfo.yaml
var Manifests []byte

// GatewayManifests are the sample's Gateway on port 80 and the VirtualService
// that lets productpage's paths through it.
//
//go:embed gateway.yaml
var GatewayManifests []byte
