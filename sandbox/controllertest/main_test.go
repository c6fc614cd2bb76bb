package controllertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	istioscheme "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/go-logr/logr"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/controlplane"
)

// One API server and one operator serve all tests of the package that need no other; each test has a namespace of its own.
var (
	server *controlplane.ControlPlane
	shared *operator
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "controllertest:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if server, err = startServer(ctx, controlplane.Options{Out: os.Stderr}); err != nil {
		return 0, err
	}
	defer server.Stop()
	if shared, err = startOperator(server.RESTConfig); err != nil {
		return 0, err
	}
	code = m.Run()
	return code, shared.stop()
}

// startServer starts an API server that knows Sluice's kinds.
func startServer(ctx context.Context, options controlplane.Options) (*controlplane.ControlPlane, error) {
	s, err := controlplane.StartAPIOnly(ctx, options)
	if err != nil {
		return nil, err
	}
	if err := installCRDs(ctx, s); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func installCRDs(ctx context.Context, s *controlplane.ControlPlane) error {
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
		if err := s.Kube.Apply(ctx, "", text); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(file), err)
		}
	}
	return nil
}

func newScheme() *runtime.Scheme {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1.AddToScheme, istioscheme.AddToScheme} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	return scheme
}

func newClient(s *controlplane.ControlPlane) (client.WithWatch, error) {
	return client.NewWithWatch(s.RESTConfig, client.Options{Scheme: newScheme()})
}
