package capabilities

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"testing"
)

// asking is a client that ends TLS with the pods themselves, each time over a new connection that asks for a name.
func (d dialer) asking(name string) visitor {
	return visitor{client: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d(ctx) },
		TLSClientConfig:   &tls.Config{ServerName: name, InsecureSkipVerify: true}, // the stand-in signs its own
	}}}
}

// TestTLSByName: connections that nobody but the pods decrypts follow the weights, by whichever of the Service's names they ask.
func TestTLSByName(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "tls-by-name"})
	const target = "https://httpbin:8443/headers"
	var pods dialer = func(ctx context.Context) (net.Conn, error) { return s.DialTCP(ctx, "httpbin:8443") }
	names := []visitor{pods.asking("httpbin"), pods.asking("httpbin." + s.Namespace + ".svc.cluster.local")}
	for _, v := range names {
		v.waitServed(t, "v1", target)
	}
	s.pushVersion(t, "rollout.yaml", "v2")
	s.stayIn(t, "httpbin", "half")
	for _, v := range names {
		v.waitSplit(t, map[string]float64{"v1": 0.5, "v2": 0.5}, target)
	}
	if a, err := pods.asking("other.example.com").try(t.Context(), target); err == nil {
		t.Errorf("who asks for another name was answered %d by %s", a.status, a.version)
	}
	s.revert(t)
	s.waitHealthy(t, "httpbin", "v1")
	for _, v := range names {
		v.waitServed(t, "v1", target)
	}
	s.goOn(t, "httpbin")
	s.pushVersion(t, "rollout.yaml", "v2")
	s.waitHealthy(t, "httpbin", "v2")
	for _, v := range names {
		v.waitServed(t, "v2", target)
	}
}
