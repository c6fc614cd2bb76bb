package gitsynctest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap/zapcore"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"sluice.dev/sluice/gitsync"
	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/gitserver"
	"sluice.dev/sluice/sandbox/process"
	"sluice.dev/sluice/sandbox/setup"
)

// One API server, one Git server and one manager serve all tests; each has a namespace and a repository of its own.
var (
	server *controlplane.ControlPlane
	git    *gitserver.Server
	admin  client.Client
)

func TestMain(m *testing.M) {
	setup.Main("gitsynctest", func(ctx context.Context) (int, error) { return run(ctx, m) })
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dir, err := os.MkdirTemp("", "gitsynctest")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if server, err = setup.StartAPI(ctx, controlplane.Options{DataDir: filepath.Join(dir, "api"), Out: os.Stderr}); err != nil {
		return 0, err
	}
	defer server.Stop()
	if err := server.InstallIstioCRDs(ctx); err != nil {
		return 0, err
	}
	ports, err := process.FreePorts(1)
	if err != nil {
		return 0, err
	}
	if git, err = gitserver.Start(ctx, filepath.Join(dir, "git"), fmt.Sprintf("127.0.0.1:%d", ports[0]), os.Stderr); err != nil {
		return 0, err
	}
	defer git.Stop()
	stopped, err := startManager(ctx)
	if err != nil {
		return 0, err
	}
	code = m.Run()
	cancel()
	return code, <-stopped
}

// startManager runs the controller as a service account that has the rights of the package's RBAC markers and no others.
func startManager(ctx context.Context) (<-chan error, error) {
	scheme, err := setup.Scheme()
	if err != nil {
		return nil, err
	}
	if admin, err = client.New(server.RESTConfig, client.Options{Scheme: scheme}); err != nil {
		return nil, err
	}
	kubeconfig, err := operatorIdentity(ctx)
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	ctrl.SetLogger(zap.New(zap.WriteTo(os.Stderr), zap.Level(zapcore.WarnLevel)))
	manager, err := ctrl.NewManager(config, ctrl.Options{Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}})
	if err != nil {
		return nil, err
	}
	reconciler := &gitsync.Reconciler{Clock: clock.RealClock{}}
	if err := reconciler.SetupWithManager(manager, gitsync.Options{FetchTimeout: fetchTimeout}); err != nil {
		return nil, err
	}
	stopped := make(chan error, 1)
	go func() { stopped <- manager.Start(ctx) }()
	return stopped, nil
}

func operatorIdentity(ctx context.Context) (kubeconfig string, err error) {
	const namespace, name = "sluice-system", "default"
	if err := server.CreateNamespace(ctx, namespace); err != nil {
		return "", err
	}
	rule := func(group, resource string, verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: verbs}
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "operator"}, Rules: []rbacv1.PolicyRule{
		rule("sluice.dev", "gitsyncs", "get", "list", "watch", "patch"),
		rule("sluice.dev", "gitsyncs/status", "get", "patch", "update"),
		rule("sluice.dev", "rollouts", "get", "list", "watch"),
		rule("networking.istio.io", "virtualservices", "list"),
		rule("", "secrets", "get"),
		rule("", "services", "get"),
		rule("", "serviceaccounts", "impersonate"),
		rule("events.k8s.io", "events", "create", "patch", "update"),
	}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "operator"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "operator"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name}},
	}
	if err := errors.Join(admin.Create(ctx, role), admin.Create(ctx, binding)); err != nil {
		return "", err
	}
	return server.KubeConfigForServiceAccount(ctx, namespace, name)
}
