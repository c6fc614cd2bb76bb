package setup

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/controlplane"
)

// Main ends the process of a package's tests with the code that run returns, or with 1 and what went wrong around them.
func Main(pkg string, run func(context.Context) (code int, err error)) {
	code, err := run(context.Background())
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", pkg, err)
		code = 1
	}
	os.Exit(code)
}

// sideBySide is how many tests of a package run at the same time.
const sideBySide = "4"

// RunSideBySide has more tests run at the same time than there are cores, unless the command line says how many: those against whole
// sandboxes wait for most of their time.
func RunSideBySide() error {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if given {
		return nil
	}
	return flag.Set("test.parallel", sideBySide)
}

// Scheme has Kubernetes' kinds, Istio's and Sluice's.
func Scheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	return scheme, errors.Join(clientgoscheme.AddToScheme(scheme), networking.AddToScheme(scheme), v1.AddToScheme(scheme))
}

// StartAPI starts an API server that knows Sluice's kinds, and no more. Stop it when the tests are over.
func StartAPI(ctx context.Context, options controlplane.Options) (*controlplane.ControlPlane, error) {
	server, err := controlplane.StartAPIOnly(ctx, options)
	if err != nil {
		return nil, err
	}
	if err := InstallCRDs(ctx, server); err != nil {
		server.Stop()
		return nil, fmt.Errorf("installing Sluice's CRDs: %w", err)
	}
	return server, nil
}

// InstallCRDs applies the CRDs of this repository.
func InstallCRDs(ctx context.Context, server *controlplane.ControlPlane) error {
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
