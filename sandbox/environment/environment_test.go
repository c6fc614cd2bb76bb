package environment_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/environment"
)

// The tests share one control plane, since each start takes seconds; each has a
// namespace of its own.
var plane *controlplane.ControlPlane

func TestMain(m *testing.M) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute) // a first build takes 10
	defer cancel()
	var err error
	if plane, err = controlplane.Start(ctx, controlplane.Options{Out: os.Stderr}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	plane.Stop()
	os.Exit(code)
}

func deploy(t *testing.T, namespace string, o environment.Options) *environment.Environment {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	began := time.Now()
	e, err := environment.Deploy(ctx, plane, namespace, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("deployed %s in %s", namespace, time.Since(began))
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestDeploy(t *testing.T) {
	deploy(t, "smoke", environment.Options{Gateway: true})
}
