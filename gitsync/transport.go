package gitsync

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

const (
	// maxAdvertisement bounds the list of refs: about 200 000 of them.
	maxAdvertisement = 16 << 20
	// maxErrorBody bounds what is read of an answer that is not 2xx.
	maxErrorBody   = 4 << 10
	maxHeaderBytes = 64 << 10
)

// errTooLarge is what a server's answer ends in that is longer than allowed.
var errTooLarge = errors.New("the answer is larger than allowed")

// Addresses from which clouds hand out the credentials of the machine, beside the link-local ones.
var metadataAddresses = map[netip.Addr]bool{
	netip.MustParseAddr("fd00:ec2::254"):   true,
	netip.MustParseAddr("100.100.100.200"): true,
	netip.MustParseAddr("168.63.129.16"):   true,
	netip.MustParseAddr("192.0.0.192"):     true,
}

var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// checkAddress refuses addresses where no Git server lives but a cloud's metadata does.
func checkAddress(ip netip.Addr) error {
	ip = ip.Unmap().WithZone("")
	if nat64.Contains(ip) {
		raw := ip.As16()
		ip = netip.AddrFrom4([4]byte(raw[12:]))
	}
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || metadataAddresses[ip] {
		return fmt.Errorf("address %s is refused: link-local, multicast and metadata addresses serve no repositories", ip)
	}
	return nil
}

// checkDial looks at the address that a name resolved to, at the moment of the connection, so that no second answer of DNS
// can slip in between.
func checkDial(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("dial %q: %w", address, err)
	}
	return checkAddress(target.Addr())
}

// newClient returns an HTTP client for the requests of one fetch; close frees its connections.
func newClient(source Source, maxBytes int64) (client *http.Client, free func(), err error) {
	tlsConfig, err := makeTLSConfig(source.Credentials.CA)
	if err != nil {
		return nil, nil, err
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second, Control: checkDial}
	transport := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSClientConfig:        tlsConfig,
		TLSHandshakeTimeout:    10 * time.Second,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true,
	}
	client = &http.Client{Transport: boundedTransport{base: transport, maxBytes: maxBytes}, CheckRedirect: checkRedirect}
	return client, transport.CloseIdleConnections, nil
}

func makeTLSConfig(ca []byte) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(ca) == 0 {
		return config, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("ca.crt holds no certificate: must be PEM")
	}
	config.RootCAs = roots
	return config, nil
}

// checkRedirect lets a server rename a repository or go from http to https, but not send the client elsewhere.
func checkRedirect(next *http.Request, via []*http.Request) error {
	origin := via[0].URL
	if !strings.EqualFold(next.URL.Hostname(), origin.Hostname()) {
		return fmt.Errorf("refused to follow a redirect from %s to another host, %s: set spec.url to where the repository is now", origin.Host, next.URL.Host)
	}
	upgrade := origin.Scheme == "http" && next.URL.Scheme == "https" && origin.Port() == "" && next.URL.Port() == ""
	if !upgrade && (next.URL.Scheme != origin.Scheme || next.URL.Port() != origin.Port()) {
		return fmt.Errorf("refused to follow a redirect from %s://%s to %s://%s", origin.Scheme, origin.Host, next.URL.Scheme, next.URL.Host)
	}
	return nil
}

// boundedTransport bounds what any answer may make the client read.
type boundedTransport struct {
	base     http.RoundTripper
	maxBytes int64
}

// RoundTrip implements http.RoundTripper.
func (t boundedTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.base.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	switch {
	case response.StatusCode >= http.StatusMultipleChoices:
		response.Body = bodyOf(io.LimitReader(response.Body, maxErrorBody), response.Body)
	case request.Method == http.MethodGet:
		response.Body = bodyOf(&boundedReader{r: response.Body, left: min(t.maxBytes, maxAdvertisement), what: "list of refs"}, response.Body)
	default:
		response.Body = bodyOf(&boundedReader{r: response.Body, left: t.maxBytes, what: "pack"}, response.Body)
	}
	return response, nil
}

func bodyOf(r io.Reader, c io.Closer) io.ReadCloser {
	return struct {
		io.Reader
		io.Closer
	}{r, c}
}

// boundedReader fails, rather than ends, at its limit: half a pack must not pass for a whole one.
type boundedReader struct {
	r    io.Reader
	left int64
	what string
	read int64
}

// Read implements io.Reader.
func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		if n, err := b.r.Read(make([]byte, 1)); n == 0 {
			return 0, err
		}
		return 0, fmt.Errorf("%w: the %s is over %d bytes", errTooLarge, b.what, b.read)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	b.read += int64(n)
	return n, err
}

// contextReader ends when its context does, whatever the reader below it does between two reads.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

// Read implements io.Reader.
func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
