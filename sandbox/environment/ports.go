package environment

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/sidecar"
)

// startServers starts the app: HTTP on a free port, which is what a pod without
// declared ports has, and a server behind each port that its containers declare.
func (p *pod) startServers(ctx context.Context, e *Environment, kind string, spec corev1.PodSpec) ([]sidecar.AppPort, error) {
	main, err := p.listen(ctx, 0)
	if err != nil {
		return nil, err
	}
	p.listener = main
	e.background.Go(func() { p.serveHTTP(main) })
	var ports []sidecar.AppPort
	for _, port := range declaredPorts(spec) {
		number := uint32(port.ContainerPort)
		l, err := p.listenAt(ctx, number)
		if err != nil {
			return nil, err
		}
		e.background.Go(func() { p.serve(l, kind, port.Name) })
		ports = append(ports, sidecar.AppPort{Name: port.Name, Number: number, Application: l.Addr().String()})
	}
	return ports, nil
}

// serve speaks what the port's name says, as Istio takes it from a Service.
func (p *pod) serve(l net.Listener, kind, name string) {
	spoken, _, _ := strings.Cut(name, "-")
	switch {
	case spoken == "grpc":
		p.app.ServeGRPC(l)
	case kind == bookinfo.TCPEcho && (spoken == "tls" || spoken == "https"):
		p.app.ServeTCP(tls.NewListener(l, selfSigned()))
	case kind == bookinfo.TCPEcho:
		p.app.ServeTCP(l)
	case spoken == "tls" || spoken == "https":
		p.serveHTTP(tls.NewListener(l, selfSigned()))
	default:
		p.serveHTTP(l)
	}
}

func (p *pod) serveHTTP(l net.Listener) {
	_ = p.server.Serve(l) // ends with close
}

// listenAt takes the port's own number where the pod is not in the mesh: in it,
// the number is the sidecar's.
func (p *pod) listenAt(ctx context.Context, number uint32) (net.Listener, error) {
	if p.outside {
		if l, err := p.listen(ctx, number); err == nil {
			return l, nil
		}
	}
	return p.listen(ctx, 0)
}

func (p *pod) listen(ctx context.Context, number uint32) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(p.address, strconv.Itoa(int(number))))
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", p.name, err)
	}
	p.listeners = append(p.listeners, l)
	return l, nil
}

// declaredPorts gives the containers' ports, each number once.
func declaredPorts(spec corev1.PodSpec) []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	seen := map[int32]bool{}
	for _, c := range spec.Containers {
		for _, port := range c.Ports {
			if !seen[port.ContainerPort] {
				ports = append(ports, port)
			}
			seen[port.ContainerPort] = true
		}
	}
	return ports
}

// hostTable knows which pods stand for hosts outside the mesh.
type hostTable struct {
	mu    sync.Mutex
	hosts map[string][]*pod
}

// resolve is DNS for what is outside the mesh: a pod's server for the port, or
// its only one.
func (t *hostTable) resolve(host string, port uint32) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pods := t.hosts[strings.ToLower(strings.TrimSuffix(host, "."))]
	if len(pods) == 0 {
		return "", false
	}
	p := pods[int(time.Now().UnixNano())%len(pods)]
	for _, app := range p.appPorts {
		if app.Number == port {
			return app.Application, true
		}
	}
	return p.listener.Addr().String(), len(p.appPorts) == 0
}

func (t *hostTable) add(p *pod) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hosts == nil {
		t.hosts = map[string][]*pod{}
	}
	for _, host := range p.hosts {
		t.hosts[host] = append(t.hosts[host], p)
	}
}

func (t *hostTable) remove(p *pod) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, host := range p.hosts {
		t.hosts[host] = without(t.hosts[host], p)
	}
}

func without(pods []*pod, gone *pod) []*pod {
	var rest []*pod
	for _, p := range pods {
		if p != gone {
			rest = append(rest, p)
		}
	}
	return rest
}

// selfSigned is a certificate that every TLS server here shows, whatever name
// it is asked for.
var selfSigned = sync.OnceValue(func() *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // the system has no randomness
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sandbox"}, DNSNames: []string{"*"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(365 * 24 * time.Hour),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err) // the template is a constant
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}}
})

// newServer is the pod's HTTP server, for any number of ports.
func newServer(app http.Handler) *http.Server {
	return &http.Server{Handler: app, ReadHeaderTimeout: 10 * time.Second}
}

// certificateOf reads the Secrets that a Gateway's credentialName names, in the
// gateway's namespace.
func (e *Environment) certificateOf(namespace string) func(context.Context, string) (*tls.Certificate, error) {
	return func(ctx context.Context, name string) (*tls.Certificate, error) {
		secret, err := e.kube.CoreV1().Secrets(namespace).Get(ctx, path.Base(name), metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		certificate, err := tls.X509KeyPair(secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey])
		if err != nil {
			return nil, fmt.Errorf("credential in Secret %s/%s: %w", namespace, secret.Name, err)
		}
		return &certificate, nil
	}
}
