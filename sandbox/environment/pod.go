package environment

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	networkingv1 "istio.io/api/networking/v1"
	clientv1 "istio.io/client-go/pkg/apis/networking/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/sidecar"
)

const (
	// AppAnnotation on a pod template names the kind of app to run, where that is
	// not the label app.
	AppAnnotation = "sandbox.sluice.dev/app"
	// ApplicationAnnotation on a WorkloadEntry is the app's own address, behind
	// its sidecar: for /misbehave.
	ApplicationAnnotation = "sandbox.sluice.dev/application"
	// HostsAnnotation on a pod template names the hosts, divided by commas, that
	// the pods stand for outside the mesh, such as api.partner.com. They resolve
	// for the namespace's pods only.
	HostsAnnotation = "sandbox.sluice.dev/hosts"
	// injectLabel with the value "false" keeps the sidecar away, as in Istio; so
	// does HostsAnnotation.
	injectLabel = "sidecar.istio.io/inject"
	// templateAnnotation with the value "gateway" makes a pod a gateway, as Istio's
	// injection does: it serves the Gateways whose selector its labels match, at
	// its containers' ports.
	templateAnnotation = "inject.istio.io/templates"
	// localityLabel is Istio's label for where a pod is, as region.zone.sub-zone.
	localityLabel = "istio-locality"
	// workloadNameLabel tells istiod which workload an entry belongs to.
	workloadNameLabel = "service.istio.io/workload-name"
	// drainTime lets other proxies learn that a pod goes before it is gone.
	drainTime = time.Second
)

// pod is one app with its sidecar.
type pod struct {
	name       string
	hash       string // of the template
	address    string
	labels     map[string]string
	ports      map[string]uint32
	deployment string

	outside bool     // of the mesh: without sidecar
	hosts   []string // that it stands for
	account string   // service account

	app        *bookinfo.App
	server     *http.Server
	listeners  []net.Listener
	listener   net.Listener // for HTTP, whatever the ports are
	appPorts   []sidecar.AppPort
	proxy      *sidecar.Proxy // nil outside the mesh
	configured atomic.Bool    // the sidecar has its configuration
	refused    bool           // its environment says READY=false
	registered bool           // guarded by the environment's lock
}

// startPod starts an app and its sidecar as the Deployment's template says.
func (e *Environment) startPod(d *appsv1.Deployment) (_ *pod, err error) {
	template := d.Spec.Template
	address := e.cp.NewPodAddress()
	p := &pod{
		name: fmt.Sprintf("%s-%s-%s", d.Name, templateHash(d)[:8], podSuffix(address)), hash: templateHash(d),
		address: address, labels: template.Labels, deployment: d.Name, account: template.Spec.ServiceAccountName,
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	env := environmentOf(template.Spec)
	p.refused = env["READY"] == "false"
	p.hosts = strings.FieldsFunc(strings.ToLower(template.Annotations[HostsAnnotation]), func(r rune) bool { return r == ',' || r == ' ' })
	p.outside = len(p.hosts) > 0 || p.labels[injectLabel] == "false"
	kind := template.Annotations[AppAnnotation]
	if kind == "" {
		kind = p.labels["app"]
	}
	client := &deferredClient{}
	p.app, err = bookinfo.New(bookinfo.Options{
		Kind: kind, Version: p.labels["version"], Pod: p.name, Env: env,
		Client: &http.Client{Transport: client, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	})
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", p.name, err)
	}
	if m, ok := e.misbehave[d.Name]; ok {
		p.app.Misbehave(m)
	}
	p.server = newServer(p.app)
	if template.Annotations[templateAnnotation] == "gateway" {
		return p, p.startGateway(e, d.Name, template.Spec)
	}
	if p.appPorts, err = p.startServers(e.ctx, e, kind, template.Spec); err != nil {
		return nil, err
	}
	if p.outside {
		client.use(http.DefaultTransport)
		p.standAlone(e)
		return p, nil
	}
	return p, p.startSidecar(e, d.Name, client)
}

// standAlone is a pod's life outside the mesh.
func (p *pod) standAlone(e *Environment) {
	p.ports = map[string]uint32{}
	for _, port := range p.appPorts {
		if _, text, err := net.SplitHostPort(port.Application); err == nil && port.Name != "" {
			number, _ := strconv.ParseUint(text, 10, 16) // a listener's own
			p.ports[port.Name] = uint32(number)
		}
	}
	e.hosts.add(p)
	p.configured.Store(true)
}

func (p *pod) startSidecar(e *Environment, workload string, client *deferredClient) (err error) {
	named := []string{"http"}
	if slices.ContainsFunc(p.appPorts, func(port sidecar.AppPort) bool { return port.Name == "http" }) {
		named = nil
	}
	p.proxy, err = sidecar.Start(e.ctx, sidecar.Options{
		Discovery: e.cp.DiscoveryAddress, Pod: p.name, Namespace: e.Namespace, Workload: workload, Labels: p.labels,
		Address: p.address, Application: p.listener.Addr().String(), PortNames: named, AppPorts: p.appPorts, Resolve: e.hosts.resolve,
		Locality: localityOf(p.labels), ServiceAccount: p.account,
		EnvoyStats: e.options.EnvoyStats, Log: e.options.Log,
	})
	if err != nil {
		return err
	}
	p.ports = p.proxy.NamedPorts() // a Service's named targetPort is looked up there
	client.use(p.proxy.Client().Transport)
	p.awaitConfiguration(e)
	return nil
}

func (p *pod) awaitConfiguration(e *Environment) {
	e.background.Go(func() {
		if p.proxy.WaitReady(e.ctx) == nil {
			p.configured.Store(true)
			e.kick()
		}
	})
}

// startGateway starts a proxy without an app.
func (p *pod) startGateway(e *Environment, workload string, spec corev1.PodSpec) (err error) {
	if p.listener, err = p.listen(e.ctx, 0); err != nil {
		return err
	}
	p.ports = map[string]uint32{}
	var numbers []uint32
	for _, port := range declaredPorts(spec) {
		numbers = append(numbers, uint32(port.ContainerPort))
		if port.Name != "" {
			p.ports[port.Name] = uint32(port.ContainerPort)
		}
	}
	p.proxy, err = sidecar.Start(e.ctx, sidecar.Options{
		Kind: sidecar.Router, Discovery: e.cp.DiscoveryAddress, Pod: p.name, Namespace: e.Namespace, Workload: workload, Labels: p.labels,
		Address: p.address, Ports: numbers, OwnPorts: true, Resolve: e.hosts.resolve, Certificate: e.certificateOf(e.Namespace),
		EnvoyStats: e.options.EnvoyStats, Log: e.options.Log, Locality: localityOf(p.labels), ServiceAccount: p.account,
	})
	if err == nil {
		p.awaitConfiguration(e)
	}
	return err
}

// deferredClient sends an app's calls through the sidecar, which starts after
// the app.
type deferredClient struct {
	transport atomic.Pointer[http.RoundTripper]
}

func (c *deferredClient) use(t http.RoundTripper) { c.transport.Store(&t) }

func (c *deferredClient) RoundTrip(r *http.Request) (*http.Response, error) {
	t := c.transport.Load()
	if t == nil {
		return nil, errors.New("the sidecar is not there yet")
	}
	return (*t).RoundTrip(r)
}

func (p *pod) close() {
	if p.server != nil {
		_ = p.server.Close()
	}
	for _, l := range p.listeners {
		_ = l.Close()
	}
	if p.proxy != nil {
		p.proxy.Close()
	}
}

// retire closes a pod that no longer has an entry, once others had the time to
// learn of it.
func (e *Environment) retire(p *pod) {
	e.hosts.remove(p)
	e.background.Go(func() {
		timer := time.NewTimer(drainTime)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-e.ctx.Done():
		}
		p.close()
		e.kick()
	})
}

// register makes the pod's WorkloadEntry: from then on it is an endpoint of the
// Services that select it.
func (e *Environment) register(ctx context.Context, p *pod) error {
	if p.registered {
		return nil
	}
	labels := map[string]string{workloadNameLabel: p.deployment}
	for k, v := range p.labels {
		labels[k] = v
	}
	entry := &clientv1.WorkloadEntry{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.name, Namespace: e.Namespace, Labels: labels,
			Annotations: map[string]string{ApplicationAnnotation: p.listener.Addr().String()},
		},
		Spec: networkingv1.WorkloadEntry{Address: p.address, Ports: p.ports, Labels: p.labels, Locality: localityOf(p.labels)},
	}
	_, err := e.istio.NetworkingV1().WorkloadEntries(e.Namespace).Create(ctx, entry, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("register pod %s: %w", p.name, err)
	}
	p.registered = true
	return nil
}

func (e *Environment) deregister(ctx context.Context, p *pod) error {
	if !p.registered {
		return nil
	}
	err := e.istio.NetworkingV1().WorkloadEntries(e.Namespace).Delete(ctx, p.name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deregister pod %s: %w", p.name, err)
	}
	p.registered = false
	return nil
}

func localityOf(labels map[string]string) string {
	return strings.ReplaceAll(labels[localityLabel], ".", "/")
}

func environmentOf(spec corev1.PodSpec) map[string]string {
	env := map[string]string{}
	for _, c := range spec.Containers {
		for _, v := range c.Env {
			env[v.Name] = v.Value
		}
	}
	return env
}

func templateHash(d *appsv1.Deployment) string {
	raw, err := json.Marshal(d.Spec.Template)
	if err != nil { // it came as JSON
		panic(err)
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// podSuffix makes a name's end of an address: unique within a control plane.
func podSuffix(address string) string {
	parts := strings.Split(address, ".")
	suffix := ""
	for _, part := range parts[1:] {
		n, _ := strconv.Atoi(part) // the control plane's own addresses are numbers
		suffix += fmt.Sprintf("%02x", n)
	}
	return suffix
}

// fetchWhole gets a page and says what is missing of it.
func fetchWhole(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close() //nolint:errcheck // decoded or of no interest
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, response.Status)
	}
	var page bookinfo.Page
	if err := json.NewDecoder(response.Body).Decode(&page); err != nil {
		return err
	}
	if !page.Complete() {
		return errors.New(page.Details.Error + page.Reviews.Error)
	}
	return nil
}
