// Package bookinfo holds small servers in the shape of Istio's bookinfo sample:
// productpage calls details and reviews, reviews calls ratings (v1 does not).
// They pass on the headers that routing and tracing need, keep the sample's
// timeouts, and can be told to misbehave.
//
// They know nothing about the mesh: their HTTP client decides where calls go.
package bookinfo
