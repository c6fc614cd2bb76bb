package environment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	istio "istio.io/client-go/pkg/clientset/versioned"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"

	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/sidecar"
)

const istioNamespace = "istio-system"

// gatewayPorts are those that a Gateway's servers may have here.
var gatewayPorts = []uint32{80, 443, 8080, 8443, 31400}

// Options say what an environment starts with.
type Options struct {
	// Empty leaves the namespace without bookinfo: what is deployed later comes up.
	Empty bool
	// Gateway starts an ingress gateway (label istio: ingressgateway) and, unless
	// Empty, applies bookinfo's Gateway and VirtualService. One per control plane:
	// each would serve all namespaces' Gateways.
	Gateway bool
	// OwnGateway starts it in the namespace instead of istio-system: one for each
	// namespace of a control plane whose istiod has ScopedGateways.
	OwnGateway bool
	// Locality of the client's pod, as region/zone; "" is none. A Deployment's pods
	// have theirs from the label istio-locality, as region.zone.
	Locality string
	// EnvoyStats adds Envoy's own cluster statistics to the proxies' metrics.
	EnvoyStats bool
	// Log is told what the environment does; nil means silence.
	Log *slog.Logger
}

// Environment is a namespace that is alive until Close.
type Environment struct {
	Namespace string
	// ProductPage is the URL of the page for Client.
	ProductPage string

	cp      *controlplane.ControlPlane
	options Options
	kube    kubernetes.Interface
	istio   istio.Interface

	deployments listers.DeploymentLister
	informers   informers.SharedInformerFactory
	kicks       chan struct{}
	ctx         context.Context //nolint:containedctx // the environment's life, for the pods that it starts
	stop        context.CancelFunc
	loop        sync.WaitGroup // reconciling
	background  sync.WaitGroup // the pods' servers

	client  *standalone
	gateway *standalone
	hosts   hostTable

	mu        sync.Mutex
	pods      map[string][]*pod // by Deployment
	unready   map[string]bool
	misbehave map[string]bookinfo.Misbehaviour
	targets   []controlplane.TargetGroup
}

// standalone is a proxy without a Deployment: the client's or the gateway's.
type standalone struct {
	proxy     *sidecar.Proxy
	namespace string
	pod       string
}

// Deploy makes the namespace, applies bookinfo to it, and returns once every
// Deployment is available and a client of the namespace reaches the page. ctx
// bounds the start, not the environment's life: call Close.
func Deploy(ctx context.Context, cp *controlplane.ControlPlane, namespace string, options Options) (*Environment, error) {
	e := &Environment{
		Namespace: namespace, ProductPage: "http://productpage:9080/productpage",
		cp: cp, options: options,
		kicks: make(chan struct{}, 1),
		pods:  map[string][]*pod{}, unready: map[string]bool{}, misbehave: map[string]bookinfo.Misbehaviour{},
	}
	if e.options.Log == nil {
		e.options.Log = slog.New(slog.DiscardHandler)
	}
	e.ctx, e.stop = context.WithCancel(context.WithoutCancel(ctx))
	if err := e.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("environment %s: %w", namespace, err), e.Close())
	}
	return e, nil
}

func (e *Environment) start(ctx context.Context) (err error) {
	if e.kube, err = kubernetes.NewForConfig(e.cp.RESTConfig); err != nil {
		return err
	}
	if e.istio, err = istio.NewForConfig(e.cp.RESTConfig); err != nil {
		return err
	}
	if err := e.cp.CreateNamespace(ctx, e.Namespace); err != nil {
		return err
	}
	if e.client, err = e.startStandalone(ctx, e.Namespace, "client", sidecar.Options{
		Workload: "client", Locality: e.options.Locality, Labels: map[string]string{"app": "client", "version": "v1"},
	}); err != nil {
		return err
	}
	if e.options.Gateway || e.options.OwnGateway {
		if err := e.startGateway(ctx); err != nil {
			return err
		}
	}
	if !e.options.Empty {
		if err := e.cp.Kube.Apply(ctx, e.Namespace, bookinfo.Manifests); err != nil {
			return err
		}
	}
	if err := e.watch(ctx); err != nil {
		return err
	}
	return e.WaitReady(ctx)
}

func (e *Environment) startGateway(ctx context.Context) (err error) {
	namespace := istioNamespace
	if e.options.OwnGateway {
		namespace = e.Namespace
	}
	if e.gateway, err = e.startStandalone(ctx, namespace, "istio-ingressgateway", sidecar.Options{
		Kind: sidecar.Router, Certificate: e.certificateOf(namespace), Workload: "istio-ingressgateway", Ports: gatewayPorts,
		Labels: map[string]string{"app": "istio-ingressgateway", "istio": "ingressgateway"},
	}); err != nil || e.options.Empty {
		return err
	}
	return e.cp.Kube.Apply(ctx, e.Namespace, bookinfo.GatewayManifests)
}

func (e *Environment) startStandalone(ctx context.Context, namespace, name string, o sidecar.Options) (*standalone, error) {
	address := e.cp.NewPodAddress()
	s := &standalone{namespace: namespace, pod: name + "-" + podSuffix(address)}
	o.Discovery, o.Address, o.Pod, o.Namespace = e.cp.DiscoveryAddress, address, s.pod, namespace
	o.EnvoyStats, o.Log, o.Resolve = e.options.EnvoyStats, e.options.Log, e.hosts.resolve
	var err error
	s.proxy, err = sidecar.Start(ctx, o)
	return s, err
}

// watch follows the namespace's Deployments from now on.
func (e *Environment) watch(ctx context.Context) error {
	e.informers = informers.NewSharedInformerFactoryWithOptions(e.kube, 0, informers.WithNamespace(e.Namespace))
	deployments := e.informers.Apps().V1().Deployments()
	e.deployments = deployments.Lister()
	kick := func(any) { e.kick() }
	if _, err := deployments.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: kick, UpdateFunc: func(_, _ any) { e.kick() }, DeleteFunc: kick,
	}); err != nil {
		return err
	}
	e.informers.Start(e.ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), deployments.Informer().HasSynced) {
		return fmt.Errorf("reading Deployments: %w", ctx.Err())
	}
	e.loop.Go(e.run)
	e.kick()
	return nil
}

// Client sends requests from a pod of the namespace (labels app: client) by
// service name and port: http://reviews:9080/reviews/0.
func (e *Environment) Client() *http.Client { return e.client.proxy.Client() }

// ClientProxy is the URL of the HTTP proxy that Client uses, for programs that
// take http_proxy.
func (e *Environment) ClientProxy() string { return e.client.proxy.Outbound().String() }

// IngressURL is the base URL of the gateway's port 80; "" without a gateway.
func (e *Environment) IngressURL() string {
	if e.gateway == nil {
		return ""
	}
	return "http://" + e.gateway.proxy.Gateway(80)
}

// DialTCP opens a connection from the client's pod by service name and port,
// such as tcp-echo:9000; a port of TLS or gRPC too. One that leads nowhere is
// closed after it was opened, as behind any sidecar. Programs get the same by
// CONNECT at ClientProxy.
func (e *Environment) DialTCP(ctx context.Context, address string) (net.Conn, error) {
	return e.client.proxy.DialTCP(ctx, address)
}

// IngressAddress is the host:port behind the gateway's port, which is one of 80,
// 443, 8080, 8443 and 31400; "" without a gateway, or for another port.
func (e *Environment) IngressAddress(port uint32) string {
	if e.gateway == nil {
		return ""
	}
	return e.gateway.proxy.Gateway(port)
}

// ClientProxyID is how istiod names the proxy of Client, for its debug interface.
func (e *Environment) ClientProxyID() string { return e.client.pod + "." + e.client.namespace }

// GatewayProxyID is how istiod names the gateway's proxy; "" without a gateway.
func (e *Environment) GatewayProxyID() string {
	if e.gateway == nil {
		return ""
	}
	return e.gateway.pod + "." + e.gateway.namespace
}

// WaitReady waits until every Deployment is available at its generation and,
// where bookinfo was deployed, its page comes back whole.
func (e *Environment) WaitReady(ctx context.Context) error {
	if err := e.await(ctx, "every Deployment to be available", e.available); err != nil {
		return err
	}
	if err := e.client.proxy.WaitReady(ctx); err != nil {
		return err
	}
	if e.gateway != nil {
		if err := e.gateway.proxy.WaitReady(ctx); err != nil {
			return err
		}
	}
	if e.options.Empty {
		return nil
	}
	var last error
	err := e.await(ctx, "a whole productpage", func() bool {
		err := e.fetchPage(ctx)
		if ctx.Err() == nil {
			last = err // not that the time was up, but what there was until then
		}
		return err == nil
	})
	return errors.Join(err, last)
}

func (e *Environment) fetchPage(ctx context.Context) error {
	urls := []string{e.ProductPage}
	if e.gateway != nil {
		urls = append(urls, e.IngressURL()+"/productpage")
	}
	for i, url := range urls {
		client := http.DefaultClient
		if i == 0 {
			client = e.Client()
		}
		if err := fetchWhole(ctx, client, url); err != nil {
			return err
		}
	}
	return nil
}

// await asks often until the answer is yes.
func (e *Environment) await(ctx context.Context, what string, ready func() bool) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !ready() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-e.ctx.Done():
			return fmt.Errorf("waiting for %s: the environment was closed", what)
		}
	}
	return nil
}

// Close stops all pods and takes their WorkloadEntries and scrape targets away,
// and the Gateway objects that Deploy applied, which would stand in the way of
// another environment's. The namespace and its other objects stay.
func (e *Environment) Close() error {
	e.stop()
	e.loop.Wait()
	defer e.background.Wait()
	if e.informers != nil {
		e.informers.Shutdown()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var problems []error
	if e.gateway != nil && !e.options.Empty {
		problems = append(problems, e.cp.Kube.Delete(ctx, e.Namespace, bookinfo.GatewayManifests))
	}
	for _, pods := range e.pods {
		for _, p := range pods {
			problems = append(problems, e.deregister(ctx, p))
			p.close()
		}
	}
	for _, s := range []*standalone{e.client, e.gateway} {
		if s != nil && s.proxy != nil {
			s.proxy.Close()
		}
	}
	return errors.Join(append(problems, e.cp.SetTargets(targetsName(e.Namespace)))...)
}

func targetsName(namespace string) string { return "environment-" + namespace }

var _ io.Closer = (*Environment)(nil)
