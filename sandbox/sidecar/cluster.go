package sidecar

import (
	"net"
	"strconv"
	"sync"
	"sync/atomic"

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
	wire    wire

	mu    sync.Mutex
	hosts []*host
	next  int // round robin
}

// locality is where hosts are, as far as load balancing goes by it.
type locality struct {
	name     string // region/zone/sub-zone
	priority uint32
	weight   uint32
}

// host is one endpoint of a cluster.
type host struct {
	address  string // host:port
	peer     peer
	locality locality
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
		wire:    readWire(spec),
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
	for _, group := range a.GetEndpoints() {
		l := group.GetLocality()
		at := locality{
			name:     l.GetRegion() + "/" + l.GetZone() + "/" + l.GetSubZone(),
			priority: group.GetPriority(), weight: group.GetLoadBalancingWeight().GetValue(),
		}
		for _, e := range group.GetLbEndpoints() {
			address := e.GetEndpoint().GetAddress().GetSocketAddress()
			key := net.JoinHostPort(address.GetAddress(), strconv.Itoa(int(address.GetPortValue())))
			h := known[key]
			if h == nil {
				h = &host{address: key}
			}
			h = h.with(e, at)
			c.hosts = append(c.hosts, h)
		}
	}
}

// with gives the host as discovery describes it now. A host that changed is a
// new value, because requests in flight read the old one without a lock.
func (h *host) with(e *endpointv3.LbEndpoint, at locality) *host {
	status := e.GetHealthStatus()
	p := endpointPeer(e.GetMetadata())
	weight := max(e.GetLoadBalancingWeight().GetValue(), 1)
	healthy := status == corev3.HealthStatus_UNKNOWN || status == corev3.HealthStatus_HEALTHY
	if h.peer == p && h.locality == at && h.weight == weight && h.healthy == healthy {
		return h
	}
	return &host{address: h.address, peer: p, locality: at, weight: weight, healthy: healthy, health: h.health}
}
