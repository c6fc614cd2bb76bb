package analysistest

import (
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"sluice.dev/sluice/analysis"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/process"
	"sluice.dev/sluice/sandbox/setup"
)

const (
	// window, interval and settle of the gates under test; Prometheus scrapes four times a second.
	window   = 2 * time.Second
	interval = 500 * time.Millisecond
	settle   = time.Second
	patience = time.Minute

	config = `global: {scrape_interval: 250ms, scrape_timeout: 250ms}
scrape_configs:
- job_name: exporter
  static_configs: [{targets: [%q]}]
`
)

// One Prometheus and one exporter serve all tests; each test has a Service of its own name.
var (
	prometheus    *process.Process
	prometheusURL string
	series        = &exporter{values: map[string]func() float64{}}
)

func TestMain(m *testing.M) {
	setup.Main("analysistest", func(ctx context.Context) (int, error) { return run(ctx, m) })
}

func run(ctx context.Context, m *testing.M) (int, error) {
	// The tests mostly wait: many at once take no longer than one.
	if err := flag.Set("test.parallel", "32"); err != nil {
		return 0, err
	}
	servers, err := binaries.Ensure(ctx, os.Stderr)
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "analysistest")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	server := httptest.NewServer(series)
	defer server.Close()
	if err := startPrometheus(ctx, servers, dir, strings.TrimPrefix(server.URL, "http://")); err != nil {
		return 0, err
	}
	defer func() { _ = prometheus.Stop() }()
	if err := awaitScrapes(ctx); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

// awaitScrapes waits until Prometheus scrapes, which begins seconds after its start.
func awaitScrapes(ctx context.Context) error {
	client, err := analysis.NewClient(prometheusURL, "")
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		fresh, _, _, err := client.Query(ctx, "up == 1 and time() - timestamp(up) < 0.5", time.Now())
		if vector, ok := fresh.(model.Vector); err == nil && ok && len(vector) == 1 {
			return nil
		}
	}
	return fmt.Errorf("prometheus does not scrape the exporter within %s", patience)
}

func startPrometheus(ctx context.Context, servers binaries.Dir, dir, target string) error {
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, fmt.Appendf(nil, config, target), 0o600); err != nil {
		return err
	}
	ports, err := process.FreePorts(1)
	if err != nil {
		return err
	}
	address := process.Address(ports[0])
	prometheusURL = "http://" + address
	prometheus, err = process.Start(ctx, process.Spec{
		Name: "prometheus", Path: servers.Prometheus(), LogDir: dir, Ready: process.HTTPReady(prometheusURL + "/-/ready"),
		Args: []string{"--config.file", file, "--storage.tsdb.path", filepath.Join(dir, "data"), "--web.listen-address", address, "--log.level", "warn"},
	})
	return err
}

// exporter shows series whose values are functions of the time of the scrape.
type exporter struct {
	mu     sync.Mutex
	values map[string]func() float64
}

func (e *exporter) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	for _, name := range slices.Sorted(maps.Keys(e.values)) {
		_, _ = io.WriteString(w, fmt.Sprintf("%s %g\n", name, e.values[name]()))
	}
}

func (e *exporter) show(name string, value func() float64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.values[name] = value
}

// constant is a counter at rest.
func constant(value float64) func() float64 { return func() float64 { return value } }

// growing is a counter that has counted for a long time.
func growing(perSecond float64) func() float64 {
	began := time.Now()
	return func() float64 { return 1000 + float64(int(perSecond*time.Since(began).Seconds())) }
}

var services atomic.Int32

// newService is a name that no other test has, nor the same one when it is repeated.
func newService(name string) string { return fmt.Sprintf("%s-%d", name, services.Add(1)) }

// request names a series of istio_requests_total to version v3 of a Service; labels are added or replaced.
func request(service string, labels ...string) string {
	return istioSeries("istio_requests_total", service, labels...)
}

func bucket(service, le string) string {
	return istioSeries("istio_request_duration_milliseconds_bucket", service, "le", le)
}

func istioSeries(metric, service string, labels ...string) string {
	all := map[string]string{
		"reporter": "source", "destination_service_name": service, "destination_service_namespace": "bookinfo",
		"destination_version": "v3", "destination_workload": service + "-v3", "request_protocol": "http", "response_code": "200",
	}
	for i := 0; i < len(labels); i += 2 {
		all[labels[i]] = labels[i+1]
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		words = append(words, fmt.Sprintf("%s=%q", name, all[name]))
	}
	return metric + "{" + strings.Join(words, ",") + "}"
}

// gateOf is a gate on a Service's version v3 whose first sample is at least so long from now.
func gateOf(service string, wait time.Duration, change func(*pipeline.GateWatch)) pipeline.GateWatch {
	g := pipeline.GateWatch{
		Name: "gate", Metric: "errorRate", Max: "1%", Window: window, Interval: interval, Samples: 3, Failures: 2, MinRequests: 20,
		First: time.Now().Add(wait).Truncate(interval).Add(interval), Exposure: pipeline.ExposureTraffic,
		Host: service, Namespace: "bookinfo",
		Canary: pipeline.GateTarget{Version: "v3", Workload: service + "-v3", Labels: map[string]string{"version": "v3"}},
		Stable: pipeline.GateTarget{Version: "v1", Workload: service + "-v1", Labels: map[string]string{"version": "v1"}},
	}
	if change != nil {
		change(&g)
	}
	return g
}

// watching runs an Analyst of its own on one gate, and returns how to see what it knows.
func watching(t *testing.T, g pipeline.GateWatch) func() pipeline.GateSamples {
	t.Helper()
	client, err := analysis.NewClient(prometheusURL, "")
	if err != nil {
		t.Fatal(err)
	}
	a := analysis.New(analysis.Config{Prometheus: client, Clock: clock.RealClock{}, Settle: settle, Log: logr.Discard()}, func(types.NamespacedName) {})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	key := types.NamespacedName{Namespace: g.Namespace, Name: g.Host}
	a.Set(key, &pipeline.Watch{ID: "1", Gates: []pipeline.GateWatch{g}})
	return func() pipeline.GateSamples { return a.Samples(key)[g.Name] }
}

// await polls until what is known of a gate is as it should be.
func await(t *testing.T, what string, known func() pipeline.GateSamples, condition func(pipeline.GateSamples) bool) pipeline.GateSamples {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got := known()
		if condition(got) {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s:\n%+v\n%s", what, got.Samples, got.Query)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// awaitPast waits until Prometheus knows what a series was so long ago that a window which begins now begins with it.
func awaitPast(t *testing.T, selector string) {
	t.Helper()
	awaitAgo(t, selector, long)
}

// awaitAgo waits until Prometheus knows what a series was some time ago.
func awaitAgo(t *testing.T, selector string, ago time.Duration) {
	t.Helper()
	client, err := analysis.NewClient(prometheusURL, "")
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		past, _, _, err := client.Query(t.Context(), fmt.Sprintf("%s offset %dms", selector, ago.Milliseconds()), time.Now())
		if vector, ok := past.(model.Vector); err == nil && ok && len(vector) > 0 {
			return
		}
	}
	t.Fatalf("Prometheus does not know within %s what %s was %s ago", patience, selector, ago)
}

// sampleOf is the gate's first sample, which must not come before its query could be answered.
func sampleOf(t *testing.T, g pipeline.GateWatch) pipeline.Sample {
	t.Helper()
	return await(t, "a sample", watching(t, g), func(s pipeline.GateSamples) bool { return len(s.Samples) > 0 }).Samples[0]
}

// between tells whether a value such as "4.2%" or "312ms" lies between two numbers in the unit that it bears.
func between(t *testing.T, value, unit string, low, high float64) bool {
	t.Helper()
	var got float64
	if _, err := fmt.Sscanf(strings.TrimSuffix(value, unit), "%g", &got); err != nil || !strings.HasSuffix(value, unit) {
		t.Errorf("value %q; want a number and %q", value, unit)
		return false
	}
	return low <= got && got <= high
}
