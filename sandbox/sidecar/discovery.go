package sidecar

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	statusv3 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

type adsStream = grpc.BidiStreamingClient[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]

// discovery is the client's side of the aggregated discovery service. What it
// was sent outlives its streams, as in Envoy: without istiod a proxy goes on.
type discovery struct {
	node    *corev3.Node
	publish func(*snapshot)
	ready   func() // called once the first whole configuration is there

	seen      map[string]bool // resource types that were answered
	clusters  map[string]*cluster
	endpoints map[string]*endpointv3.ClusterLoadAssignment
	listeners []*listener
	names     nameTable
	inline    []*routeTable
	routes    map[string]*routeTable

	stream     adsStream
	subscribed map[string]*discoveryv3.DiscoveryRequest // the last request of each type on this stream
}

func newDiscovery(node *corev3.Node, publish func(*snapshot), ready func()) *discovery {
	return &discovery{
		node: node, publish: publish, ready: ready,
		seen:      map[string]bool{},
		clusters:  map[string]*cluster{},
		endpoints: map[string]*endpointv3.ClusterLoadAssignment{},
		routes:    map[string]*routeTable{},
	}
}

// run keeps a stream to the server until the context ends.
func (d *discovery) run(ctx context.Context, address string, report func(error)) {
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		report(fmt.Errorf("discovery address %q: %w", address, err))
		return
	}
	defer conn.Close() //nolint:errcheck // nothing is left to be said to it
	for wait := 50 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, time.Second) {
		began := time.Now()
		if err := d.session(ctx, conn); err != nil && ctx.Err() == nil {
			report(err)
		}
		if time.Since(began) > time.Second {
			wait = 50 * time.Millisecond
		}
		pause(ctx, wait)
	}
}

// session is one stream, from subscribing to its end.
func (d *discovery) session(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err != nil {
		return fmt.Errorf("opening a discovery stream: %w", err)
	}
	d.stream, d.subscribed = stream, map[string]*discoveryv3.DiscoveryRequest{}
	if err := d.subscribe(); err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("reading the discovery stream: %w", err)
		}
		if err := d.acknowledge(response, d.accept(response)); err != nil {
			return err
		}
		if err := d.subscribe(); err != nil {
			return err
		}
		d.publishSnapshot()
	}
}

// accept takes over the resources of one response. A response that cannot be
// understood is refused as a whole; an unknown type is acknowledged and left.
func (d *discovery) accept(response *discoveryv3.DiscoveryResponse) error {
	var err error
	switch response.GetTypeUrl() {
	case resource.ClusterType:
		err = d.acceptClusters(response)
	case resource.EndpointType:
		err = d.acceptEndpoints(response)
	case resource.ListenerType:
		err = d.acceptListeners(response)
	case resource.RouteType:
		err = d.acceptRoutes(response)
	case nameTableType:
		err = d.acceptNames(response)
	}
	if err == nil {
		d.seen[response.GetTypeUrl()] = true
	}
	return err
}

// resources decodes a response's resources.
func resources[T proto.Message](response *discoveryv3.DiscoveryResponse, fresh func() T) ([]T, error) {
	var all []T
	for i, any := range response.GetResources() {
		r := fresh()
		if err := any.UnmarshalTo(r); err != nil {
			return nil, fmt.Errorf("resource %d of %s: %w", i, response.GetTypeUrl(), err)
		}
		all = append(all, r)
	}
	return all, nil
}

func (d *discovery) acceptClusters(response *discoveryv3.DiscoveryResponse) error {
	specs, err := resources(response, func() *clusterv3.Cluster { return &clusterv3.Cluster{} })
	if err != nil {
		return err
	}
	clusters := map[string]*cluster{}
	endpoints := map[string]*endpointv3.ClusterLoadAssignment{}
	for _, spec := range specs {
		c := d.clusters[spec.GetName()]
		if c == nil || !c.equal(spec) {
			c = newCluster(spec)
		}
		clusters[spec.GetName()] = c
		if a := d.endpoints[edsName(spec)]; a != nil {
			endpoints[edsName(spec)] = a
			c.assign(a)
		}
	}
	d.clusters, d.endpoints = clusters, endpoints
	return nil
}

// edsName is the name by which a cluster's endpoints are asked for; "" for a
// cluster that has no discovered ones.
func edsName(spec *clusterv3.Cluster) string {
	if spec.GetType() != clusterv3.Cluster_EDS {
		return ""
	}
	return firstOf(spec.GetEdsClusterConfig().GetServiceName(), spec.GetName())
}

func (d *discovery) acceptEndpoints(response *discoveryv3.DiscoveryResponse) error {
	assignments, err := resources(response, func() *endpointv3.ClusterLoadAssignment { return &endpointv3.ClusterLoadAssignment{} })
	if err != nil {
		return err
	}
	changed := map[string]*endpointv3.ClusterLoadAssignment{}
	for _, a := range assignments {
		d.endpoints[a.GetClusterName()], changed[a.GetClusterName()] = a, a
	}
	for _, c := range d.clusters {
		if a := changed[edsName(c.spec)]; a != nil {
			c.assign(a)
		}
	}
	return nil
}

func (d *discovery) acceptListeners(response *discoveryv3.DiscoveryResponse) error {
	specs, err := resources(response, func() *listenerv3.Listener { return &listenerv3.Listener{} })
	if err != nil {
		return err
	}
	var listeners []*listener
	var inline []*routeTable
	for _, spec := range specs {
		l, err := d.listenerOf(spec)
		if err != nil {
			return err
		}
		listeners, inline = append(listeners, l), append(inline, l.inline...)
	}
	d.listeners, d.inline = listeners, inline
	return nil
}

// listenerOf keeps a listener that is as it was, with the state of its filters.
func (d *discovery) listenerOf(spec *listenerv3.Listener) (*listener, error) {
	for _, l := range d.listeners {
		if l.name == spec.GetName() && proto.Equal(l.spec, spec) {
			return l, nil
		}
	}
	return readListener(spec)
}

// acceptNames takes over the table of names; no table is no change.
func (d *discovery) acceptNames(response *discoveryv3.DiscoveryResponse) error {
	for _, any := range response.GetResources() {
		names, err := readNameTable(any.GetValue())
		if err != nil {
			return err
		}
		d.names = names
	}
	return nil
}

func (d *discovery) acceptRoutes(response *discoveryv3.DiscoveryResponse) error {
	specs, err := resources(response, func() *routev3.RouteConfiguration { return &routev3.RouteConfiguration{} })
	if err != nil {
		return err
	}
	var tables []*routeTable
	for _, spec := range specs {
		table, err := compileRoutes(spec)
		if err != nil {
			return err
		}
		tables = append(tables, table)
	}
	for _, table := range tables {
		d.routes[table.name] = table
	}
	return nil
}

// acknowledge answers a response: with its version, or with what is wrong.
func (d *discovery) acknowledge(response *discoveryv3.DiscoveryResponse, refused error) error {
	request := d.subscribed[response.GetTypeUrl()]
	if request == nil {
		return nil
	}
	request = proto.Clone(request).(*discoveryv3.DiscoveryRequest) //nolint:forcetypeassert // a clone has its original's type
	request.ResponseNonce, request.ErrorDetail = response.GetNonce(), nil
	if refused == nil {
		request.VersionInfo = response.GetVersionInfo()
	} else {
		request.ErrorDetail = &statusv3.Status{Code: int32(codes.InvalidArgument), Message: refused.Error()}
	}
	return d.send(request)
}

// subscribe asks for all clusters and listeners, and for the endpoints and
// routes that they name, whenever that changed.
func (d *discovery) subscribe() error {
	var endpoints, routes []string
	for _, c := range d.clusters {
		if name := edsName(c.spec); name != "" {
			endpoints = append(endpoints, name)
		}
	}
	for _, config := range d.configs() {
		if !slices.ContainsFunc(d.inline, func(t *routeTable) bool { return t.name == config }) {
			routes = append(routes, config)
		}
	}
	maps.DeleteFunc(d.routes, func(name string, _ *routeTable) bool { return !slices.Contains(routes, name) })
	for _, want := range []struct {
		kind  string
		names []string
	}{{resource.ClusterType, nil}, {resource.EndpointType, endpoints}, {nameTableType, nil}, {resource.ListenerType, nil}, {resource.RouteType, routes}} {
		if err := d.subscribeTo(want.kind, want.names); err != nil {
			return err
		}
	}
	return nil
}

// configs names the route configurations that listeners serve by.
func (d *discovery) configs() []string {
	var names []string
	for _, l := range d.listeners {
		for _, c := range l.all() {
			if c.config != "" {
				names = append(names, c.config)
			}
		}
	}
	return names
}

func (d *discovery) subscribeTo(kind string, names []string) error {
	slices.Sort(names)
	names = slices.Compact(names)
	last := d.subscribed[kind]
	all := kind == resource.ClusterType || kind == resource.ListenerType || kind == nameTableType
	if !all && len(names) == 0 && last == nil {
		return nil // an empty list would mean all
	}
	if last != nil && slices.Equal(last.GetResourceNames(), names) {
		return nil
	}
	request := &discoveryv3.DiscoveryRequest{Node: d.node, TypeUrl: kind, ResourceNames: names}
	if last != nil {
		request.VersionInfo, request.ResponseNonce = last.GetVersionInfo(), last.GetResponseNonce()
	}
	return d.send(request)
}

func (d *discovery) send(request *discoveryv3.DiscoveryRequest) error {
	d.subscribed[request.GetTypeUrl()] = request
	if err := d.stream.Send(request); err != nil {
		return fmt.Errorf("asking for %s: %w", request.GetTypeUrl(), err)
	}
	return nil
}

// publishSnapshot makes what is there the configuration to serve by. A cluster
// without endpoints is still warming and not part of it.
func (d *discovery) publishSnapshot() {
	s := &snapshot{listeners: d.listeners, names: d.names, routes: maps.Clone(d.routes), clusters: map[string]*cluster{}}
	whole := d.seen[resource.ClusterType] && d.seen[resource.ListenerType]
	for _, t := range d.inline {
		s.routes[t.name] = t
	}
	for name, c := range d.clusters {
		if eds := edsName(c.spec); eds != "" && d.endpoints[eds] == nil {
			whole = false
			continue
		}
		s.clusters[name] = c
	}
	for _, config := range d.configs() {
		whole = whole && s.routes[config] != nil
	}
	d.publish(s)
	if whole {
		d.ready()
	}
}
