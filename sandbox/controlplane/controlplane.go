package controlplane

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"

	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/gitserver"
	"sluice.dev/sluice/sandbox/internal/filelock"
	"sluice.dev/sluice/sandbox/kube"
	"sluice.dev/sluice/sandbox/process"
)

// Options say where a control plane lives.
type Options struct {
	// DataDir holds all state, logs and kubeconfigs; what an earlier control plane
	// left there is discarded. Empty means a temporary folder, gone after Stop.
	DataDir string
	// Out is told what takes long. Nil means silence.
	Out io.Writer
	// SkipIstioCRDs leaves Istio's CRDs to a later InstallIstioCRDs.
	SkipIstioCRDs bool
	// ScopedGateways lets an ingress gateway serve the Gateways of its own namespace alone, so that many can live side by side:
	// istiod's PILOT_SCOPE_GATEWAY_TO_NAMESPACE.
	ScopedGateways bool
}

// ControlPlane is a set of running servers. Fields of servers that were not
// started are empty.
type ControlPlane struct {
	DataDir string

	// RESTConfig acts as a member of system:masters, without client-side limits.
	RESTConfig *rest.Config
	// KubeConfig is the file of a kubeconfig for the same user.
	KubeConfig string
	// Kubectl is the kubectl of the API server's version.
	Kubectl string
	// Kube applies manifests as that user.
	Kube *kube.Client

	// DiscoveryAddress is istiod's plaintext xDS, as host:port.
	DiscoveryAddress string
	// DiscoveryURL is istiod's HTTP server (/ready, /debug/...).
	DiscoveryURL string
	// PrometheusURL is the base URL of Prometheus.
	PrometheusURL string
	// Git serves repositories over HTTP at GitURL.
	Git    *gitserver.Server
	GitURL string

	// The servers that are processes, for tests that stop, kill, suspend or restart
	// one of them. They keep their address and, Git too, what they have stored.
	Etcd, APIServer, Discovery, Prometheus *process.Process

	binaries  binaries.Dir
	ports     ports
	token     string
	lock      *filelock.Lock
	temporary bool
	crashes   chan error
	addresses atomic.Uint32
	stopOnce  sync.Once
	gitLog    *os.File
}

type ports struct{ etcd, etcdPeer, apiServer, discoveryHTTP, discoveryGRPC, discoveryMetrics, prometheus, git int }

// Start builds the servers if need be and starts all of them. ctx bounds the
// start, not their lives: call Stop. When the calling program ends without it,
// for whatever reason, the servers die too.
func Start(ctx context.Context, options Options) (*ControlPlane, error) {
	return start(ctx, options, func(ctx context.Context, c *ControlPlane) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error {
			if err := c.startAPI(ctx, options); err != nil {
				return err
			}
			return c.startDiscovery(ctx, options)
		})
		group.Go(func() error { return c.startPrometheus(ctx) })
		group.Go(func() error { return c.startGit(ctx) })
		return group.Wait()
	})
}

// StartAPIOnly starts etcd and the API server, with Istio's CRDs, and no more.
func StartAPIOnly(ctx context.Context, options Options) (*ControlPlane, error) {
	return start(ctx, options, func(ctx context.Context, c *ControlPlane) error {
		return c.startAPI(ctx, options)
	})
}

func start(ctx context.Context, options Options, servers func(context.Context, *ControlPlane) error) (*ControlPlane, error) {
	out := options.Out
	if out == nil {
		out = io.Discard
	}
	programs, err := binaries.Ensure(ctx, out)
	if err != nil {
		return nil, err
	}
	c := &ControlPlane{binaries: programs, Kubectl: programs.Kubectl(), crashes: make(chan error, 16)}
	if err := c.prepareDataDir(options.DataDir); err != nil {
		return nil, err
	}
	err = c.choosePorts()
	if err == nil {
		err = servers(ctx, c)
	}
	if err != nil {
		c.Stop()
		return nil, fmt.Errorf("start the control plane: %w", err)
	}
	return c, nil
}

func (c *ControlPlane) startAPI(ctx context.Context, options Options) error {
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	if err := c.startAPIServer(ctx); err != nil {
		return err
	}
	if options.SkipIstioCRDs {
		return nil
	}
	return c.InstallIstioCRDs(ctx)
}

// Stop ends all servers and waits for them. It may be called more than once.
func (c *ControlPlane) Stop() {
	c.stopOnce.Do(func() {
		if c.Git != nil {
			c.Git.Stop()
		}
		_ = c.gitLog.Close() // nil is fine
		// In order of dependence, so that the logs end without complaints. Killing
		// saves the seconds that servers take to save what nobody will read.
		for _, p := range []*process.Process{c.Discovery, c.Prometheus, c.APIServer, c.Etcd} {
			if p != nil {
				p.Kill()
			}
		}
		c.lock.Release()
		if c.temporary {
			_ = os.RemoveAll(c.DataDir) // at worst the system's cleaner does it
		}
	})
}

// Crashed delivers an error, with the end of its log, for each server that ends
// without having been told to.
func (c *ControlPlane) Crashed() <-chan error { return c.crashes }

func (c *ControlPlane) crashed(err error) {
	select {
	case c.crashes <- err:
	default: // nobody listens, and 16 crashes tell enough
	}
}

// NewPodAddress returns a loopback address (127.1.0.1 and up) that no other call
// on this control plane returned.
func (c *ControlPlane) NewPodAddress() string {
	n := c.addresses.Add(1) - 1
	return fmt.Sprintf("127.%d.%d.%d", 1+n/254/256, n/254%256, 1+n%254)
}

func (c *ControlPlane) choosePorts() error {
	p := &c.ports
	targets := []*int{
		&p.etcd, &p.etcdPeer, &p.apiServer, &p.discoveryHTTP,
		&p.discoveryGRPC, &p.discoveryMetrics, &p.prometheus, &p.git,
	}
	free, err := process.FreePorts(len(targets))
	if err != nil {
		return err
	}
	for i, target := range targets {
		*target = free[i]
	}
	return nil
}

// path is a file or folder in the data folder.
func (c *ControlPlane) path(elements ...string) string {
	return filepath.Join(append([]string{c.DataDir}, elements...)...)
}
