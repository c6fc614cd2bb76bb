package session

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/process"
)

// OperatorBinary is the one that SLUICE_OPERATOR names, else one built now.
func OperatorBinary(ctx context.Context) (string, error) {
	if path := os.Getenv("SLUICE_OPERATOR"); path != "" {
		return path, nil
	}
	root, err := binaries.RepositoryRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("sluice-operator-%d", os.Getpid()))
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/operator")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the operator: %w: %s", err, out)
	}
	return path, nil
}

// OperatorOptions say how an operator runs.
type OperatorOptions struct {
	// Binary of the operator.
	Binary string
	// Name of its log file, default operator.
	Name string
	// Namespaces that it watches; none: all.
	Namespaces []string
	// LeaderElect makes it one of several, of which one acts; without it, it acts at once.
	LeaderElect bool
	// PropagationDelay, default 1s: the sandbox's istiod pushes within a fraction of that.
	PropagationDelay time.Duration
	// ProbeAllow is the host:port that probes may ask; * for any.
	ProbeAllow string
	// Args are added at the end.
	Args []string
}

// Operator is a running operator process.
type Operator struct {
	*process.Process
	// MetricsURL is its /metrics.
	MetricsURL string
	// HookURL is the base URL of its hook port, without a trailing slash.
	HookURL string
}

// StartOperator runs the operator with the rights of config/default until it is ready.
func (c *Cluster) StartOperator(ctx context.Context, o OperatorOptions) (*Operator, error) {
	ports, err := process.FreePorts(3)
	if err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = "operator"
	}
	if o.PropagationDelay == 0 {
		o.PropagationDelay = time.Second
	}
	health, metrics, hooks := process.Address(ports[0]), process.Address(ports[1]), process.Address(ports[2])
	args := []string{
		"--kubeconfig=" + c.OperatorKubeConfig,
		"--prometheus-url=" + c.PrometheusURL,
		"--propagation-delay=" + o.PropagationDelay.String(),
		"--health-probe-bind-address=" + health,
		"--metrics-bind-address=" + metrics,
		"--hook-bind-address=" + hooks,
		"--leader-elect=" + strconv.FormatBool(o.LeaderElect),
		"--leader-election-namespace=" + operatorNamespace,
	}
	if o.ProbeAllow != "" {
		args = append(args, "--probe-allow="+o.ProbeAllow, "--probe-allow-loopback")
	}
	for _, namespace := range o.Namespaces {
		args = append(args, "--watch-namespace="+namespace)
	}
	c.forge.addPort(hookPort{url: "http://" + hooks, namespaces: o.Namespaces})
	child, err := process.Start(ctx, process.Spec{
		Name: o.Name, Path: o.Binary, Args: append(args, o.Args...), LogDir: filepath.Join(c.DataDir, "logs"),
		Ready: process.HTTPReady("http://" + health + "/readyz"), ReadyTimeout: time.Minute,
	})
	if err != nil {
		return nil, fmt.Errorf("starting the operator: %w", err)
	}
	return &Operator{Process: child, MetricsURL: "http://" + metrics + "/metrics", HookURL: "http://" + hooks}, nil
}
