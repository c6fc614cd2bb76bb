package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"sluice.dev/sluice/analysis"
	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/controllers"
	"sluice.dev/sluice/gitsync"
	"sluice.dev/sluice/internal/pipeline"
)

// Leader election takes a lease in the operator's own namespace, and tells of it there in an event of the core group.
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=sluice-system,resources=leases,verbs=create
// +kubebuilder:rbac:groups=coordination.k8s.io,namespace=sluice-system,resources=leases,resourceNames=sluice-operator,verbs=get;update
// +kubebuilder:rbac:groups="",namespace=sluice-system,resources=events,verbs=create;patch

const (
	leaseName = "sluice-operator"
	// A killed leader is replaced within leaseDuration and a retry.
	leaseDuration, renewDeadline, retryPeriod = 15 * time.Second, 10 * time.Second, 2 * time.Second
	// shutdownTimeout leaves five of the thirty seconds that a pod has to end.
	shutdownTimeout = 25 * time.Second
	readyTimeout    = time.Second
)

// newManager wires everything. Nothing runs yet.
func newManager(f *flags, logger logr.Logger) (manager.Manager, error) {
	config, err := restConfig(f)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering Kubernetes' kinds: %w", err)
	}
	if err := v1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("registering Sluice's kinds: %w", err)
	}
	options, doubts := managerOptions(f, scheme, logger), controllers.NewDoubts()
	options.Cache.DefaultWatchErrorHandler = doubts.HandleWatchError
	mgr, err := ctrl.NewManager(config, options)
	if err != nil {
		return nil, fmt.Errorf("making the manager: %w", err)
	}
	if err := addRollouts(mgr, f, doubts, logger); err != nil {
		return nil, err
	}
	if err := addGitSyncs(mgr, f); err != nil {
		return nil, err
	}
	if err := addWebhook(mgr, f, logger); err != nil {
		return nil, err
	}
	return mgr, addChecks(mgr)
}

func restConfig(f *flags) (*rest.Config, error) {
	config, err := ctrl.GetConfig()
	if f.kubeconfig != "" {
		config, err = clientcmd.BuildConfigFromFlags("", f.kubeconfig)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the API server (--kubeconfig=%s): %w", f.kubeconfig, err)
	}
	config.QPS, config.Burst = float32(f.qps), f.burst
	config.UserAgent = "sluice-operator"
	return config, nil
}

func managerOptions(f *flags, scheme *runtime.Scheme, logger logr.Logger) ctrl.Options {
	lease, renew, retry, shutdown := leaseDuration, renewDeadline, retryPeriod, shutdownTimeout
	options := ctrl.Options{
		Scheme: scheme, Logger: logger,
		Metrics:                server.Options{BindAddress: f.metricsAddress},
		HealthProbeBindAddress: f.healthAddress, PprofBindAddress: f.pprofAddress,
		LeaderElection: f.leaderElect, LeaderElectionID: leaseName, LeaderElectionNamespace: f.leaderNamespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &lease, RenewDeadline: &renew, RetryPeriod: &retry,
		GracefulShutdownTimeout: &shutdown,
		Cache:                   cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: controllers.CacheByObject()},
		Client:                  client.Options{Cache: &client.CacheOptions{Unstructured: true}},
	}
	if len(f.namespaces) > 0 {
		options.Cache.DefaultNamespaces = map[string]cache.Config{}
		for _, namespace := range f.namespaces {
			options.Cache.DefaultNamespaces[namespace] = cache.Config{}
		}
	}
	return options
}

// addRollouts adds the controller of Rollouts and the analysis that wakes it.
func addRollouts(mgr manager.Manager, f *flags, doubts *controllers.Doubts, logger logr.Logger) error {
	var reconciler *controllers.RolloutReconciler
	analyst, err := newAnalyst(f, mgr.GetConfig(), logger, func(key types.NamespacedName) { reconciler.Wake(key) })
	if err != nil {
		return err
	}
	recorder, send, err := newEvents(mgr.GetConfig(), mgr.GetScheme())
	if err != nil {
		return err
	}
	if err := mgr.Add(send); err != nil {
		return fmt.Errorf("adding the events: %w", err)
	}
	reconciler = controllers.NewRolloutReconciler(controllers.Dependencies{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: clock.RealClock{},
		Analyst: analyst, Events: recorder,
		Config:  pipeline.Config{PropagationDelay: f.propagationDelay, Settle: f.settle, UnscopedFaults: f.unscopedFaults},
		Metrics: controllers.NewMetrics(metrics.Registry),
	})
	options := controllers.Options{
		MaxConcurrentReconciles: f.concurrency, Namespaces: f.namespaces, Clock: clock.RealClock{}, Doubts: doubts,
	}
	if err := reconciler.SetupWithManager(mgr, options); err != nil {
		return fmt.Errorf("adding the controller of Rollouts: %w", err)
	}
	if err := mgr.Add(analyst); err != nil {
		return fmt.Errorf("adding the analysis: %w", err)
	}
	return nil
}

func newAnalyst(f *flags, config *rest.Config, logger logr.Logger, wake func(types.NamespacedName)) (*analysis.Analyst, error) {
	options := analysis.Config{
		Clock: clock.RealClock{}, Settle: f.settle, Log: logger.WithName("analysis"), Registerer: metrics.Registry,
		ProbeAllow: analysis.ProbePolicy{Allow: f.probeAllow, AllowLoopback: f.probeAllowLoopback, Deny: addressesOf(config.Host)},
	}
	if f.prometheusURL != "" {
		prometheus, err := analysis.NewClient(f.prometheusURL, f.prometheusHTTPConfig)
		if err != nil {
			return nil, fmt.Errorf("--prometheus-url: %w", err)
		}
		options.Prometheus = prometheus
	}
	return analysis.New(options, wake), nil
}

// addressesOf the API server, which probes may not reach. A name that does not resolve has none.
func addressesOf(apiServer string) []netip.Addr {
	host := apiServer
	if u, err := url.Parse(apiServer); err == nil && u.Host != "" {
		host = u.Hostname()
	}
	if address, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{address}
	}
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	return addresses
}

func addGitSyncs(mgr manager.Manager, f *flags) error {
	reconciler := &gitsync.Reconciler{Clock: clock.RealClock{}}
	err := reconciler.SetupWithManager(mgr, gitsync.Options{
		DefaultServiceAccount: f.defaultServiceAccount, FetchTimeout: f.gitTimeout,
		MaxConcurrentReconciles: f.gitConcurrency,
	})
	if err != nil {
		return fmt.Errorf("adding the controller of GitSyncs: %w", err)
	}
	return nil
}

// addChecks: alive as long as it answers, ready once the caches are filled.
func addChecks(mgr manager.Manager) error {
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return fmt.Errorf("adding /healthz: %w", err)
	}
	err := mgr.AddReadyzCheck("caches", func(req *http.Request) error {
		ctx, cancel := context.WithTimeout(req.Context(), readyTimeout)
		defer cancel()
		if !mgr.GetCache().WaitForCacheSync(ctx) {
			return fmt.Errorf("the caches are being filled")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("adding /readyz: %w", err)
	}
	return nil
}
