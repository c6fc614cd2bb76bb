package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluice.dev/sluice/sandbox/session"
)

const (
	namespace = "bookinfo"
	// rate of the users' requests per second.
	rate = 100
	// tcpIngressPort is the gateway's port for TCP, as in Istio's tutorials.
	tcpIngressPort = 31400
)

// stage is a sandbox in which bookinfo serves users through the gateway.
type stage struct {
	*session.Cluster
	bookinfo *session.Bookinfo
	operator *session.Operator
}

// start brings everything up, and tells what takes how long.
func start(ctx context.Context, withOperator bool, out io.Writer) (*stage, error) {
	dir, err := dataDir()
	if err != nil {
		return nil, err
	}
	s := &stage{}
	steps := []struct {
		name string
		do   func() error
	}{
		{"kube-apiserver, etcd, istiod, Prometheus and a Git server on loopback", func() (err error) {
			s.Cluster, err = session.StartCluster(ctx, dir, out)
			return err
		}},
		{"bookinfo behind sidecars that obey istiod, and a gateway", func() (err error) {
			if s.bookinfo, err = s.DeployBookinfo(ctx, namespace, true); err != nil {
				return err
			}
			s.bookinfo.Interval = "1m" // it is webhooks that make it fast
			return nil
		}},
		{"what the team has: routes to v1, and a service account for Git", func() error {
			return s.bookinfo.Apply(ctx, "mesh.yaml", "rbac.yaml")
		}},
	}
	if withOperator {
		steps = append(steps, struct {
			name string
			do   func() error
		}{"the operator, with the rights of config/default", func() error { return s.startOperator(ctx) }})
	}
	for _, step := range steps {
		began := time.Now()
		if err := step.do(); err != nil {
			s.stop()
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(out, "%5.1fs  %s\n", time.Since(began).Seconds(), step.name)
	}
	return s, nil
}

func (s *stage) startOperator(ctx context.Context) error {
	binary, err := operatorBinary()
	if err != nil {
		return err
	}
	s.operator, err = s.StartOperator(ctx, session.OperatorOptions{
		Binary: binary, ProbeAllow: s.bookinfo.ProbeHost(), LeaderElect: true,
		Args: []string{"--allow-unscoped-faults"}, // some examples have faults for everyone
	})
	return err
}

// stop takes everything down.
func (s *stage) stop() {
	if s.operator != nil {
		_ = s.operator.Stop()
	}
	if s.bookinfo != nil {
		_ = s.bookinfo.Close()
	}
	if s.Cluster != nil {
		s.Stop()
	}
}

// up stays until a signal, or until a server dies.
func up(ctx context.Context, withOperator bool, out io.Writer) error {
	s, err := start(ctx, withOperator, out)
	if err != nil {
		return err
	}
	defer s.stop()
	generator, err := s.bookinfo.StartLoad(ctx, rate)
	if err != nil {
		return err
	}
	defer generator.Stop()
	file, err := s.writeEnvironment()
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file) }()
	fmt.Fprintf(out, "\nready, with %d requests per second. In another terminal:\n\n    source %s\n    kubectl get rollouts -A\n\nCtrl-C ends it.\n", rate, file)
	var crashed <-chan struct{}
	if s.operator != nil {
		crashed = s.operator.Exited()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.Crashed():
		return err
	case <-crashed:
		return fmt.Errorf("the operator ended; its log is %s", s.operator.LogPath())
	}
}

// writeEnvironment writes .sandbox/env, for shells to source. kubectl on the PATH becomes the sandbox's own.
func (s *stage) writeEnvironment() (string, error) {
	metrics, hooks := "", ""
	if s.operator != nil {
		metrics, hooks = s.operator.MetricsURL, s.operator.HookURL
	}
	binDir := filepath.Join(s.DataDir, "bin")
	if err := os.MkdirAll(binDir, 0o750); err != nil {
		return "", err
	}
	link := filepath.Join(binDir, "kubectl")
	_ = os.Remove(link)
	if err := os.Symlink(s.Kubectl, link); err != nil {
		return "", err
	}
	host, port, err := net.SplitHostPort(s.bookinfo.IngressAddress(tcpIngressPort))
	if err != nil {
		return "", err
	}
	var content strings.Builder
	for _, variable := range [][2]string{
		{"KUBECONFIG", s.KubeConfig},
		{"PROMETHEUS_URL", s.PrometheusURL},
		{"GIT_URL", s.GitURL},
		// Istio's documents name the gateway's address and its TCP port so.
		{"INGRESS_URL", s.bookinfo.Entry},
		{"INGRESS_HOST", host},
		{"TCP_INGRESS_PORT", port},
		// For curl -x: what a pod of the mesh would ask.
		{"MESH_PROXY", s.bookinfo.ClientProxy()},
		{"OPERATOR_METRICS_URL", metrics},
		{"HOOK_URL", hooks},
		{"HOOK_TOKEN", s.bookinfo.HookToken},
		{"PATH", binDir + ":$PATH"},
	} {
		fmt.Fprintf(&content, "export %s=%s\n", variable[0], variable[1])
	}
	file := filepath.Join(s.DataDir, "env")
	return file, os.WriteFile(file, []byte(content.String()), 0o600)
}
