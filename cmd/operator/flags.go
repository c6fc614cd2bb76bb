package main

import (
	"flag"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
)

// flags of the operator.
type flags struct {
	kubeconfig     string
	namespaces     list
	concurrency    int
	gitConcurrency int
	qps            float64
	burst          int

	propagationDelay time.Duration
	settle           time.Duration
	unscopedFaults   bool

	prometheusURL        string
	prometheusHTTPConfig string
	probeAllow           list
	probeAllowLoopback   bool

	defaultServiceAccount string
	gitTimeout            time.Duration

	metricsAddress string
	healthAddress  string
	hookAddress    string
	pprofAddress   string

	leaderElect     bool
	leaderNamespace string

	logLevel  string
	logFormat string
}

// noAddress is the value of an address that leaves its server out.
const noAddress = "0"

// list is a flag that may be given several times.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

// Set adds a value.
func (l *list) Set(value string) error {
	if value == "" {
		return fmt.Errorf("an empty value; leave the flag out instead")
	}
	*l = append(*l, value)
	return nil
}

func parseFlags(args []string, out io.Writer) (*flags, error) {
	f := &flags{}
	set := flag.NewFlagSet("operator", flag.ContinueOnError)
	set.SetOutput(out)
	set.StringVar(&f.kubeconfig, "kubeconfig", "", "`file` to reach the API server with; default: $KUBECONFIG, the pod's service account, ~/.kube/config")
	set.Var(&f.namespaces, "watch-namespace", "`namespace` to work in; repeatable; default: all")
	set.IntVar(&f.concurrency, "max-concurrent-reconciles", 16, "Rollouts that are reconciled at the same time")
	set.IntVar(&f.gitConcurrency, "max-concurrent-git-syncs", 16, "GitSyncs that are reconciled at the same time")
	set.Float64Var(&f.qps, "kube-api-qps", -1, "most requests per second to the API server; -1: as many as its own flow control admits")
	set.IntVar(&f.burst, "kube-api-burst", 1000, "most requests to the API server in a burst, with --kube-api-qps")
	set.DurationVar(&f.propagationDelay, "propagation-delay", 2*time.Second, "time that the mesh is given to obey a write")
	set.DurationVar(&f.settle, "settle", time.Second, "time after which Prometheus has scraped what happened")
	set.BoolVar(&f.unscopedFaults, "allow-unscoped-faults", false, "allow faults of scope Everyone, which every request to their host gets")
	set.StringVar(&f.prometheusURL, "prometheus-url", "", "`URL` of Prometheus; without it every gate waits for evidence")
	set.StringVar(&f.prometheusHTTPConfig, "prometheus-http-config", "", "`file` with authorization and TLS for Prometheus, in Prometheus' own form of http_config")
	set.Var(&f.probeAllow, "probe-allow", "`host[:port]` that probes may ask, *.suffix for its subdomains; repeatable; default: none")
	set.BoolVar(&f.probeAllowLoopback, "probe-allow-loopback", false, "let probes reach loopback addresses (for tests)")
	set.StringVar(&f.defaultServiceAccount, "default-service-account", "default", "service account that a GitSync without spec.serviceAccountName applies as")
	set.DurationVar(&f.gitTimeout, "git-timeout", time.Minute, "longest time that fetching a repository may take")
	set.StringVar(&f.metricsAddress, "metrics-bind-address", ":8080", "`address` of /metrics; 0: none")
	set.StringVar(&f.healthAddress, "health-probe-bind-address", ":8081", "`address` of /healthz and /readyz; 0: none")
	set.StringVar(&f.pprofAddress, "pprof-bind-address", "", "`address` of /debug/pprof, such as 127.0.0.1:6060; it tells of the process's memory: keep it private; default: none")
	set.StringVar(&f.hookAddress, "hook-bind-address", ":8082", "`address` that forges and CI deliver webhooks to; 0: none")
	set.BoolVar(&f.leaderElect, "leader-elect", false, "let one of several replicas act")
	set.StringVar(&f.leaderNamespace, "leader-election-namespace", "", "`namespace` of the lease; default: the pod's own")
	set.StringVar(&f.logLevel, "log-level", "info", "debug, info or error")
	set.StringVar(&f.logFormat, "log-format", "json", "json or console")
	if err := set.Parse(args); err != nil {
		return nil, fmt.Errorf("reading the flags: %w", err)
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("argument %q: the operator takes flags only", set.Arg(0))
	}
	return f, f.validate()
}

func (f *flags) validate() error {
	for name, d := range map[string]time.Duration{"propagation-delay": f.propagationDelay, "settle": f.settle} {
		if d < 0 {
			return fmt.Errorf("--%s=%s: it can not be negative", name, d)
		}
	}
	if f.concurrency < 1 || f.gitConcurrency < 1 {
		return fmt.Errorf("--max-concurrent-reconciles=%d, --max-concurrent-git-syncs=%d: at least 1 is needed", f.concurrency, f.gitConcurrency)
	}
	if f.prometheusURL != "" {
		if u, err := url.Parse(f.prometheusURL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return fmt.Errorf("--prometheus-url: an http or https URL is needed, such as http://prometheus.istio-system:9090")
		}
	}
	if f.logFormat != "json" && f.logFormat != "console" {
		return fmt.Errorf("--log-format=%s: json or console", f.logFormat)
	}
	if _, err := zapcore.ParseLevel(f.logLevel); err != nil {
		return fmt.Errorf("--log-level=%s: debug, info or error", f.logLevel)
	}
	return nil
}
