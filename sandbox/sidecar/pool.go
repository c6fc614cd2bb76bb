package sidecar

import (
	"context"
	"errors"
	"math"
	"sync"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
)

const httpProtocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

var errOverflow = errors.New("overflow")

// pool counts a cluster's connections and requests against its circuit
// breaker. As in Envoy, an HTTP/1 request that finds no idle connection is
// pending until one is established for it, even while connections are free to
// be opened.
type pool struct {
	maxConnections, maxPending, maxRequests uint64
	perConnection                           uint64 // requests per connection; 0: any number
	multiplexed                             bool   // HTTP/2: requests need no connection of their own

	mu       sync.Mutex
	active   uint64 // requests that hold a connection or open one
	open     uint64 // established connections
	pending  uint64
	served   uint64
	streams  uint64 // TCP connections
	refused  uint64 // TCP connections that found no place
	overflow uint64
	queue    []chan bool // waiting requests, first come first served; true hands over an idle connection
}

func newPool(spec *clusterv3.Cluster) *pool {
	p := &pool{maxConnections: 1024, maxPending: 1024, maxRequests: 1024} // Envoy's defaults
	for _, t := range spec.GetCircuitBreakers().GetThresholds() {
		if t.GetPriority() != corev3.RoutingPriority_DEFAULT {
			continue
		}
		p.maxConnections = orDefault(t.GetMaxConnections(), p.maxConnections)
		p.maxPending = orDefault(t.GetMaxPendingRequests(), p.maxPending)
		p.maxRequests = orDefault(t.GetMaxRequests(), p.maxRequests)
	}
	p.maxConnections = max(p.maxConnections, 1) // Envoy always allows one
	if config, ok := spec.GetTypedExtensionProtocolOptions()[httpProtocolOptions]; ok {
		var options httpv3.HttpProtocolOptions
		if config.UnmarshalTo(&options) == nil {
			p.multiplexed = options.GetExplicitHttpConfig().GetHttp2ProtocolOptions() != nil
			p.perConnection = uint64(options.GetCommonHttpProtocolOptions().GetMaxRequestsPerConnection().GetValue())
		}
	}
	return p
}

func orDefault(v interface{ GetValue() uint32 }, fallback uint64) uint64 {
	if n := v.GetValue(); n != 0 {
		return uint64(n)
	}
	return fallback
}

// slot is one request's place in the pool.
type slot struct {
	pool    *pool
	pending bool
	last    bool // the connection is to be closed after this request
}

// enter waits for a place, or returns errOverflow, or the context's error.
func (p *pool) enter(ctx context.Context) (*slot, error) {
	p.mu.Lock()
	if p.active+uint64(len(p.queue)) >= p.maxRequests {
		return nil, p.refuse()
	}
	if p.active < p.open || p.multiplexed { // an idle connection, or one for all
		return p.admit(false), nil
	}
	if p.pending >= p.maxPending {
		return nil, p.refuse()
	}
	p.pending++
	if p.active < p.maxConnections {
		return p.admit(true), nil
	}
	turn := make(chan bool, 1)
	p.queue = append(p.queue, turn)
	p.mu.Unlock()
	select {
	case idle := <-turn:
		p.mu.Lock()
		if idle {
			p.pending--
		}
		return p.admitted(!idle), nil
	case <-ctx.Done():
		p.abandon(turn)
		return nil, ctx.Err()
	}
}

func (p *pool) refuse() error {
	p.overflow++
	p.mu.Unlock()
	return errOverflow
}

func (p *pool) admit(pending bool) *slot {
	p.active++
	return p.admitted(pending)
}

// admitted counts the request on its connection and gives up the lock.
func (p *pool) admitted(pending bool) *slot {
	p.served++
	last := p.perConnection > 0 && p.served%p.perConnection == 0
	p.mu.Unlock()
	return &slot{pool: p, pending: pending, last: last}
}

func (p *pool) abandon(turn chan bool) {
	p.mu.Lock()
	for i, other := range p.queue {
		if other == turn {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			p.pending--
			p.mu.Unlock()
			return
		}
	}
	idle := <-turn // handed over in the meantime: pass it on
	if idle {
		p.pending--
	}
	s := p.admitted(!idle)
	s.leave(idle)
}

// connected says that the request's connection is established.
func (s *slot) connected(reused bool) {
	s.pool.mu.Lock()
	defer s.pool.mu.Unlock()
	if !s.pending {
		return
	}
	s.pending = false
	s.pool.pending--
	if !reused && s.pool.open < math.MaxUint64 {
		s.pool.open++
	}
}

// leave ends the request; keep says that its connection stays usable.
func (s *slot) leave(keep bool) {
	p := s.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	keep = keep && !s.last
	if s.pending { // it never got a connection
		p.pending--
		keep = false
	} else if !keep && p.open > 0 {
		p.open--
	}
	if len(p.queue) > 0 {
		p.queue[0] <- keep
		p.queue = p.queue[1:]
		return // the place goes to the next request
	}
	p.active--
}

func (p *pool) overflows() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.overflow
}

func (p *pool) refusals() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused
}
