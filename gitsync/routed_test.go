package gitsync

import "testing"

// Which routes send something to a subset of the host.
func TestSends(t *testing.T) {
	for spec, want := range map[string]bool{
		"{http: [{route: [{destination: {host: reviews, subset: v3}}]}]}":                                                                             true,
		"{http: [{route: [{destination: {host: reviews.ns.svc.cluster.local, subset: v3}, weight: 1}, {destination: {host: reviews}, weight: 99}]}]}": true,
		"{tcp: [{route: [{destination: {host: reviews, subset: v3}}]}]}":                                                                              true,
		"{tls: [{route: [{destination: {host: reviews, subset: v3}}]}]}":                                                                              true,
		"{http: [{route: [{destination: {host: x}}], mirror: {host: reviews, subset: v3}}]}":                                                          true,
		"{http: [{route: [{destination: {host: x}}], mirrors: [{destination: {host: reviews, subset: v3}}]}]}":                                        true,
		"{http: [{route: [{destination: {host: reviews, subset: v3}, weight: 0}, {destination: {host: reviews, subset: v1}, weight: 100}]}]}":         false,
		"{http: [{route: [{destination: {host: ratings, subset: v3}}]}]}":                                                                             false,
		"{http: [{redirect: {uri: /}}]}": false,
		"{}":                             false,
	} {
		object := mustDecode(t, "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: r, namespace: ns}, spec: "+spec+"}")[0].Object
		if got := sends(*object, "reviews", "v3"); got != want {
			t.Errorf("%s: %t", spec, got)
		}
	}
}
