package sidecar

import (
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
)

// cluster is one Envoy cluster with the state that belongs to it: its hosts,
// its connection pool and its outlier detection.
type cluster struct {
	spec    *clusterv3.Cluster
	service service
	pool    *pool
	outlier *outlierPolicy

	mu    sync.Mutex
	hosts []*host
	next  int // round robin
}

// host is one endpoint of a cluster.
type host struct {
	address  string // host:port
	peer     peer
	priority uint32
	weight   uint32
	healthy  bool // as discovery says
	active   atomic.Int64
	health   hostHealth // guarded by the cluster's lock
}

func newCluster(spec *clusterv3.Cluster) *cluster {
	c := &cluster{
		spec:    spec,
		service: clusterService(spec.GetMetadata()),
		pool:    newPool(spec),
		outlier: newOutlierPolicy(spec.GetOutlierDetection()),
	}
	if a := spec.GetLoadAssignment(); a != nil {
		c.assign(a)
	}
	return c
}

func (c *cluster) equal(spec *clusterv3.Cluster) bool { return proto.Equal(c.spec, spec) }

// assign takes over endpoints; a host that stays keeps its state.
func (c *cluster) assign(a *endpointv3.ClusterLoadAssignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := map[string]*host{}
	for _, h := range c.hosts {
		known[h.address] = h
	}
	c.hosts = nil
	for _, locality := range a.GetEndpoints() {
		for _, e := range locality.GetLbEndpoints() {
			address := e.GetEndpoint().GetAddress().GetSocketAddress()
			key := net.JoinHostPort(address.GetAddress(), strconv.Itoa(int(address.GetPortValue())))
			h := known[key]
			if h == nil {
				h = &host{address: key}
			}
			h = h.with(e, locality.GetPriority())
			c.hosts = append(c.hosts, h)
		}
	}
}

// with gives the host as discovery describes it now. A host that changed is a
// new value, because requests in flight read the old one without a lock.
func (h *host) with(e *endpointv3.LbEndpoint, priority uint32) *host {
	status := e.GetHealthStatus()
	p := endpointPeer(e.GetMetadata())
	weight := max(e.GetLoadBalancingWeight().GetValue(), 1)
	healthy := status == corev3.HealthStatus_UNKNOWN || status == corev3.HealthStatus_HEALTHY
	if h.peer == p && h.priority == priority && h.weight == weight && h.healthy == healthy {
		return h
	}
	return &host{address: h.address, peer: p, priority: priority, weight: weight, healthy: healthy, health: h.health}
}

// pick chooses a host, avoiding those that were tried where it can; nil means
// that none is healthy.
func (c *cluster) pick(now time.Time, tried []*host) *host {
	c.mu.Lock()
	defer c.mu.Unlock()
	usable := c.usable(now)
	if len(usable) == 0 {
		return nil
	}
	fresh := slices.DeleteFunc(slices.Clone(usable), func(h *host) bool { return slices.Contains(tried, h) })
	if len(fresh) > 0 {
		usable = fresh
	}
	switch c.spec.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		c.next++
		return weightedAt(usable, uint32(c.next))
	case clusterv3.Cluster_LEAST_REQUEST:
		a, b := randomHost(usable), randomHost(usable)
		if b.active.Load() < a.active.Load() {
			return b
		}
		return a
	default:
		return randomHost(usable)
	}
}

// usable gives the healthy hosts of the first priority that has any. Below the
// panic threshold, which istiod turns off beside outlier detection, all hosts
// of the first priority are used.
func (c *cluster) usable(now time.Time) []*host {
	var all, best []*host
	for _, h := range c.hosts {
		if h.priority == 0 {
			all = append(all, h)
		}
		if !h.healthy || h.health.ejected(now) {
			continue
		}
		if len(best) > 0 && h.priority < best[0].priority {
			best = nil
		}
		if len(best) == 0 || h.priority == best[0].priority {
			best = append(best, h)
		}
	}
	panicThreshold := 50.0
	if t := c.spec.GetCommonLbConfig().GetHealthyPanicThreshold(); t != nil {
		panicThreshold = t.GetValue()
	}
	if len(all) > 0 && len(best) < len(c.hosts) && 100*float64(len(best))/float64(len(all)) < panicThreshold {
		return all
	}
	return best
}

func weightedAt(hosts []*host, n uint32) *host {
	total := uint32(0)
	for _, h := range hosts {
		total += h.weight
	}
	n %= total
	for _, h := range hosts {
		if n < h.weight {
			return h
		}
		n -= h.weight
	}
	return hosts[0]
}

func randomHost(hosts []*host) *host { return weightedAt(hosts, rand.Uint32()) }
