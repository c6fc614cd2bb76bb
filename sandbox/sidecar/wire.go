package sidecar

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

// wire is how a cluster's hosts are spoken to.
type wire struct {
	http2, downstream bool // HTTP/2 always, or where the client does
	secure            bool // TLS that the proxy begins
	serverName        string
}

// readWire reads a cluster's protocol and its TLS. Mutual TLS of the mesh is
// not part of it: nobody here has a certificate for it, and both sides leave it
// out.
func readWire(spec *clusterv3.Cluster) (w wire) {
	var options httpv3.HttpProtocolOptions
	if config, ok := spec.GetTypedExtensionProtocolOptions()[httpProtocolOptions]; ok && config.UnmarshalTo(&options) == nil {
		w.http2 = options.GetExplicitHttpConfig().GetHttp2ProtocolOptions() != nil
		w.downstream = options.GetUseDownstreamProtocolConfig() != nil
	}
	var context tlsv3.UpstreamTlsContext
	if config := spec.GetTransportSocket().GetTypedConfig(); config != nil && config.UnmarshalTo(&context) == nil {
		w.secure = len(context.GetCommonTlsContext().GetTlsCertificateSdsSecretConfigs()) == 0 // with the mesh's own: mutual TLS
		w.serverName = firstOf(context.GetSni(), clusterService(spec.GetMetadata()).Host)
	}
	return w
}

// isHTTP2 tells how a request goes on that came by this version of HTTP.
func (w wire) isHTTP2(major int) bool { return w.http2 || w.downstream && major == 2 }

// tlsConfig does not verify the other side: its certificate is of the moment.
func (w wire) tlsConfig(protocols ...string) *tls.Config {
	return &tls.Config{ServerName: w.serverName, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, NextProtos: protocols}
}

// transportTo gives the transport for a request to a cluster.
func (p *Proxy) transportTo(c *cluster, major int) http.RoundTripper {
	switch {
	case c.wire.secure:
		made, _ := p.secure.LoadOrStore(c, p.secureTransport(c.wire))
		return made.(*http.Transport) //nolint:forcetypeassert // nothing else is stored
	case c.wire.isHTTP2(major):
		return p.transport2
	}
	return p.transport
}

func (p *Proxy) secureTransport(w wire) *http.Transport {
	return &http.Transport{
		DialContext: p.dialHTTP, DisableCompression: true, IdleConnTimeout: time.Minute,
		TLSClientConfig: w.tlsConfig(), ForceAttemptHTTP2: w.http2,
	}
}

// begin starts TLS on a connection to a cluster's host, where it says so.
func (w wire) begin(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if !w.secure {
		return conn, nil
	}
	secured := tls.Client(conn, w.tlsConfig())
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}

func (w wire) scheme() string {
	if w.secure {
		return "https"
	}
	return "http"
}
