package sidecar

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/protobuf/types/known/structpb"
)

// clusterID is the name that istiod gives the cluster that it runs in.
const clusterID = "Kubernetes"

// Kind is what a proxy is in the mesh, as the first part of its node id.
type Kind string

// The kinds of proxy that istiod knows.
const (
	Sidecar Kind = "sidecar"
	Router  Kind = "router"
)

// Options say who a proxy is and whom it serves.
type Options struct {
	// Discovery is istiod's plaintext gRPC address, host:port.
	Discovery string
	// Kind is Sidecar unless told otherwise.
	Kind Kind
	// Pod, Namespace and Workload (the Deployment) name the proxy; a WorkloadEntry
	// named like the pod is how istiod knows a sidecar's own services.
	Pod, Namespace, Workload string
	// ServiceAccount is whose name policies know the pod by; "" is default.
	ServiceAccount string
	// Labels of the pod: istiod matches sourceLabels and Gateway selectors by them.
	Labels map[string]string
	// Address is the pod's own loopback address, such as 127.1.0.7.
	Address string
	// Locality of the pod as region/zone/sub-zone, from the left; "" is none.
	Locality string
	// Application is the host:port that inbound requests are passed on to.
	// A proxy without one has no inbound listener.
	Application string
	// PortNames are the names that Services may use as targetPort for it.
	PortNames []string
	// AppPorts are the ports of the application that are known by number. The
	// sidecar listens for each at that number of its own address, or at a free one
	// where that is taken.
	AppPorts []AppPort
	// Ports are the gateway ports that a Router listens for, each on a free port of
	// its own address.
	Ports []uint32
	// OwnPorts lets a Router listen at these numbers themselves, as a Service whose
	// targetPorts they are needs it.
	OwnPorts bool
	// Resolve gives the address on this machine, host:port, that stands for a port
	// of a host outside the mesh. Nil knows none.
	Resolve func(host string, port uint32) (address string, ok bool)
	// Certificate gives what a Gateway's TLS names, as istiod calls it:
	// kubernetes://name. Nil gives none.
	Certificate func(ctx context.Context, name string) (*tls.Certificate, error)
	// EnvoyStats adds Envoy's own cluster statistics to the metrics.
	EnvoyStats bool
	// Log may be nil.
	Log *slog.Logger
}

// AppPort is a container's port.
type AppPort struct {
	// Name is how a Service's targetPort may call it; "" for a port without name.
	Name string
	// Number is the containerPort.
	Number uint32
	// Application is the host:port behind it.
	Application string
}

// Proxy is a running proxy.
type Proxy struct {
	options     Options
	nodeID      string
	self        peer
	encoded     string
	inboundPort int
	metrics     *metrics
	transport   *http.Transport
	transport2  *http.Transport // HTTP/2 without TLS
	tunnel      *http.Transport // for HTTP that the proxy only sees as bytes
	secure      sync.Map        // transports with TLS, by *cluster
	snapshot    atomic.Pointer[snapshot]
	ready       chan struct{}

	ctx        context.Context //nolint:containedctx // the proxy's life, for mirrored requests that outlive theirs
	stop       context.CancelFunc
	background sync.WaitGroup
	servers    []*http.Server
	listeners  []net.Listener
	handover   handover
	ports      []inboundPort
	addresses  map[string]string // by listener: inbound, outbound, metrics, or a gateway port
}

// Start begins to listen and to follow discovery; it does not wait for a
// configuration (see WaitReady). The proxy runs until Close.
func Start(ctx context.Context, o Options) (*Proxy, error) {
	if o.Kind == "" {
		o.Kind = Sidecar
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	p := &Proxy{
		options:   o,
		nodeID:    fmt.Sprintf("%s~%s~%s.%s~%s.svc.cluster.local", o.Kind, o.Address, o.Pod, o.Namespace, o.Namespace),
		self:      makePeer(o),
		metrics:   newMetrics(),
		ready:     make(chan struct{}),
		addresses: map[string]string{},
	}
	p.transport, p.transport2 = p.newTransport(false), p.newTransport(true)
	p.tunnel = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return p.DialTCP(ctx, address)
	}}
	p.encoded = p.self.encode()
	workloads.Store(o.Address, p.self)
	p.snapshot.Store(&snapshot{})
	p.ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	if o.EnvoyStats {
		p.metrics.registry.MustRegister(envoyStats{func() map[string]*cluster { return p.snapshot.Load().clusters }})
	}
	if err := p.listen(ctx); err != nil {
		p.Close()
		return nil, err
	}
	node, err := p.node()
	if err != nil {
		p.Close()
		return nil, err
	}
	d := newDiscovery(node, p.publisher(), sync.OnceFunc(func() { close(p.ready) }))
	p.background.Go(func() {
		d.run(p.ctx, o.Discovery, func(err error) { o.Log.Warn("discovery", "proxy", p.nodeID, "error", err) })
	})
	return p, nil
}

// publisher takes new configurations into use; it names what this proxy
// ignores of them, once.
func (p *Proxy) publisher() func(*snapshot) {
	told := map[string]bool{}
	return func(s *snapshot) {
		p.snapshot.Store(s)
		for _, l := range s.listeners {
			for _, name := range l.ignored {
				if !told[name] {
					told[name] = true
					p.options.Log.Warn("a filter that this proxy does not obey", "filter", name, "listener", l.name, "proxy", p.nodeID)
				}
			}
		}
	}
}

// podPort is a port as istiod reads it from POD_PORTS.
type podPort struct {
	Name          string `json:"name"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
}

// node is how the proxy presents itself to istiod.
func (p *Proxy) node() (*corev3.Node, error) {
	o := p.options
	labels := map[string]any{}
	for k, v := range o.Labels {
		labels[k] = v
	}
	// With the ports istiod makes inbound clusters before it has seen the pod's entry.
	ports := []podPort{}
	for _, port := range p.ports {
		ports = append(ports, podPort{Name: port.name, ContainerPort: int(port.number), Protocol: "TCP"})
	}
	podPorts, err := json.Marshal(ports)
	if err != nil {
		return nil, fmt.Errorf("ports of proxy %s: %w", p.nodeID, err)
	}
	metadata, err := structpb.NewStruct(map[string]any{
		"NAME": o.Pod, "NAMESPACE": o.Namespace, "WORKLOAD_NAME": o.Workload, "LABELS": labels,
		"CLUSTER_ID": clusterID, "MESH_ID": "cluster.local", "ISTIO_VERSION": "1.31.1", "INSTANCE_IPS": o.Address,
		"POD_PORTS": string(podPorts),
	})
	if err != nil {
		return nil, fmt.Errorf("metadata of proxy %s: %w", p.nodeID, err)
	}
	node := &corev3.Node{Id: p.nodeID, Cluster: firstOf(o.Labels["app"], o.Workload), Metadata: metadata}
	if o.Locality != "" {
		parts := append(strings.SplitN(o.Locality, "/", 3), "", "")
		node.Locality = &corev3.Locality{Region: parts[0], Zone: parts[1], SubZone: parts[2]}
	}
	return node, nil
}

func (p *Proxy) newTransport(http2 bool) *http.Transport {
	t := &http.Transport{DialContext: p.dialHTTP, DisableCompression: true, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute}
	if http2 {
		t.Protocols = &http.Protocols{}
		t.Protocols.SetUnencryptedHTTP2(true)
	}
	return t
}

func (p *Proxy) listen(ctx context.Context) error {
	p.startHTTP()
	onHTTP := func(handler http.Handler) func(net.Conn) {
		return func(c net.Conn) { p.serveHTTPOn(c, handler) }
	}
	if _, err := p.acceptOn(ctx, "metrics", 0, onHTTP(promhttp.HandlerFor(p.metrics.registry, promhttp.HandlerOpts{}))); err != nil {
		return err
	}
	if p.options.Kind == Sidecar {
		if _, err := p.acceptOn(ctx, "outbound", 0, onHTTP(http.HandlerFunc(p.serveOutbound))); err != nil {
			return err
		}
	}
	for _, port := range p.options.Ports {
		number := uint32(0)
		if p.options.OwnPorts {
			number = port
		}
		if _, err := p.acceptOn(ctx, gatewayListener(port), number, func(c net.Conn) { p.dispatchGateway(c, port) }); err != nil {
			return err
		}
	}
	return p.listenInbound(ctx)
}

// listenInbound opens the ports that lead to the application.
func (p *Proxy) listenInbound(ctx context.Context) error {
	if p.options.Application != "" {
		port, err := p.openInbound(ctx, "inbound", 0, p.options.Application)
		if err != nil {
			return err
		}
		p.inboundPort = port
		for _, name := range p.options.PortNames {
			p.ports = append(p.ports, inboundPort{name, uint32(port), p.options.Application})
		}
	}
	for _, app := range p.options.AppPorts {
		name := fmt.Sprintf("inbound %d", app.Number)
		port, err := p.openInbound(ctx, name, app.Number, app.Application)
		if err != nil { // a Service that names its targetPort still gets there
			p.options.Log.Warn("port is taken; a Service whose targetPort is the number will not reach the pod", "port", app.Number, "pod", p.options.Pod, "error", err)
			if port, err = p.openInbound(ctx, name, 0, app.Application); err != nil {
				return err
			}
		}
		p.ports = append(p.ports, inboundPort{app.Name, uint32(port), app.Application})
	}
	return nil
}

func (p *Proxy) openInbound(ctx context.Context, name string, port uint32, application string) (int, error) {
	var to inboundPort
	opened := make(chan struct{})
	number, err := p.acceptOn(ctx, name, port, func(c net.Conn) {
		<-opened
		p.dispatchInbound(c, to)
	})
	to = inboundPort{name, uint32(number), application}
	close(opened)
	return number, err
}

func gatewayListener(port uint32) string { return "gateway " + strconv.Itoa(int(port)) }

// serveOutbound is the HTTP proxy that the application sends through, since no
// iptables redirect it here.
func (p *Proxy) serveOutbound(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodConnect {
		p.serveConnect(w, r)
		return
	}
	p.serve(w, r, p.snapshot.Load().configFor(r.Host), nil)
}

// Inbound is the host:port at which other proxies reach the application.
func (p *Proxy) Inbound() string { return p.addresses["inbound"] }

// InboundPort is the port of Inbound.
func (p *Proxy) InboundPort() int { return p.inboundPort }

// NamedPorts gives the ports that are listened on by the names of the
// application's ports, as a WorkloadEntry has to list them.
func (p *Proxy) NamedPorts() map[string]uint32 {
	named := map[string]uint32{}
	for _, port := range p.ports {
		if port.name != "" {
			named[port.name] = port.number
		}
	}
	return named
}

// Metrics is the host:port that serves /metrics.
func (p *Proxy) Metrics() string { return p.addresses["metrics"] }

// Gateway is the host:port behind one of Options.Ports.
func (p *Proxy) Gateway(port uint32) string { return p.addresses[gatewayListener(port)] }

// Outbound is the HTTP proxy that the application's clients have to use.
func (p *Proxy) Outbound() *url.URL { return &url.URL{Scheme: "http", Host: p.addresses["outbound"]} }

// Client is an HTTP client whose requests leave through the sidecar, by the
// service's name and port: http://reviews:9080/reviews/0.
func (p *Proxy) Client() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{Proxy: http.ProxyURL(p.Outbound()), MaxIdleConnsPerHost: 256, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// WaitReady waits until the proxy has received its first whole configuration:
// all clusters with endpoints, all listeners with routes.
func (p *Proxy) WaitReady(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("pod %s/%s has no whole configuration from istiod at %s yet: %w",
			p.options.Namespace, p.options.Pod, p.options.Discovery, ctx.Err())
	}
}

// Close ends the proxy and its connections at once.
func (p *Proxy) Close() {
	p.stop()
	workloads.Delete(p.options.Address)
	for _, l := range p.listeners {
		_ = l.Close()
	}
	for _, s := range p.servers {
		_ = s.Close()
	}
	p.background.Wait()
	p.transport.CloseIdleConnections()
	p.transport2.CloseIdleConnections()
	p.secure.Range(func(_, t any) bool {
		t.(*http.Transport).CloseIdleConnections() //nolint:forcetypeassert // nothing else is stored
		return true
	})
}
