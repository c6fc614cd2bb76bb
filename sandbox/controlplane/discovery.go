package controlplane

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"sluice.dev/sluice/sandbox/process"
)

const (
	istioNamespace = "istio-system"

	meshConfig = `rootNamespace: istio-system
trustDomain: cluster.local
`
)

// startDiscovery starts istiod without certificates, webhooks or a CA: proxies on
// loopback talk to it in plaintext.
func (c *ControlPlane) startDiscovery(ctx context.Context, options Options) (err error) {
	if err := c.CreateNamespace(ctx, istioNamespace); err != nil {
		return err
	}
	mesh := c.path(discoveryDir, "mesh.yaml")
	if err := os.WriteFile(mesh, []byte(meshConfig), 0o600); err != nil {
		return fmt.Errorf("istiod's mesh config: %w", err)
	}
	http, grpc := process.Address(c.ports.discoveryHTTP), process.Address(c.ports.discoveryGRPC)
	c.Discovery, err = process.Start(ctx, process.Spec{
		Name: "istiod",
		Path: c.binaries.Discovery(),
		Args: []string{
			"discovery",
			"--kubeconfig", c.KubeConfig,
			"--meshConfig", mesh,
			"--registries", "Kubernetes",
			"--httpAddr", http, "--httpsAddr", "",
			"--grpcAddr", grpc, "--secureGRPCAddr", "",
			"--monitoringAddr", process.Address(c.ports.discoveryMetrics),
			"--ctrlz_port", "0", // any: the default would clash between sandboxes
			"--shutdownDuration", "0s",
		},
		Env: []string{
			"POD_NAMESPACE=" + istioNamespace,
			"POD_NAME=istiod",
			"PILOT_CERT_PROVIDER=none",
			"ENABLE_CA_SERVER=false",
			"VALIDATION_WEBHOOK_CONFIG_NAME=",
			"INJECTION_WEBHOOK_CONFIG_NAME=",
			// Near the defaults of 100 ms and 10 s, so that rollouts meet real
			// propagation, yet a busy test does not wait for the longest.
			"PILOT_DEBOUNCE_AFTER=50ms",
			"PILOT_DEBOUNCE_MAX=1s",
			// As releases before 1.28 do, and the tutorials show: a mirrored
			// request's host ends in -shadow.
			"DISABLE_SHADOW_HOST_SUFFIX=false",
			"PILOT_SCOPE_GATEWAY_TO_NAMESPACE=" + strconv.FormatBool(options.ScopedGateways),
		},
		Dir:       c.path(discoveryDir), // it looks for ./etc
		LogDir:    c.path(logsDir),
		Ready:     process.HTTPReady("http://" + http + "/ready"),
		StopGrace: stopGrace,
		OnCrash:   c.crashed,
	})
	c.DiscoveryAddress, c.DiscoveryURL = grpc, "http://"+http
	return err
}
