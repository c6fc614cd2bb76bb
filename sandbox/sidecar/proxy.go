package sidecar

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
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
	// Labels of the pod: istiod matches sourceLabels and Gateway selectors by them.
	Labels map[string]string
	// Address is the pod's own loopback address, such as 127.1.0.7.
	Address string
	// Application is the host:port that inbound requests are passed on to.
	// A proxy without one has no inbound listener.
	Application string
	// PortNames are the names that Services may use as targetPort for it.
	PortNames []string
	// Ports are the gateway ports that a Router listens for, each on a free port of
	// its own address.
	Ports []uint32
	// EnvoyStats adds Envoy's own cluster statistics to the metrics.
	EnvoyStats bool
	// Log may be nil.
	Log *slog.Logger
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
	snapshot    atomic.Pointer[snapshot]
	ready       chan struct{}

	ctx        context.Context //nolint:containedctx // the proxy's life, for mirrored requests that outlive theirs
	stop       context.CancelFunc
	background sync.WaitGroup
	servers    []*http.Server
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
		transport: &http.Transport{DialContext: dialLoopback, DisableCompression: true, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute},
	}
	p.encoded = p.self.encode()
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
	d := newDiscovery(node, p.snapshot.Store, sync.OnceFunc(func() { close(p.ready) }))
	p.background.Go(func() {
		d.run(p.ctx, o.Discovery, func(err error) { o.Log.Warn("discovery", "proxy", p.nodeID, "error", err) })
	})
	return p, nil
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
	for _, name := range o.PortNames {
		ports = append(ports, podPort{Name: name, ContainerPort: p.inboundPort, Protocol: "TCP"})
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
	return &corev3.Node{Id: p.nodeID, Cluster: firstOf(o.Labels["app"], o.Workload), Metadata: metadata}, nil
}

func (p *Proxy) listen(ctx context.Context) error {
	handlers := map[string]http.Handler{"metrics": promhttp.HandlerFor(p.metrics.registry, promhttp.HandlerOpts{})}
	if p.options.Kind == Sidecar {
		handlers["outbound"] = http.HandlerFunc(p.serveOutbound)
	}
	if p.options.Application != "" {
		handlers["inbound"] = http.HandlerFunc(p.serveInbound)
	}
	for _, port := range p.options.Ports {
		handlers[gatewayListener(port)] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serveGateway(w, r, port) })
	}
	for name, handler := range handlers {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(p.options.Address, "0"))
		if err != nil {
			return fmt.Errorf("%s listener of pod %s/%s: %w", name, p.options.Namespace, p.options.Pod, err)
		}
		p.addresses[name] = l.Addr().String()
		if name == "inbound" {
			p.inboundPort = l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener has a TCP address
		}
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		p.servers = append(p.servers, server)
		p.background.Go(func() {
			if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				p.options.Log.Warn("listener ended", "listener", name, "proxy", p.nodeID, "error", err)
			}
		})
	}
	return nil
}

func gatewayListener(port uint32) string { return "gateway " + strconv.Itoa(int(port)) }

// serveOutbound is the plain HTTP proxy that the application sends through,
// since no iptables redirect it here.
func (p *Proxy) serveOutbound(w http.ResponseWriter, r *http.Request) {
	p.serve(w, r, p.snapshot.Load().configFor(r.Host))
}

// serveGateway serves a gateway's port by the routes of that port's listener.
func (p *Proxy) serveGateway(w http.ResponseWriter, r *http.Request, port uint32) {
	for _, l := range p.snapshot.Load().listeners {
		if l.port == port {
			p.serve(w, r, l.config)
			return
		}
	}
	http.Error(w, fmt.Sprintf("no Gateway has opened port %d yet", port), http.StatusNotFound)
}

// Inbound is the host:port at which other proxies reach the application.
func (p *Proxy) Inbound() string { return p.addresses["inbound"] }

// InboundPort is the port of Inbound.
func (p *Proxy) InboundPort() int { return p.inboundPort }

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
	for _, s := range p.servers {
		_ = s.Close()
	}
	p.background.Wait()
	p.transport.CloseIdleConnections()
}
