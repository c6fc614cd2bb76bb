package session

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/setup"
)

// The operator's identity, whose rights are those of config/default and no more.
const (
	operatorNamespace = "sluice-system"
	operatorAccount   = "sluice-operator"
)

// Cluster is a control plane in which Sluice is installed.
type Cluster struct {
	*controlplane.ControlPlane
	// Client reads and writes as a cluster administrator, uncached.
	Client client.WithWatch
	// Root of the repository.
	Root string
	// OperatorKubeConfig acts as the operator's service account.
	OperatorKubeConfig string

	forge *forge
}

// StartCluster starts a control plane and installs Sluice by config/default.
func StartCluster(ctx context.Context, dataDir string, out io.Writer) (*Cluster, error) {
	return StartClusterWith(ctx, controlplane.Options{DataDir: dataDir, Out: out})
}

// StartClusterWith is StartCluster with a control plane of one's own choice.
func StartClusterWith(ctx context.Context, options controlplane.Options) (*Cluster, error) {
	root, err := binaries.RepositoryRoot()
	if err != nil {
		return nil, err
	}
	plane, err := controlplane.Start(ctx, options)
	if err != nil {
		return nil, err
	}
	cluster := &Cluster{ControlPlane: plane, Root: root, forge: newForge()}
	plane.Git.OnPush(cluster.forge.pushed)
	if err := cluster.install(ctx); err != nil {
		plane.Stop()
		return nil, fmt.Errorf("installing Sluice: %w", err)
	}
	return cluster, nil
}

func (c *Cluster) install(ctx context.Context) error {
	scheme, err := setup.Scheme()
	if err != nil {
		return err
	}
	if c.Client, err = client.NewWithWatch(c.RESTConfig, client.Options{Scheme: scheme}); err != nil {
		return err
	}
	// As a user does; the Deployment stays without pods, since no controller-manager runs: StartOperator is in its place.
	if _, err := c.KubectlRun(ctx, "apply", "--server-side", "-k", filepath.Join(c.Root, "config", "default")); err != nil {
		return err
	}
	if _, err := c.KubectlRun(ctx, "wait", "--for=condition=Established", "--timeout=30s",
		"crd/rollouts.sluice.dev", "crd/gitsyncs.sluice.dev"); err != nil {
		return err
	}
	// A token of its own: to impersonate service accounts is a right that has to be its own as well.
	c.OperatorKubeConfig, err = c.KubeConfigForServiceAccount(ctx, operatorNamespace, operatorAccount)
	return err
}
