package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"sluice.dev/sluice/sandbox/kube"
	"sluice.dev/sluice/sandbox/process"
)

const stopGrace = 3 * time.Second

func (c *ControlPlane) startEtcd(ctx context.Context) (err error) {
	client := "http://" + process.Address(c.ports.etcd)
	peer := "http://" + process.Address(c.ports.etcdPeer)
	c.Etcd, err = process.Start(ctx, process.Spec{
		Name: "etcd",
		Path: c.binaries.Etcd(),
		Args: []string{
			"--data-dir", c.path(etcdDir),
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", "default=" + peer,
			"--unsafe-no-fsync", // a sandbox need not survive a power cut
			"--log-level", "warn",
		},
		LogDir:    c.path(logsDir),
		Ready:     process.HTTPReady(client + "/health"),
		StopGrace: stopGrace,
		OnCrash:   c.crashed,
	})
	return err
}

// startAPIServer starts the API server and fills in how to reach it.
func (c *ControlPlane) startAPIServer(ctx context.Context) (err error) {
	key, tokens := c.path(certificatesDir, "service-account.key"), c.path(certificatesDir, "tokens.csv")
	if err := writeServiceAccountKey(key); err != nil {
		return err
	}
	c.token = rand.Text()
	admin := fmt.Sprintf("%s,%s,%s,%s\n", c.token, adminUser, adminUser, "system:masters")
	if err := os.WriteFile(tokens, []byte(admin), 0o600); err != nil {
		return err
	}
	c.APIServer, err = process.Start(ctx, process.Spec{
		Name:         "kube-apiserver",
		Path:         c.binaries.APIServer(),
		Args:         c.apiServerArgs(key, tokens),
		Env:          []string{"GOGC=200"}, // starts faster for 100 MB more
		LogDir:       c.path(logsDir),
		Ready:        process.HTTPReady(c.apiServerURL() + "/readyz"),
		ReadyTimeout: time.Minute,
		StopGrace:    stopGrace,
		OnCrash:      c.crashed,
	})
	if err != nil {
		return err
	}
	return c.connect()
}

func (c *ControlPlane) apiServerArgs(serviceAccountKey, tokens string) []string {
	return []string{
		"--etcd-servers=http://" + process.Address(c.ports.etcd),
		"--cert-dir=" + c.path(certificatesDir),
		"--bind-address=127.0.0.1",
		"--secure-port=" + strconv.Itoa(c.ports.apiServer),
		// Works on a machine whose only interface is loopback, which Endpoints
		// could not name: so no endpoints for the kubernetes Service.
		"--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + serviceAccountKey,
		"--service-account-signing-key-file=" + serviceAccountKey,
		"--token-auth-file=" + tokens,
		"--authorization-mode=RBAC",
		"--profiling=false",
	}
}

func (c *ControlPlane) apiServerURL() string {
	return "https://" + process.Address(c.ports.apiServer)
}

// InstallIstioCRDs installs the CRDs of the Istio that istiod is built from, apart
// from some, by their full names (virtualservices.networking.istio.io).
func (c *ControlPlane) InstallIstioCRDs(ctx context.Context, except ...string) error {
	manifests, err := os.ReadFile(c.binaries.IstioCRDs())
	if err != nil {
		return err
	}
	crds, err := kube.Decode(manifests)
	if err != nil {
		return fmt.Errorf("decode Istio's CRDs: %w", err)
	}
	crds = slices.DeleteFunc(crds, func(crd *unstructured.Unstructured) bool { return slices.Contains(except, crd.GetName()) })
	return c.Kube.ApplyObjects(ctx, "", crds...)
}

// connect makes the administrator's clients, once the API server has written the
// certificate that they must trust.
func (c *ControlPlane) connect() error {
	ca, err := os.ReadFile(c.path(certificatesDir, "apiserver.crt"))
	if err != nil {
		return fmt.Errorf("the API server's certificate: %w", err)
	}
	c.RESTConfig = c.restConfig(ca)
	if c.KubeConfig, err = c.writeKubeConfig(adminUser, c.identity(ca)); err != nil {
		return err
	}
	c.Kube, err = kube.New(c.RESTConfig)
	return err
}

func writeServiceAccountKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}
