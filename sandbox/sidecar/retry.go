package sidecar

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// upstreamRequest is one request on its way to a cluster: one or several
// attempts within the route's timeout.
type upstreamRequest struct {
	proxy    *Proxy
	choice   choice
	cluster  *cluster
	exchange *exchange
	original *http.Request
	body     []byte
	tried    []*host
	key      string // that the load balancer hashes
}

// attemptResult is how one attempt ended: with a response, or with the code,
// flag and reason that the proxy answers in its place.
type attemptResult struct {
	response *http.Response
	code     int
	flag     string
	reason   string
}

func (u *upstreamRequest) run(w http.ResponseWriter) {
	ctx, policy := u.original.Context(), u.choice.spec.GetRoute()
	timeout := 15 * time.Second // Envoy's default where a route says nothing
	if t := policy.GetTimeout(); t != nil {
		timeout = t.AsDuration()
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	result := u.try(ctx)
	retries := newRetryState(u.choice)
	for retries.wants(result) && ctx.Err() == nil {
		if !retries.next(ctx) {
			if ctx.Err() == nil {
				u.exchange.flag(flagRetryLimitExceeded)
			}
			break
		}
		result.drop()
		result = u.try(ctx)
	}
	if u.original.Context().Err() != nil {
		result.drop()
		return // the client went away
	}
	u.finish(w, result)
}

func (u *upstreamRequest) finish(w http.ResponseWriter, result attemptResult) {
	if result.response == nil {
		u.choice.respond(w.Header())
		u.exchange.flag(result.flag)
		u.exchange.answer(w, result.code, result.reason)
		return
	}
	u.choice.respond(result.response.Header)
	u.exchange.relay(w, result.response)
}

func (r attemptResult) drop() {
	if r.response != nil {
		_ = r.response.Body.Close()
	}
}

// try makes one attempt.
func (u *upstreamRequest) try(ctx context.Context) attemptResult {
	chosen := u.pick()
	if chosen == nil {
		u.exchange.destination = peer{}
		return attemptResult{code: http.StatusServiceUnavailable, flag: flagNoHealthyUpstream, reason: "no healthy upstream"}
	}
	u.tried = append(u.tried, chosen)
	u.exchange.destination = chosen.peer
	cancel := context.CancelFunc(func() {})
	if t := u.choice.spec.GetRoute().GetRetryPolicy().GetPerTryTimeout(); t.AsDuration() > 0 {
		ctx, cancel = context.WithTimeout(ctx, t.AsDuration())
	}
	response, connected, err := u.proxy.send(u.cluster, chosen, u.attempt(ctx)) //nolint:bodyclose // the attempt's result carries it
	if err != nil {
		cancel()
		result := failure(ctx, err, connected)
		if result.flag == flagNoHealthyUpstream {
			u.exchange.destination = peer{}
			return result
		}
		if result.flag != flagOverflow && u.original.Context().Err() == nil {
			u.cluster.observe(chosen, result.code, time.Now())
		}
		return result
	}
	response.Body = &cancellingBody{ReadCloser: response.Body, cancel: cancel}
	u.cluster.observe(chosen, response.StatusCode, time.Now())
	if other, ok := takePeer(response.Header); ok {
		u.exchange.destination = other
	}
	return attemptResult{response: response, code: response.StatusCode}
}

func (u *upstreamRequest) pick() *host {
	if u.cluster.spec.GetType() == clusterv3.Cluster_ORIGINAL_DST {
		return u.cluster.pickFor(u.original.Host, time.Now())
	}
	return u.cluster.pick(time.Now(), u.avoid(), u.key)
}

// avoid gives the hosts that the retry policy wants to keep away from.
func (u *upstreamRequest) avoid() []*host {
	for _, p := range u.choice.spec.GetRoute().GetRetryPolicy().GetRetryHostPredicate() {
		if p.GetName() == "envoy.retry_host_predicates.previous_hosts" {
			return u.tried
		}
	}
	return nil
}

func failure(ctx context.Context, err error, connected bool) attemptResult {
	const prefix = "upstream connect error or disconnect/reset before headers. reset reason: "
	switch {
	case errors.Is(err, errOverflow):
		return attemptResult{code: http.StatusServiceUnavailable, flag: flagOverflow, reason: prefix + "overflow"}
	case errors.As(err, new(*net.DNSError)): // Envoy has no host for a name that does not resolve
		return attemptResult{code: http.StatusServiceUnavailable, flag: flagNoHealthyUpstream, reason: "no healthy upstream"}
	case ctx.Err() != nil:
		return attemptResult{code: http.StatusGatewayTimeout, flag: flagUpstreamTimeout, reason: "upstream request timeout"}
	case !connected:
		return attemptResult{code: http.StatusServiceUnavailable, flag: flagConnectFailure, reason: prefix + "remote connection failure"}
	default:
		return attemptResult{code: http.StatusServiceUnavailable, flag: flagConnectionClosed, reason: prefix + "connection termination"}
	}
}

// attempt makes the request as it goes to the upstream.
func (u *upstreamRequest) attempt(ctx context.Context) *http.Request {
	r := u.original.Clone(ctx)
	dropHopHeaders(r.Header)
	if isGRPC(r.Header) {
		r.Header.Set("Te", "trailers")
	}
	u.choice.prepare(r)
	r.URL = &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}
	r.RequestURI = ""
	r.Body = io.NopCloser(bytes.NewReader(u.body))
	r.ContentLength = int64(len(u.body))
	if len(u.body) == 0 {
		r.Body = http.NoBody
	}
	r.Header.Set(peerHeader, u.proxy.encoded)
	r.Header.Set(peerIDHeader, u.proxy.nodeID)
	return r
}

// send makes one exchange with one host within the cluster's connection pool.
// connected says whether a connection was there when it failed.
func (p *Proxy) send(c *cluster, h *host, r *http.Request) (response *http.Response, connected bool, err error) {
	place, err := c.pool.enter(r.Context())
	if err != nil {
		return nil, false, err
	}
	h.active.Add(1)
	trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
		connected = true
		place.connected(info.Reused)
	}}
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
	r.URL.Scheme, r.URL.Host = c.wire.scheme(), h.address
	r.Close = place.last
	response, err = p.transportTo(c, r.ProtoMajor).RoundTrip(r)
	if err != nil {
		h.active.Add(-1)
		place.leave(false)
		return nil, connected, err
	}
	response.Body = &pooledBody{ReadCloser: response.Body, done: func(keep bool) {
		h.active.Add(-1)
		place.leave(keep)
	}}
	return response, true, nil
}

// pooledBody gives the pool its place back when the response ends.
type pooledBody struct {
	io.ReadCloser
	ended bool
	done  func(keep bool)
}

func (b *pooledBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	b.ended = b.ended || errors.Is(err, io.EOF)
	return n, err
}

func (b *pooledBody) Close() error {
	err := b.ReadCloser.Close()
	if b.done != nil {
		b.done(b.ended)
		b.done = nil
	}
	return err
}

type cancellingBody struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *cancellingBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

// retryState is what is left of a route's retry policy for one request.
type retryState struct {
	on        []string
	codes     []uint32
	remaining uint32
	backoff   time.Duration
}

func newRetryState(c choice) *retryState {
	policy := c.spec.GetRoute().GetRetryPolicy()
	if policy == nil {
		policy = c.host.GetRetryPolicy()
	}
	if policy == nil {
		return &retryState{}
	}
	return &retryState{
		on:        strings.FieldsFunc(policy.GetRetryOn(), func(r rune) bool { return r == ',' || r == ' ' }),
		codes:     retriableCodes(policy),
		remaining: valueOr(policy.GetNumRetries(), 1),
		backoff:   durationOr(policy.GetRetryBackOff().GetBaseInterval(), 25*time.Millisecond),
	}
}

func retriableCodes(policy *routev3.RetryPolicy) []uint32 {
	codes := slices.Clone(policy.GetRetriableStatusCodes())
	for _, on := range strings.Split(policy.GetRetryOn(), ",") { // istiod also leaves codes in retryOn
		if code, err := strconv.ParseUint(on, 10, 16); err == nil {
			codes = append(codes, uint32(code))
		}
	}
	return codes
}

// wants tells whether the policy covers this end of an attempt, whatever the
// number of retries that are left.
func (s *retryState) wants(r attemptResult) bool {
	if r.flag == flagOverflow || r.flag == flagNoHealthyUpstream {
		return false // Envoy never retries these
	}
	for _, on := range s.on {
		if s.covers(on, r) {
			return true
		}
	}
	return false
}

func (s *retryState) covers(on string, r attemptResult) bool {
	answered := r.response != nil
	switch on {
	case "5xx":
		return r.code >= 500
	case "gateway-error":
		return r.code >= 502 && r.code <= 504
	case "reset":
		return !answered
	case "connect-failure":
		return r.flag == flagConnectFailure
	case "retriable-4xx":
		return r.code == http.StatusConflict
	case "retriable-status-codes":
		return answered && slices.Contains(s.codes, uint32(r.code))
	case "unavailable", "cancelled", "deadline-exceeded", "internal", "resource-exhausted":
		return answered && r.response.Header.Get("Grpc-Status") == grpcCodes[on]
	}
	return false
}

var grpcCodes = map[string]string{
	"cancelled": "1", "deadline-exceeded": "4", "resource-exhausted": "8", "internal": "13", "unavailable": "14",
}

// next waits for the back-off and takes one retry; false means that none is
// left or that the context ended.
func (s *retryState) next(ctx context.Context) bool {
	if s.remaining == 0 {
		return false
	}
	s.remaining--
	wait := rand.N(s.backoff + 1)
	s.backoff = min(2*s.backoff, 250*time.Millisecond)
	return pause(ctx, wait)
}

// dialHTTP connects to an upstream, and refuses to leave the machine whatever
// discovery says.
func (p *Proxy) dialHTTP(ctx context.Context, network, address string) (net.Conn, error) {
	found, err := p.resolve(address)
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	return dialer.DialContext(ctx, network, found)
}
