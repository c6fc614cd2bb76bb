// Package bookinfo holds small servers in the shape of the apps that Istio's
// tutorials use. First of all its bookinfo sample: productpage calls details
// and reviews, reviews calls ratings (v1 does not); they pass on the headers
// that routing and tracing need and keep the sample's timeouts. Beside it
// httpbin, tcp-echo, the chain customer, preference, recommendation, and an
// echo over gRPC. All tell their version, and can be told to misbehave.
//
// They know nothing about the mesh: their HTTP client decides where calls go.
package bookinfo
