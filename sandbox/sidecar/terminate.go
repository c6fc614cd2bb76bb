package sidecar

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// terminate answers a client's TLS with the certificate that the filter chain
// names. istiod would hand that out over secure gRPC only, so Options.Certificate
// does. Clients' certificates are not asked for.
func (p *Proxy) terminate(conn net.Conn, c *chain) (net.Conn, error) {
	var spec tlsv3.DownstreamTlsContext
	if err := c.secure.GetTypedConfig().UnmarshalTo(&spec); err != nil {
		return nil, fmt.Errorf("transport socket %q: %w", c.secure.GetName(), err)
	}
	names := spec.GetCommonTlsContext().GetTlsCertificateSdsSecretConfigs()
	if len(names) == 0 || p.options.Certificate == nil {
		return nil, errors.New("TLS without a certificate that this proxy can get")
	}
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	certificate, err := p.options.Certificate(ctx, names[0].GetName())
	if err != nil {
		return nil, fmt.Errorf("certificate %q: %w", names[0].GetName(), err)
	}
	secured := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	if err := secured.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return secured, nil
}
