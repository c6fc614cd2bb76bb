package analysistest

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice.dev/sluice/internal/pipeline"
)

// long is enough for series that are shown now to have been there at the start of a window.
const long = window + 2*time.Second

func TestRates(t *testing.T) {
	t.Parallel()
	service := newService("rates")
	series.show(request(service), growing(180))
	series.show(request(service, "response_code", "503"), growing(8))
	series.show(request(service, "response_code", "0"), growing(4)) // the client went away
	series.show(request(service, "response_code", "404"), growing(4))
	series.show(request(service, "request_protocol", "grpc", "grpc_response_status", "14"), growing(4))
	series.show(request(service, "request_protocol", "grpc", "grpc_response_status", "5"), growing(4)) // NOT_FOUND
	series.show(request(service, "destination_version", "v1", "destination_workload", service+"-v1", "response_code", "500"), growing(500))
	series.show(request(service, "reporter", "destination", "response_code", "500"), growing(500))
	series.show(request(newService("other"), "response_code", "500"), growing(500))
	for name, c := range map[string]struct {
		change    func(*pipeline.GateWatch)
		verdict   pipeline.Verdict
		low, high float64
	}{
		"errorRate fails":     {func(g *pipeline.GateWatch) { g.Max = "1%" }, pipeline.Fail, 5, 7},
		"errorRate passes":    {func(g *pipeline.GateWatch) { g.Max = "8%" }, pipeline.Pass, 5, 7},
		"by FQDN":             {func(g *pipeline.GateWatch) { g.Host += ".bookinfo.svc.cluster.local" }, pipeline.Fail, 5, 7},
		"by workload":         {func(g *pipeline.GateWatch) { g.Canary.Labels = nil }, pipeline.Fail, 5, 7},
		"successRate passes":  {func(g *pipeline.GateWatch) { g.Metric, g.Max, g.Min = "successRate", "", "90%" }, pipeline.Pass, 93, 95},
		"successRate fails":   {func(g *pipeline.GateWatch) { g.Metric, g.Max, g.Min = "successRate", "", "99%" }, pipeline.Fail, 93, 95},
		"without minRequests": {func(g *pipeline.GateWatch) { g.MinRequests = 0 }, pipeline.Fail, 5, 7},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := sampleOf(t, gateOf(service, long, c.change))
			if got.Verdict != c.verdict || !between(t, got.Value, "%", c.low, c.high) {
				t.Errorf("%+v; want %s between %g%% and %g%%", got, c.verdict, c.low, c.high)
			}
		})
	}
}

func TestNoErrorsAreExactlyNone(t *testing.T) {
	t.Parallel()
	service := newService("clean")
	series.show(request(service), growing(100))
	series.show(request(service, "response_code", "201"), growing(33))
	got := sampleOf(t, gateOf(service, long, func(g *pipeline.GateWatch) { g.Max = "0%" }))
	if got.Verdict != pipeline.Pass || got.Value != "0%" {
		t.Errorf("%+v", got)
	}
}

func TestNothingButErrors(t *testing.T) {
	t.Parallel()
	service := newService("broken")
	series.show(request(service, "response_code", "500"), growing(100))
	got := sampleOf(t, gateOf(service, long, nil))
	if got.Verdict != pipeline.Fail || got.Value != "100%" {
		t.Errorf("%+v", got)
	}
}

// The first errors of a version come in a series that was not there before; they count while they are in the window.
func TestFirstErrorsCount(t *testing.T) {
	t.Parallel()
	service := newService("newborn")
	series.show(request(service), growing(100))
	awaitPast(t, request(service))
	series.show(request(service, "response_code", "503"), constant(10))
	known := watching(t, gateOf(service, time.Second, nil))
	got := await(t, "errors", known, func(s pipeline.GateSamples) bool {
		return len(s.Samples) > 0 && s.Samples[0].Verdict == pipeline.Fail
	})
	if !between(t, got.Samples[0].Value, "%", 3.5, 6) { // 10 of 210
		t.Errorf("%+v", got.Samples[0])
	}
	await(t, "their end", known, func(s pipeline.GateSamples) bool {
		last := s.Samples[len(s.Samples)-1]
		return last.Verdict == pipeline.Pass && last.Value == "0%"
	})
}

// All requests of a version that just began are in new series, perhaps seen but once.
func TestNewVersionCounts(t *testing.T) {
	t.Parallel()
	service := newService("young")
	awaitPast(t, "up") // Prometheus itself must not be new
	series.show(request(service), constant(95))
	series.show(request(service, "response_code", "500"), constant(5))
	got := sampleOf(t, gateOf(service, time.Second, func(g *pipeline.GateWatch) { g.Max = "5%" }))
	if got.Verdict != pipeline.Pass || got.Value != "5%" {
		t.Errorf("%+v", got)
	}
}

func TestWhatWasCountedBeforeDoesNotCount(t *testing.T) {
	t.Parallel()
	service := newService("idle")
	series.show(request(service), constant(1e6))
	got := sampleOf(t, gateOf(service, long, nil))
	if got.Verdict != pipeline.NoData || got.Message != "0 requests in 2s, 20 needed" {
		t.Errorf("%+v", got)
	}
}

// A Prometheus that was not there when the window began takes old series for new; that must not be believed.
func TestWindowOlderThanPrometheus(t *testing.T) {
	t.Parallel()
	service := newService("ancient")
	series.show(request(service, "response_code", "500"), constant(1e6))
	got := sampleOf(t, gateOf(service, time.Second, func(g *pipeline.GateWatch) { g.Window = time.Hour }))
	if got.Verdict != pipeline.NoData || got.Message != "0 requests in 1h, 20 needed" {
		t.Errorf("%+v", got)
	}
}

func TestCounterReset(t *testing.T) {
	t.Parallel()
	service := newService("reset")
	series.show(request(service), growing(100))
	series.show(request(service, "response_code", "500"), constant(1e6))
	awaitPast(t, request(service, "response_code", "500"))
	series.show(request(service, "response_code", "500"), constant(0))
	got := sampleOf(t, gateOf(service, time.Second, nil))
	if got.Verdict != pipeline.Pass || got.Value != "0%" {
		t.Errorf("%+v", got)
	}
}

// Mirrored requests are known to the destination's proxy only.
func TestReporter(t *testing.T) {
	t.Parallel()
	service := newService("mirrored")
	series.show(request(service, "reporter", "destination"), growing(100))
	mirror := gateOf(service, long, func(g *pipeline.GateWatch) { g.Exposure = pipeline.ExposureMirror })
	if got := sampleOf(t, mirror); got.Verdict != pipeline.Pass || got.Value != "0%" {
		t.Errorf("in a mirror: %+v", got)
	}
	if got := sampleOf(t, gateOf(service, 0, nil)); got.Verdict != pipeline.NoData || got.Message != "0 requests in 2s, 20 needed" {
		t.Errorf("outside it: %+v", got)
	}
}

func TestTooFewRequests(t *testing.T) {
	t.Parallel()
	service := newService("quiet")
	series.show(request(service, "response_code", "500"), growing(4))
	got := sampleOf(t, gateOf(service, long, nil))
	if got.Verdict != pipeline.NoData || !strings.HasSuffix(got.Message, " requests in 2s, 20 needed") || strings.HasPrefix(got.Message, "0 ") {
		t.Errorf("%+v", got)
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	service := newService("slow")
	series.show(request(service), growing(100))
	for le, rate := range map[string]float64{"100": 90, "500": 100, "+Inf": 100} {
		series.show(bucket(service, le), growing(rate))
	}
	latency := func(quantile, limit string) func(*pipeline.GateWatch) {
		return func(g *pipeline.GateWatch) { g.Metric, g.Quantile, g.Max = "latency", quantile, limit }
	}
	if got := sampleOf(t, gateOf(service, long, latency("0.99", "300ms"))); got.Verdict != pipeline.Fail || !between(t, got.Value, "ms", 440, 480) {
		t.Errorf("p99 %+v; want 460ms", got)
	}
	if got := sampleOf(t, gateOf(service, 0, latency("0.5", "300ms"))); got.Verdict != pipeline.Pass || !between(t, got.Value, "ms", 53, 58) {
		t.Errorf("p50 %+v; want 55.6ms", got)
	}
}

func TestLatencyOfANewVersion(t *testing.T) {
	t.Parallel()
	service := newService("slowborn")
	awaitPast(t, "up")
	series.show(request(service), constant(100))
	for le, n := range map[string]float64{"100": 50, "500": 100, "+Inf": 100} {
		series.show(bucket(service, le), constant(n))
	}
	got := sampleOf(t, gateOf(service, time.Second, func(g *pipeline.GateWatch) { g.Metric, g.Quantile, g.Max = "latency", "0.75", "0.5" }))
	if got.Verdict != pipeline.Pass || got.Value != "300ms" {
		t.Errorf("%+v; want 300ms", got)
	}
}

func TestOwnQueries(t *testing.T) {
	t.Parallel()
	service := newService("own")
	series.show(request(service), growing(100))
	series.show(request(service, "response_code", "500"), growing(100))
	for name, c := range map[string]struct {
		query          string
		instant        bool
		verdict        pipeline.Verdict
		value, message string
	}{
		"templated":         {`count(istio_requests_total{destination_service_name="{{ .Service }}",destination_version="{{ .Canary }}"})`, false, pipeline.Fail, "2", ""},
		"with a window":     {`bool_free_zero{version="{{ .Stable }}"} or vector({{ if eq .Window "2s" }}1{{ end }})`, false, pipeline.Pass, "1", ""},
		"scalar":            {"scalar(vector(0.5))", false, pipeline.Pass, "0.5", ""},
		"instant":           {"vector(0.5)", true, pipeline.Pass, "0.5", ""},
		"instant scalar":    {"0.5", true, pipeline.Pass, "0.5", ""},
		"nothing":           {"no_such_metric", false, pipeline.NoData, "", "the query returned nothing"},
		"instantly nothing": {"no_such_metric", true, pipeline.NoData, "", "the query returned nothing"},
		"NaN":               {"vector(0) / 0", false, pipeline.NoData, "", "the query returned NaN"},
		"Inf":               {"vector(1) / 0", true, pipeline.NoData, "", "the query returned +Inf"},
		"several":           {`istio_requests_total{destination_service_name="{{ .Host }}"}`, false, pipeline.Error, "", "the query returned 2 series, one is expected"},
		"warning":           {"quantile(1.5, vector(0.5))", false, pipeline.Error, "", "Prometheus warns: "},
		"not evaluated":     {`istio_requests_total{destination_service_name="{{ .Host }}"} * on() istio_requests_total{destination_service_name="{{ .Host }}"}`, false, pipeline.Error, "", "Prometheus can not evaluate the query: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := sampleOf(t, gateOf(service, time.Second, own(c.query, c.instant)))
			if got.Verdict != c.verdict || got.Value != c.value || !strings.HasPrefix(got.Message, c.message) || (c.message == "") != (got.Message == "") {
				t.Errorf("%+v; want %s %q %q", got, c.verdict, c.value, c.message)
			}
		})
	}
}

func own(query string, instant bool) func(*pipeline.GateWatch) {
	return func(g *pipeline.GateWatch) {
		g.Metric, g.Query, g.Max, g.OffGrid = "", query, "1", instant
		if instant {
			g.First = g.First.Add(123 * time.Millisecond)
		}
	}
}

func TestInvalidQueries(t *testing.T) {
	t.Parallel()
	service := newService("invalid")
	for name, c := range map[string]struct {
		query, message string
		instant        bool
	}{
		"unclosed":         {"sum(", "parse error", false},
		"instant unclosed": {"sum(", "parse error", true},
		"a string":         {`"text"`, "string", false},
		"instant string":   {`"text"`, "string", true},
		"a range":          {"up[1m]", "range", false},
		"instant range":    {"up[1m]", "matrix", true},
		"a variable":       {"{{ .Colour }}", "Colour", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := await(t, "a refusal", watching(t, gateOf(service, 0, own(c.query, c.instant))), func(s pipeline.GateSamples) bool { return s.InvalidQuery != "" })
			judged := slices.ContainsFunc(got.Samples, func(s pipeline.Sample) bool { return s.Verdict != pipeline.Error })
			if !strings.Contains(got.InvalidQuery, c.message) || judged {
				t.Errorf("%+v; want %q", got, c.message)
			}
		})
	}
}

// A process that starts in mid-step judges as the one before it did.
func TestRestartJudgesTheSame(t *testing.T) {
	t.Parallel()
	service := newService("restarted")
	series.show(request(service), growing(97))
	series.show(request(service, "response_code", "500"), growing(3))
	g := gateOf(service, long, nil)
	const n = 6
	enough := func(s pipeline.GateSamples) bool { return len(s.Samples) >= n }
	before := await(t, "samples", watching(t, g), enough)
	after := await(t, "samples", watching(t, g), enough)
	if diff := cmp.Diff(before.Samples[:n], after.Samples[:n]); diff != "" {
		t.Error(diff)
	}
}

// This test stops Prometheus, so it does not run beside the others.
func TestOutage(t *testing.T) {
	service := newService("outage")
	series.show(request(service), growing(100))
	known := watching(t, gateOf(service, long, nil))
	verdicts := func(s pipeline.GateSamples, verdict pipeline.Verdict) (n int, last pipeline.Sample) {
		for _, sample := range s.Samples {
			if sample.Verdict == verdict {
				n, last = n+1, sample
			}
		}
		return n, last
	}
	await(t, "a pass", known, func(s pipeline.GateSamples) bool { n, _ := verdicts(s, pipeline.Pass); return n > 0 })
	if err := prometheus.Stop(); err != nil {
		t.Fatal(err)
	}
	during := await(t, "errors", known, func(s pipeline.GateSamples) bool { n, _ := verdicts(s, pipeline.Error); return n > 1 })
	if _, last := verdicts(during, pipeline.Error); last.Message != "Prometheus can not be reached: connection refused" {
		t.Errorf("%+v", last)
	}
	if err := prometheus.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := awaitScrapes(t.Context()); err != nil {
		t.Fatal(err)
	}
	await(t, "the errors' end", known, func(s pipeline.GateSamples) bool {
		n, _ := verdicts(s, pipeline.Error)
		return n == 0 && s.Samples[len(s.Samples)-1].Verdict == pipeline.Pass
	})
}
