package controllertest

import (
	"context"
	"os"
	"testing"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/setup"
)

// One API server and one operator serve all tests of the package that need no other; each test has a namespace of its own.
var (
	server *controlplane.ControlPlane
	shared *operator
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	setup.Main("controllertest", func(ctx context.Context) (int, error) { return run(ctx, m) })
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	if server, err = setup.StartAPI(ctx, controlplane.Options{Out: os.Stderr}); err != nil {
		return 0, err
	}
	defer server.Stop()
	if shared, err = startOperator(server.RESTConfig); err != nil {
		return 0, err
	}
	code = m.Run()
	return code, shared.stop()
}

func newClient(s *controlplane.ControlPlane) (client.WithWatch, error) {
	scheme, err := setup.Scheme()
	if err != nil {
		return nil, err
	}
	return client.NewWithWatch(s.RESTConfig, client.Options{Scheme: scheme})
}
