package sidecar

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
)

const (
	blackHoleCluster = "BlackHoleCluster"
	// defaultIdle is Envoy's for connections that nothing passes through.
	defaultIdle = time.Hour
)

// stream is one connection of a client's that is passed on as bytes.
type stream struct {
	proxy *Proxy
	conn  net.Conn
	spec  *tcpv3.TcpProxy
	to    string // where the client wanted to go, host:port
	flow  flow
}

// serveStream passes a connection on to a cluster, until both sides have ended.
// What was chosen stays for the connection's life, whatever discovery says
// later.
func (p *Proxy) serveStream(conn net.Conn, spec *tcpv3.TcpProxy, to string) {
	s := &stream{proxy: p, conn: conn, spec: spec, to: to, flow: flow{reporter: reporterSource, source: p.self, service: service{Host: to}}}
	upstream, leave := s.connect()
	p.metrics.opened(&s.flow)
	defer p.metrics.closed(&s.flow)
	defer leave()
	if upstream == nil {
		_ = conn.Close()
		return
	}
	p.splice(conn, upstream, &s.flow, idleTimeout(spec))
}

func idleTimeout(spec *tcpv3.TcpProxy) time.Duration {
	return durationOr(spec.GetIdleTimeout(), defaultIdle)
}

// drawCluster gives the cluster's name, drawn by weight where there are several.
func drawCluster(spec *tcpv3.TcpProxy) string {
	weighted := spec.GetWeightedClusters().GetClusters()
	total := uint32(0)
	for _, c := range weighted {
		total += c.GetWeight()
	}
	if total == 0 {
		return spec.GetCluster()
	}
	n := rand.Uint32N(total)
	for _, c := range weighted {
		if n < c.GetWeight() {
			return c.GetName()
		}
		n -= c.GetWeight()
	}
	return ""
}

// connect chooses a host and connects to it; without a connection the flow's
// flags tell why. leave gives back the place in the cluster's pool.
func (s *stream) connect() (upstream net.Conn, leave func()) {
	nothing := func() {}
	name := drawCluster(s.spec)
	c := s.proxy.snapshot.Load().clusters[name]
	if c == nil {
		s.flow.flag(flagNoCluster)
		return nil, nothing
	}
	s.flow.service = c.service
	if c.service.Host == "" {
		s.flow.service = service{Host: s.to, Name: name}
	}
	if !c.pool.enterStream() {
		s.flow.flag(flagOverflow)
		return nil, nothing
	}
	for range max(s.spec.GetMaxConnectAttempts().GetValue(), 1) {
		upstream, err := s.attempt(c)
		if err == nil {
			return upstream, c.pool.leaveStream
		}
		if errors.Is(err, errNoHost) {
			c.pool.leaveStream()
			s.flow.flag(flagNoHealthyUpstream)
			return nil, nothing
		}
	}
	c.pool.leaveStream()
	s.flow.flag(flagConnectFailure, flagRetryLimitExceeded)
	return nil, nothing
}

var errNoHost = errors.New("no healthy upstream")

func (s *stream) attempt(c *cluster) (net.Conn, error) {
	chosen := c.pickFor(s.to, time.Now())
	if chosen == nil {
		return nil, errNoHost
	}
	s.flow.destination = s.proxy.peerAt(chosen)
	ctx, cancel := context.WithTimeout(s.proxy.ctx, durationOr(c.spec.GetConnectTimeout(), 5*time.Second))
	defer cancel()
	upstream, err := s.proxy.dialUpstream(ctx, chosen.address)
	var unknown *net.DNSError
	switch {
	case errors.As(err, &unknown) && c.spec.GetType() != clusterv3.Cluster_ORIGINAL_DST:
		s.flow.destination = peer{}
		return nil, errNoHost // Envoy has no host for a name that does not resolve
	case err != nil:
		c.observe(chosen, 503, time.Now())
		return nil, err
	}
	c.observe(chosen, 200, time.Now())
	return c.wire.begin(ctx, upstream)
}

// pickFor is pick for a connection to an address; clusters of original
// destinations have no hosts of their own.
func (c *cluster) pickFor(to string, now time.Time) *host {
	if c.spec.GetType() == clusterv3.Cluster_ORIGINAL_DST {
		return &host{address: withPort(to), healthy: true}
	}
	return c.pick(now, nil, "")
}

// dialUpstream connects from the pod's own address, by which the other side
// knows who is there.
func (p *Proxy) dialUpstream(ctx context.Context, address string) (net.Conn, error) {
	found, err := p.resolve(address)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(p.options.Address)}}
	return dialer.DialContext(ctx, "tcp", found)
}

// splice copies both ways until both directions have ended, nothing passes for
// the idle time, or the proxy is closed.
func (p *Proxy) splice(client, upstream net.Conn, f *flow, idle time.Duration) {
	closeBoth := func() {
		_ = client.Close()
		_ = upstream.Close()
	}
	defer closeBoth()
	defer context.AfterFunc(p.ctx, closeBoth)()
	var expiry *time.Timer
	if idle > 0 {
		expiry = time.AfterFunc(idle, closeBoth)
		defer expiry.Stop()
	}
	counted := func(count func(int)) func(int) {
		return func(n int) {
			count(n)
			if expiry != nil {
				expiry.Reset(idle)
			}
		}
	}
	var both sync.WaitGroup
	both.Go(func() { pump(upstream, client, counted(p.metrics.received(f)), closeBoth) })
	both.Go(func() { pump(client, upstream, counted(p.metrics.sent(f)), closeBoth) })
	both.Wait()
}

// pump copies one direction and passes its end on; a failure ends both.
func pump(to, from net.Conn, count func(int), fail func()) {
	if _, err := io.Copy(countingWriter{to, count}, from); err != nil {
		fail()
		return
	}
	_ = closeWrite(to) // the other side may be gone
}

type countingWriter struct {
	io.Writer
	count func(int)
}

func (w countingWriter) Write(b []byte) (int, error) {
	n, err := w.Writer.Write(b)
	w.count(n)
	return n, err
}

// workloads knows the pods of this process by their addresses. It stands in
// for what proxies tell each other over mutual TLS, which there is none of here.
var workloads sync.Map // string to peer

// peerAt is what is known of an endpoint's workload.
func (p *Proxy) peerAt(h *host) peer {
	if known, ok := peerByAddress(h.address); ok {
		return known
	}
	return h.peer
}

func peerByAddress(address string) (peer, bool) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return peer{}, false
	}
	known, ok := workloads.Load(host)
	if !ok {
		return peer{}, false
	}
	return known.(peer), true //nolint:forcetypeassert // nothing else is stored
}

// enterStream takes one of the connections that the circuit breaker allows.
// Envoy closes what comes beyond, without waiting.
func (p *pool) enterStream() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open+p.streams >= p.maxConnections {
		p.refused++
		return false
	}
	p.streams++
	return true
}

func (p *pool) leaveStream() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams--
}
