package apitest

import (
	"context"
	"os"
	"testing"

	"k8s.io/client-go/dynamic"

	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/setup"
)

// One API server with our CRDs serves all tests of the package; what they store has names of its own.
var (
	server *controlplane.ControlPlane
	client dynamic.Interface
)

func TestMain(m *testing.M) {
	setup.Main("apitest", func(ctx context.Context) (int, error) { return run(ctx, m) })
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	if server, err = setup.StartAPI(ctx, controlplane.Options{Out: os.Stderr}); err != nil {
		return 0, err
	}
	defer server.Stop()
	if client, err = dynamic.NewForConfig(server.RESTConfig); err != nil {
		return 0, err
	}
	if err := server.CreateNamespace(ctx, namespace); err != nil {
		return 0, err
	}
	return m.Run(), nil
}
