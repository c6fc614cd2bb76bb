package sidecar

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// maxBody bounds what is buffered of a request so that it can be sent again
// and mirrored.
const maxBody = 8 << 20

// serve answers one request from the application, or from outside the mesh at
// a gateway, by the route configuration of that name.
func (p *Proxy) serve(w http.ResponseWriter, r *http.Request, config string, filters []httpFilter) {
	e := newExchange(reporterSource, r)
	e.source = p.self
	defer p.metrics.record(e)
	defer func() {
		if errors.Is(context.Cause(r.Context()), context.Canceled) && e.code == 0 {
			e.flag(flagDownstreamClosed)
		}
	}()
	takePeer(r.Header) // nobody may pretend to be another workload
	_, port := splitAuthority(r.Host)
	if e.filtered(w, &facts{request: r, remote: r.RemoteAddr, port: port}, filters) {
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		e.answer(w, http.StatusRequestEntityTooLarge, err.Error())
		return
	}
	snapshot := p.snapshot.Load()
	table := snapshot.routes[config]
	if table == nil {
		p.serveUnrouted(w, r, e, body)
		return
	}
	found := table.find(r)
	if found == nil {
		e.flag(flagNoRoute)
		e.answer(w, http.StatusNotFound, "")
		return
	}
	p.follow(w, r, e, found, snapshot, body)
}

func (p *Proxy) follow(w http.ResponseWriter, r *http.Request, e *exchange, found *route, snapshot *snapshot, body []byte) {
	switch action := found.spec.GetAction().(type) {
	case *routev3.Route_DirectResponse:
		choice{route: found}.respond(w.Header())
		if found.host.GetName() == "block_all" { // what istiod makes of REGISTRY_ONLY
			e.service = service{Host: r.Host, Name: blackHoleCluster}
		}
		content := action.DirectResponse.GetBody()
		e.answer(w, int(action.DirectResponse.GetStatus()), content.GetInlineString()+string(content.GetInlineBytes()))
		return
	case *routev3.Route_Redirect:
		code, location := found.redirection(r)
		w.Header().Set("Location", location)
		e.answer(w, code, "")
		return
	}
	chosen := found.choose(r)
	upstream := snapshot.clusters[chosen.cluster]
	if upstream != nil && upstream.service.Host != "" {
		e.service = upstream.service
	}
	if answered := p.injectFault(w, r, e, chosen); answered {
		return
	}
	if found.cors.apply(w, r, e) {
		return
	}
	if chosen.cluster == passthroughCluster {
		p.passThrough(w, r, e, body)
		return
	}
	if upstream == nil {
		e.flag(flagNoCluster)
		e.answer(w, http.StatusServiceUnavailable, "")
		return
	}
	request := &upstreamRequest{proxy: p, choice: chosen, cluster: upstream, exchange: e, body: body, original: r, key: chosen.hashKey(w, r)}
	p.mirror(request, snapshot)
	request.run(w)
}

func (p *Proxy) injectFault(w http.ResponseWriter, r *http.Request, e *exchange, chosen choice) bool {
	fault, err := chosen.faultFor(r)
	if err != nil {
		e.answer(w, http.StatusInternalServerError, err.Error())
		return true
	}
	if fault == nil {
		return false
	}
	return fault.inject(r.Context(), w, e) || r.Context().Err() != nil
}

// passThrough sends a request to where it was going before the proxy, which
// here can only be a loopback address.
func (p *Proxy) passThrough(w http.ResponseWriter, r *http.Request, e *exchange, body []byte) {
	e.service = service{Host: r.Host, Name: passthroughCluster}
	target := &url.URL{Scheme: "http", Host: withPort(r.Host), Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	request := r.Clone(r.Context())
	request.URL, request.RequestURI, request.Body = target, "", io.NopCloser(bytes.NewReader(body))
	response, err := p.transportFor(r).RoundTrip(request)
	if err != nil {
		e.flag(flagConnectFailure)
		e.answer(w, http.StatusServiceUnavailable, fmt.Sprintf("upstream connect error: %v", err))
		return
	}
	e.relay(w, response)
}

// serveUnrouted serves a request whose port has no HTTP routes: by whatever
// TCP listener it meets, as bytes.
func (p *Proxy) serveUnrouted(w http.ResponseWriter, r *http.Request, e *exchange, body []byte) {
	host, port := splitAuthority(r.Host)
	s := p.snapshot.Load()
	address := s.names.lookUp(host, p.options.Namespace)
	l := s.listenerFor(address, port)
	if l == nil {
		p.passThrough(w, r, e, body) // not configured yet
		return
	}
	c := l.choose(inspection{address: address, port: port, protocols: []string{"http/1.1"}})
	if c == nil || c.tcp == nil || c.tcp.GetCluster() == passthroughCluster {
		p.passThrough(w, r, e, body)
		return
	}
	e.silent = true // the connection is what is reported
	request := r.Clone(r.Context())
	request.URL = &url.URL{Scheme: "http", Host: withPort(r.Host), Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	request.RequestURI, request.Body = "", io.NopCloser(bytes.NewReader(body))
	response, err := p.tunnel.RoundTrip(request)
	if err != nil {
		panic(http.ErrAbortHandler) // the connection was closed; so is the client's
	}
	e.relay(w, response)
}

// withPort completes an authority of the default port.
func withPort(authority string) string {
	if _, _, err := net.SplitHostPort(authority); err == nil {
		return authority
	}
	return net.JoinHostPort(authority, "80")
}

// mirror sends copies as the route's mirror policies say and forgets them.
// They are no requests of the application: only the destination reports them.
func (p *Proxy) mirror(request *upstreamRequest, snapshot *snapshot) {
	for _, policy := range request.choice.spec.GetRoute().GetRequestMirrorPolicies() {
		target := snapshot.clusters[policy.GetCluster()]
		if f := policy.GetRuntimeFraction(); target == nil || f != nil && !chance(f.GetDefaultValue()) {
			continue
		}
		ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
		shadow := request.attempt(ctx)
		if !policy.GetDisableShadowHostSuffixAppend() {
			shadow.Host = shadowAuthority(shadow.Host)
		}
		p.background.Go(func() {
			defer cancel()
			chosen := target.pick(time.Now(), nil, "")
			if chosen == nil {
				return
			}
			response, _, err := p.send(target, chosen, shadow)
			if err != nil {
				return
			}
			defer response.Body.Close() //nolint:errcheck // a mirrored answer is dropped
			_, _ = io.Copy(io.Discard, response.Body)
		})
	}
}

// shadowAuthority marks a mirrored request's host: "reviews:9080" becomes
// "reviews-shadow:9080".
func shadowAuthority(authority string) string {
	host, port, found := strings.Cut(authority, ":")
	if !found {
		return host + "-shadow"
	}
	return host + "-shadow:" + port
}

// answer ends the exchange with an answer of the proxy's own.
func (e *exchange) answer(w http.ResponseWriter, code int, body string) {
	e.code = code
	if body != "" && w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "text/plain")
	}
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body) // the client may be gone
}

// relay passes an answer on.
func (e *exchange) relay(w http.ResponseWriter, response *http.Response) {
	defer response.Body.Close() //nolint:errcheck // read to its end, or given up
	dropHopHeaders(response.Header)
	e.code = response.StatusCode
	h := w.Header()
	for name, values := range response.Header {
		if name == "Set-Cookie" {
			values = append(h[name], values...)
		}
		h[name] = values
	}
	w.WriteHeader(response.StatusCode)
	_, err := io.Copy(flushing(w, response), response.Body)
	e.grpcStatus = firstOf(response.Header.Get("Grpc-Status"), response.Trailer.Get("Grpc-Status"))
	for name, values := range response.Trailer {
		h[http.TrailerPrefix+name] = values
	}
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			e.flag(flagUpstreamTimeout)
		}
		panic(http.ErrAbortHandler) // the rest will not come: let the client see that
	}
}

// flushing passes each part of an answer of unknown length on as it comes.
func flushing(w http.ResponseWriter, response *http.Response) io.Writer {
	if response.ContentLength >= 0 {
		return w
	}
	return flushWriter{w, http.NewResponseController(w)}
}

type flushWriter struct {
	http.ResponseWriter
	controller *http.ResponseController
}

func (w flushWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	if err != nil {
		return n, err
	}
	return n, w.controller.Flush()
}

func isGRPC(h http.Header) bool { return strings.HasPrefix(h.Get("Content-Type"), "application/grpc") }

func dropHopHeaders(h http.Header) {
	for _, name := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Transfer-Encoding", "Te", "Upgrade"} {
		h.Del(name)
	}
}
