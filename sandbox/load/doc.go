// Package load sends requests, to bookinfo's productpage or another app, at a fixed rate and
// counts what a user would have seen. It knows a URL and an HTTP client, not
// the mesh behind them.
package load
