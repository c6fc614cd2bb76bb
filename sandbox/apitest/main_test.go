package apitest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/dynamic"

	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/controlplane"
)

// One API server with our CRDs serves all tests of the package; what they store has names of its own.
var (
	server *controlplane.ControlPlane
	client dynamic.Interface
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "apitest:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "apitest")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if server, err = controlplane.StartAPIOnly(ctx, controlplane.Options{DataDir: dir, Out: os.Stderr}); err != nil {
		return 0, err
	}
	defer server.Stop()
	if err := installCRDs(ctx); err != nil {
		return 0, err
	}
	if client, err = dynamic.NewForConfig(server.RESTConfig); err != nil {
		return 0, err
	}
	if err := server.CreateNamespace(ctx, namespace); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

func installCRDs(ctx context.Context) error {
	root, err := binaries.RepositoryRoot()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(root, "config", "crd", "sluice.dev_*.yaml"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("there are no CRDs in config/crd: run make generate")
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := server.Kube.Apply(ctx, "", text); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
	}
	return nil
}
