package session

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/setup"
)

// The operator's identity, whose rights are those of config/rbac and no more.
const (
	operatorNamespace = "sluice-system"
	operatorUser      = "system:serviceaccount:" + operatorNamespace + ":sluice-operator"
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

// StartCluster starts a control plane and installs Sluice's CRDs and the operator's rights.
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
	if err := c.CreateNamespace(ctx, operatorNamespace); err != nil {
		return err
	}
	if err := setup.InstallCRDs(ctx, c.ControlPlane); err != nil {
		return err
	}
	if err := c.applyFolder(ctx, "config/rbac"); err != nil {
		return err
	}
	c.OperatorKubeConfig, err = c.KubeConfigFor(operatorUser, "system:serviceaccounts", "system:serviceaccounts:"+operatorNamespace, "system:authenticated")
	return err
}

// applyFolder applies each manifest of a folder of the repository.
func (c *Cluster) applyFolder(ctx context.Context, folder string) error {
	files, err := filepath.Glob(filepath.Join(c.Root, folder, "*.yaml"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		manifests, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := c.Kube.Apply(ctx, operatorNamespace, manifests); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}
