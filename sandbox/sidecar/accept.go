package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// handedConn is a connection that turned out to speak HTTP, with the handler of
// its requests.
type handedConn struct {
	net.Conn
	handler http.Handler
}

func (c handedConn) CloseWrite() error { return closeWrite(c.Conn) }

// handover is a net.Listener for the connections that other listeners accepted.
type handover struct {
	conns chan net.Conn
	done  <-chan struct{}
}

func (h handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, http.ErrServerClosed
	}
}

func (handover) Close() error   { return nil }
func (handover) Addr() net.Addr { return &net.TCPAddr{} }

type handlerKey struct{}

// startHTTP starts the server of handed-over connections: HTTP/1.1 and, for
// clients that begin with it, HTTP/2 without TLS.
func (p *Proxy) startHTTP() {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Protocols:         &protocols,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if handed, ok := c.(handedConn); ok {
				return context.WithValue(ctx, handlerKey{}, handed.handler)
			}
			return ctx
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Context().Value(handlerKey{}).(http.Handler).ServeHTTP(w, r) //nolint:forcetypeassert // nothing else is handed over
		}),
	}
	p.handover = handover{conns: make(chan net.Conn), done: p.ctx.Done()}
	p.servers = append(p.servers, server)
	p.background.Go(func() { _ = server.Serve(p.handover) }) // ends with Close
}

func (p *Proxy) serveHTTPOn(conn net.Conn, handler http.Handler) {
	select {
	case p.handover.conns <- handedConn{conn, handler}:
	case <-p.ctx.Done():
		_ = conn.Close()
	}
}

// acceptOn listens on a port, 0 for a free one, and serves each connection in a
// goroutine of its own.
func (p *Proxy) acceptOn(ctx context.Context, name string, port uint32, serve func(net.Conn)) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(p.options.Address, strconv.Itoa(int(port))))
	if err != nil {
		return 0, fmt.Errorf("%s listener of pod %s/%s: %w", name, p.options.Namespace, p.options.Pod, err)
	}
	p.addresses[name] = l.Addr().String()
	p.listeners = append(p.listeners, l)
	p.background.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					p.options.Log.Warn("listener ended", "listener", name, "proxy", p.nodeID, "error", err)
				}
				return
			}
			p.background.Go(func() { p.guarded(conn, serve) })
		}
	})
	return l.Addr().(*net.TCPAddr).Port, nil //nolint:forcetypeassert // a TCP listener has a TCP address
}

// guarded closes what is still being looked at when the proxy is closed.
func (p *Proxy) guarded(conn net.Conn, serve func(net.Conn)) {
	stop := context.AfterFunc(p.ctx, func() { _ = conn.Close() })
	defer stop()
	serve(conn)
}

// dispatch serves a client's connection by the listener that it meets.
func (p *Proxy) dispatch(conn net.Conn, l *listener, i inspection, to string) {
	if l == nil {
		_ = conn.Close()
		return
	}
	c, inspect := l.decide(i)
	if inspect {
		buffered := newBufferedConn(conn)
		var err error
		if i, err = buffered.inspect(i); err != nil {
			_ = conn.Close()
			return
		}
		conn, c = buffered, l.choose(i)
	}
	if c != nil && c.secure != nil {
		secured, err := p.terminate(conn, c)
		if err != nil {
			p.options.Log.Warn("TLS at the gateway", "listener", l.name, "proxy", p.nodeID, "error", err)
			_ = conn.Close()
			return
		}
		conn = secured
	}
	switch {
	case c == nil:
		_ = conn.Close()
	case c.http:
		p.serveHTTPOn(conn, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			now := p.chainNow(l, i, c)
			p.serve(w, r, now.config, now.filters)
		}))
	case c.denies(conn, i.port):
		_ = conn.Close()
	default:
		p.serveStream(conn, c.tcp, to)
	}
}

// chainNow finds the chain again for a connection that is kept alive, where
// Envoy would close it after a while because its chain was replaced.
func (p *Proxy) chainNow(l *listener, i inspection, was *chain) *chain {
	for _, now := range p.snapshot.Load().listeners {
		if now == l {
			return was
		}
		if now.name != l.name {
			continue
		}
		c, inspect := now.decide(i)
		if inspect {
			c = now.choose(i)
		}
		if c == nil && now.inbound {
			c = now.unsecured(i.port, was.http)
		}
		if c != nil && c.http {
			return c
		}
	}
	return was
}

// dispatchOutbound serves a connection of the application's to host:port.
func (p *Proxy) dispatchOutbound(conn net.Conn, to string) {
	host, port := splitAuthority(to)
	s := p.snapshot.Load()
	address := s.names.lookUp(host, p.options.Namespace)
	p.dispatch(conn, s.listenerFor(address, port), inspection{address: address, port: port}, to)
}

// dispatchGateway serves a connection from outside at a gateway's port.
func (p *Proxy) dispatchGateway(conn net.Conn, port uint32) {
	for _, l := range p.snapshot.Load().listeners {
		if !l.inbound && l.port == port {
			p.dispatch(conn, l, inspection{port: port}, conn.LocalAddr().String())
			return
		}
	}
	buffered := newBufferedConn(conn)
	if seen, err := buffered.inspect(inspection{}); err != nil || seen.tls || len(seen.protocols) == 0 {
		_ = conn.Close()
		return
	}
	p.serveHTTPOn(buffered, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close") // the next one may find it open
		http.Error(w, fmt.Sprintf("no Gateway has opened port %d yet", port), http.StatusNotFound)
	}))
}

// dispatchInbound serves a connection to one of the pod's ports. Until istiod
// has told of the port, HTTP is served as such and anything else as bytes.
func (p *Proxy) dispatchInbound(conn net.Conn, to inboundPort) {
	c, l, about, conn, err := p.inboundChain(conn, to)
	switch {
	case err != nil || c.denies(conn, to.number):
		_ = conn.Close()
	case c.http:
		p.serveHTTPOn(conn, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.serveInbound(w, r, to, p.chainNow(l, about, c).filters)
		}))
	default:
		p.serveInboundStream(conn, to)
	}
}

// inboundChain finds the chain, after a look at the first bytes where need be.
func (p *Proxy) inboundChain(conn net.Conn, to inboundPort) (*chain, *listener, inspection, net.Conn, error) {
	about := inspection{port: to.number}
	l := &listener{name: virtualInbound, inbound: true}
	for _, known := range p.snapshot.Load().listeners {
		if known.inbound {
			l = known
		}
	}
	if c, inspect := l.decide(about); !inspect && c != nil {
		return c, l, about, conn, nil
	}
	buffered := newBufferedConn(conn)
	about, err := buffered.inspect(about)
	if err != nil {
		return nil, l, about, conn, err
	}
	if c := l.choose(about); c != nil && c.secure == nil {
		return c, l, about, buffered, nil
	}
	return l.unsecured(about.port, len(about.protocols) > 0 && !about.tls), l, about, buffered, nil
}

// unsecured gives what serves plain text where only mutual TLS is let in
// (PeerAuthentication STRICT): the port's chain, as if there were certificates.
func (l *listener) unsecured(port uint32, web bool) *chain {
	for _, c := range l.chains {
		if p := c.match.GetDestinationPort(); p != nil && p.GetValue() == port && c.http == web {
			return c
		}
	}
	return &chain{http: web}
}

// denies tells whether a policy keeps a connection out.
func (c *chain) denies(conn net.Conn, port uint32) bool {
	f := &facts{remote: conn.RemoteAddr().String(), port: port}
	f.source, _ = peerByAddress(f.remote)
	return slices.ContainsFunc(c.guards, func(g *rbacFilter) bool { return g.denies(f) })
}

// serveConnect makes a tunnel of a request to the outbound proxy: from then on
// the connection is served as if iptables had redirected it here.
func (p *Proxy) serveConnect(w http.ResponseWriter, r *http.Request) {
	conn, buffer, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "CONNECT: "+err.Error(), http.StatusHTTPVersionNotSupported)
		return
	}
	if _, err := buffer.WriteString("HTTP/1.1 200 Connection established\r\n\r\n"); err != nil || buffer.Flush() != nil {
		_ = conn.Close()
		return
	}
	p.guarded(conn, func(net.Conn) { p.dispatchOutbound(&bufferedConn{Conn: conn, reader: buffer.Reader}, r.Host) })
}

// DialTCP opens a connection that leaves through the sidecar, by the service's
// name and port, such as tcp-echo:9000. As behind a real sidecar, a connection
// that leads nowhere is accepted at first and then closed.
func (p *Proxy) DialTCP(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.addresses["outbound"])
	if err != nil {
		return nil, fmt.Errorf("connection through the sidecar to %s: %w", address, err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	request, err := http.NewRequestWithContext(ctx, http.MethodConnect, "http://"+address, nil)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connection through the sidecar to %q: %w", address, err)
	}
	request.Host = address
	buffered := newBufferedConn(conn)
	response, err := roundTripOn(buffered, request)
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connection through the sidecar to %s: %w", address, err)
	}
	if response != http.StatusOK {
		_ = conn.Close()
		return nil, fmt.Errorf("connection through the sidecar to %s: status %d", address, response)
	}
	return buffered, nil
}

// roundTripOn sends a request over a connection and reads the answer's head.
func roundTripOn(conn *bufferedConn, request *http.Request) (status int, err error) {
	if err := request.Write(conn); err != nil {
		return 0, err
	}
	response, err := http.ReadResponse(conn.reader, request)
	if err != nil {
		return 0, err
	}
	return response.StatusCode, response.Body.Close()
}
