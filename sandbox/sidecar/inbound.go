package sidecar

import (
	"fmt"
	"net/http"
)

// serveInbound passes a request on to the application and reports it as its
// destination.
func (p *Proxy) serveInbound(w http.ResponseWriter, r *http.Request) {
	e := newExchange(reporterDestination, r)
	e.destination = p.self
	defer p.metrics.record(e)
	other, exchanged := takePeer(r.Header)
	e.source = other
	if c := p.snapshot.Load().clusters[fmt.Sprintf("inbound|%d||", p.inboundPort)]; c != nil && c.service.Host != "" {
		e.service = c.service
	}
	request := r.Clone(r.Context())
	dropHopHeaders(request.Header)
	request.RequestURI = ""
	request.URL.Scheme, request.URL.Host = "http", p.options.Application
	response, err := p.transport.RoundTrip(request)
	if exchanged {
		w.Header().Set(peerHeader, p.encoded)
		w.Header().Set(peerIDHeader, p.nodeID)
	}
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
