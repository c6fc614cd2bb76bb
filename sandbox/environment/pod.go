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

	app        *bookinfo.App
	server     *http.Server
	listener   net.Listener
	proxy      *sidecar.Proxy
	configured atomic.Bool // the sidecar has its configuration
	refused    bool        // its environment says READY=false
	registered bool        // guarded by the environment's lock
}

// startPod starts an app and its sidecar as the Deployment's template says.
func (e *Environment) startPod(d *appsv1.Deployment) (_ *pod, err error) {
	template := d.Spec.Template
	address := e.cp.NewPodAddress()
	p := &pod{
		name: fmt.Sprintf("%s-%s-%s", d.Name, templateHash(d)[:8], podSuffix(address)), hash: templateHash(d),
		address: address, labels: template.Labels, deployment: d.Name,
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	env := environmentOf(template.Spec)
	p.refused = env["READY"] == "false"
	if p.listener, err = (&net.ListenConfig{}).Listen(e.ctx, "tcp", net.JoinHostPort(address, "0")); err != nil {
		return nil, fmt.Errorf("pod %s: %w", p.name, err)
	}
	p.proxy, err = sidecar.Start(e.ctx, sidecar.Options{
		Discovery: e.cp.DiscoveryAddress, Pod: p.name, Namespace: e.Namespace, Workload: d.Name, Labels: p.labels,
		Address: address, Application: p.listener.Addr().String(), PortNames: portNames(template.Spec), EnvoyStats: e.options.EnvoyStats, Log: e.options.Log,
	})
	if err != nil {
		return nil, err
	}
	p.ports = map[string]uint32{}
	for _, name := range portNames(template.Spec) {
		p.ports[name] = uint32(p.proxy.InboundPort()) // a Service's named targetPort is looked up there
	}
	kind := template.Annotations[AppAnnotation]
	if kind == "" {
		kind = p.labels["app"]
	}
	p.app, err = bookinfo.New(bookinfo.Options{
		Kind: kind, Version: p.labels["version"], Pod: p.name, Client: p.proxy.Client(), Env: env,
	})
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", p.name, err)
	}
	if m, ok := e.misbehave[d.Name]; ok {
		p.app.Misbehave(m)
	}
	p.server = &http.Server{Handler: p.app, ReadHeaderTimeout: 10 * time.Second}
	e.background.Go(func() { _ = p.server.Serve(p.listener) }) // ends with close
	e.background.Go(func() {
		if p.proxy.WaitReady(e.ctx) == nil {
			p.configured.Store(true)
			e.kick()
		}
	})
	return p, nil
}

func (p *pod) close() {
	if p.server != nil {
		_ = p.server.Close()
	}
	if p.listener != nil {
		_ = p.listener.Close()
	}
	if p.proxy != nil {
		p.proxy.Close()
	}
}

// retire closes a pod that no longer has an entry, once others had the time to
// learn of it.
func (e *Environment) retire(p *pod) {
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
		Spec: networkingv1.WorkloadEntry{Address: p.address, Ports: p.ports, Labels: p.labels},
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

// portNames gives the containers' named ports, all of which lead to the sidecar.
func portNames(spec corev1.PodSpec) []string {
	names := []string{"http"}
	for _, c := range spec.Containers {
		for _, port := range c.Ports {
			if port.Name != "" && !slices.Contains(names, port.Name) {
				names = append(names, port.Name)
			}
		}
	}
	return names
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
