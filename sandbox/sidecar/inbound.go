package sidecar

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// inboundPort is a port at which other proxies reach the application.
type inboundPort struct {
	name        string
	number      uint32 // that is listened on
	application string // host:port
}

// serviceBehind gives the service that istiod knows behind a port of the pod.
func (p *Proxy) serviceBehind(port uint32) (service, bool) {
	c := p.snapshot.Load().clusters[fmt.Sprintf("inbound|%d||", port)]
	if c == nil || c.service.Host == "" {
		return service{}, false
	}
	return c.service, true
}

// serveInbound passes a request on to the application and reports it as its
// destination.
func (p *Proxy) serveInbound(w http.ResponseWriter, r *http.Request, to inboundPort, filters []httpFilter) {
	e := newExchange(reporterDestination, r)
	e.destination = p.self
	defer p.metrics.record(e)
	other, exchanged := takePeer(r.Header)
	e.source = other
	if s, ok := p.serviceBehind(to.number); ok {
		e.service = s
	}
	if exchanged {
		w.Header().Set(peerHeader, p.encoded)
		w.Header().Set(peerIDHeader, p.nodeID)
	}
	if e.filtered(w, &facts{request: r, source: other, remote: r.RemoteAddr, port: to.number}, filters) {
		return
	}
	request := r.Clone(r.Context())
	dropHopHeaders(request.Header)
	if isGRPC(request.Header) {
		request.Header.Set("Te", "trailers")
	}
	request.RequestURI = ""
	request.URL.Scheme, request.URL.Host = "http", to.application
	response, err := p.transportFor(r).RoundTrip(request)
	if err != nil {
		if r.Context().Err() != nil {
			e.flag(flagDownstreamClosed)
			return
		}
		e.flag(flagConnectFailure)
		e.answer(w, http.StatusServiceUnavailable, "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure")
		return
	}
	takePeer(response.Header) // an application does not speak for a proxy
	e.relay(w, response)
}

// transportFor gives the transport for the protocol that a request came by.
func (p *Proxy) transportFor(r *http.Request) *http.Transport {
	if r.ProtoMajor == 2 {
		return p.transport2
	}
	return p.transport
}

// serveInboundStream passes a connection on to the application and reports it
// as its destination.
func (p *Proxy) serveInboundStream(conn net.Conn, to inboundPort) {
	f := &flow{reporter: reporterDestination, destination: p.self, service: service{Host: conn.LocalAddr().String(), Name: "InboundPassthroughCluster"}}
	if s, ok := p.serviceBehind(to.number); ok {
		f.service = s
	}
	f.source, _ = peerByAddress(conn.RemoteAddr().String())
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	upstream, err := (&net.Dialer{}).DialContext(ctx, "tcp", to.application)
	cancel()
	if err != nil {
		f.flag(flagConnectFailure, flagRetryLimitExceeded)
	}
	p.metrics.opened(f)
	defer p.metrics.closed(f)
	if err != nil {
		_ = conn.Close()
		return
	}
	p.splice(conn, upstream, f, defaultIdle)
}
