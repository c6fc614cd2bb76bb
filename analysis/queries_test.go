package analysis

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

func reviews() pipeline.GateWatch {
	return pipeline.GateWatch{
		Name: "g", Metric: v1.MetricErrorRate, Max: "1%", Window: time.Minute, Interval: 10 * time.Second, First: at(0),
		Samples: 3, Failures: 2, MinRequests: 20, Exposure: pipeline.ExposureTraffic,
		Host: "reviews", Namespace: "bookinfo",
		Canary: pipeline.GateTarget{Version: "v3", Workload: "reviews-v3", Labels: map[string]string{"version": "v3"}},
		Stable: pipeline.GateTarget{Version: "v1", Workload: "reviews-v1", Labels: map[string]string{"version": "v1"}},
	}
}

func with(change func(*pipeline.GateWatch)) pipeline.GateWatch {
	g := reviews()
	change(&g)
	return g
}

func TestCanaryMatchers(t *testing.T) {
	const service = `destination_service_name="reviews",destination_service_namespace="bookinfo",`
	for want, g := range map[string]pipeline.GateWatch{
		`reporter="source",` + service + `destination_version="v3"`:      reviews(),
		`reporter="destination",` + service + `destination_version="v3"`: with(func(g *pipeline.GateWatch) { g.Exposure = pipeline.ExposureMirror }),
		`reporter="source",` + service + `destination_workload="reviews-v3"`: with(func(g *pipeline.GateWatch) {
			g.Canary.Labels = map[string]string{"track": "canary"}
		}),
		`reporter="source",` + service + `destination_version="a\"b"`: with(func(g *pipeline.GateWatch) {
			g.Canary.Labels = map[string]string{"version": `a"b`}
		}),
	} {
		if got, err := canaryMatchers(g); got != want || err != nil {
			t.Errorf("%s, %v; want %s", got, err, want)
		}
	}
}

// A canary with a host of its own is told by that; its own proxies, which alone see what is mirrored, may name another Service.
func TestCanaryMatchersElsewhere(t *testing.T) {
	for name, c := range map[string]struct {
		canary   pipeline.GateTarget
		exposure pipeline.Exposure
		want     string
	}{
		"a Service": {
			pipeline.GateTarget{Version: "v2", Host: "reviews-v2", Labels: map[string]string{"version": "v2"}},
			pipeline.ExposureTraffic,
			`reporter="source",destination_service_name="reviews-v2",destination_service_namespace="bookinfo"`,
		},
		"a Service that is mirrored to": {
			pipeline.GateTarget{Version: "v2", Host: "reviews-v2", Workload: "reviews-v2"},
			pipeline.ExposureMirror,
			`reporter="destination",destination_workload="reviews-v2",destination_workload_namespace="bookinfo"`,
		},
		"a subset of an external host": {
			pipeline.GateTarget{Version: "v2", Labels: map[string]string{"version": "v2"}},
			pipeline.ExposureTraffic,
			`reporter="source",destination_service_name="api.partner.com",destination_service_namespace="bookinfo",destination_canonical_revision="v2"`,
		},
		"a port of stable's host": {
			pipeline.GateTarget{Version: "v2", Host: "api.partner.com", Workload: "api-v2", SharesHost: true, Port: 8081},
			pipeline.ExposureTraffic,
			`reporter="source",destination_service_name="api.partner.com",destination_service_namespace="bookinfo",destination_workload="api-v2"`,
		},
		"an external host": {
			pipeline.GateTarget{Version: "v2", Host: "API-v2.partner.com"},
			pipeline.ExposureTraffic,
			`reporter="source",destination_service_name="api-v2.partner.com",destination_service_namespace="bookinfo"`,
		},
	} {
		got, err := canaryMatchers(pipeline.GateWatch{Host: "api.partner.com", Namespace: "bookinfo", Canary: c.canary, Exposure: c.exposure})
		if got != c.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", name, got, err, c.want)
		}
	}
	g := pipeline.GateWatch{
		Query: `{{ .CanaryHost }} {{ .StableHost }} {{ .Canary }}`, Host: "api.partner.com", Namespace: "bookinfo",
		Canary: pipeline.GateTarget{Version: "1.4.2", Host: "partner-v2"}, Stable: pipeline.GateTarget{Version: "v1"},
	}
	if got, err := renderQuery(g); got != "partner-v2.bookinfo.svc.cluster.local api.partner.com 1.4.2" || err != nil {
		t.Errorf("a query of the user's: %s, %v", got, err)
	}
}

func TestServiceName(t *testing.T) {
	for host, want := range map[string]string{
		"reviews": "reviews", "reviews.bookinfo": "reviews.bookinfo", "reviews.bookinfo.svc": "reviews.bookinfo.svc",
		"reviews.bookinfo.svc.cluster.local": "reviews", "reviews.bookinfo.svc.acme.example": "reviews.bookinfo.svc.acme.example",
		"api.partner.com": "api.partner.com", "reviews.bookinfos": "reviews.bookinfos",
	} {
		if got := serviceName(host, "bookinfo"); got != want {
			t.Errorf("serviceName(%q) = %q; want %q", host, got, want)
		}
	}
}

func TestMakeQuery(t *testing.T) {
	for name, c := range map[string]struct {
		watch       pipeline.GateWatch
		value       []string
		wantNoCount bool
	}{
		"errorRate":   {reviews(), []string{"1 - (sum(", `response_code!~"5.."`, "or vector(0)) / sum(", "[60s]", "offset 60s"}, false},
		"successRate": {with(func(g *pipeline.GateWatch) { g.Metric = v1.MetricSuccessRate }), []string{"(sum(", `response_code!~"5.."`}, false},
		"latency": {
			with(func(g *pipeline.GateWatch) { g.Metric, g.Quantile = v1.MetricLatency, "0.950" }),
			[]string{"histogram_quantile(0.95, sum by (le)", "istio_request_duration_milliseconds_bucket", "/ 1000"},
			false,
		},
		"default quantile": {with(func(g *pipeline.GateWatch) { g.Metric = v1.MetricLatency }), []string{"histogram_quantile(0.99,"}, false},
		"no minimum":       {with(func(g *pipeline.GateWatch) { g.MinRequests = 0 }), []string{"1 - "}, true},
		"fractions":        {with(func(g *pipeline.GateWatch) { g.Window = 1500 * time.Millisecond }), []string{"[1500ms]"}, false},
		"own query": {with(func(g *pipeline.GateWatch) {
			g.Metric, g.Query = "", "sum(rate(x{v='{{ .Canary }}'}[{{ .Window }}]))"
		}), []string{"sum(rate(x{v='v3'}[60s]))"}, true},
	} {
		got, err := makeQuery(c.watch)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, part := range c.value {
			if !strings.Contains(got.value, part) {
				t.Errorf("%s: %q is not in %s", name, part, got.value)
			}
		}
		if (got.count == "") != c.wantNoCount {
			t.Errorf("%s: count query %q", name, got.count)
		}
	}
}

func TestMakeQueryErrors(t *testing.T) {
	for want, change := range map[string]func(*pipeline.GateWatch){
		"neither a label `version` nor a workload": func(g *pipeline.GateWatch) {
			g.Canary = pipeline.GateTarget{Version: "v3"}
		},
		"version v3 answers on a port of api.partner.com beside v1": func(g *pipeline.GateWatch) {
			g.Canary = pipeline.GateTarget{Version: "v3", Host: "api.partner.com", SharesHost: true, Port: 8081}
		},
		`quantile: "1.5"; a number between 0 and 1`: func(g *pipeline.GateWatch) {
			g.Metric, g.Quantile = v1.MetricLatency, "1.5"
		},
		`quantile: "NaN"`: func(g *pipeline.GateWatch) {
			g.Metric, g.Quantile = v1.MetricLatency, "NaN"
		},
		`metric "colour" is not known`: func(g *pipeline.GateWatch) {
			g.Metric = "colour"
		},
		"window: 0s; the metric errorRate": func(g *pipeline.GateWatch) {
			g.Window = 0
		},
	} {
		if _, err := makeQuery(with(change)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want %q", err, want)
		}
	}
}

func TestRenderQuery(t *testing.T) {
	render := func(query string) (string, error) {
		return renderQuery(with(func(g *pipeline.GateWatch) { g.Metric, g.Query = "", query }))
	}
	for _, one := range []struct{ query, want string }{
		{"{{ .Canary }} {{.Stable}} {{.Host}} {{.Service}} {{.Namespace}} {{.Window}}", "v3 v1 reviews reviews bookinfo 60s"},
		{"{{ .CanaryWorkload }} {{ .StableWorkload }}", "reviews-v3 reviews-v1"},
		{`{{ printf "%q" .Canary }}`, `"v3"`},
		{`{{ if eq .Canary "v3" }}a{{ else }}b{{ end }}`, "a"},
		{"  up \n", "up"},
	} {
		if got, err := render(one.query); got != one.want || err != nil {
			t.Errorf("%q: %q, %v; want %q", one.query, got, err, one.want)
		}
	}
	for _, refused := range []struct{ query, want string }{
		{"{{ .Colour }}", `no entry for key "Colour"; it knows .Canary`},
		{"{{ .Canary ", "unclosed action"},
		{"{{ range 1000000000 }}x{{ end }}", "not available"},
		{"{{ if true }}{{ range 9 }}x{{ end }}{{ end }}", "not available"},
		{`{{ define "a" }}{{ template "a" }}{{ end }}{{ template "a" }}`, "not available"},
		{`{{ html .Canary }}`, "not available in queries"},
		{`{{ printf "%1000000d" 1 }}`, "beyond"},
		{strings.Repeat("x", maxQuery+1), "beyond"},
		{`{{ call .Canary }}`, "not available in queries"},
		{`{{ index .Canary 99 }}`, "out of range"},
		{`{{/* only a comment */}}{{block "a" .}}{{end}}`, "not available"},
	} {
		if got, err := render(refused.query); err == nil || !strings.Contains(err.Error(), refused.want) {
			t.Errorf("%.60q: %.60q, %v; want %q", refused.query, got, err, refused.want)
		}
	}
}

func FuzzRenderQuery(f *testing.F) {
	for _, seed := range []string{"{{ .Canary }}", "{{range .}}{{end}}", `{{$a := printf "%099999d" 1}}{{$a}}{{$a}}`, "{{with .Window}}{{.}}{{end}}", "{{break}}", ""} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		if got, err := renderQuery(with(func(g *pipeline.GateWatch) { g.Metric, g.Query = "", query })); err == nil && len(got) > maxQuery {
			t.Errorf("%d bytes from %q", len(got), query)
		}
	})
}

// TestVersionless: a request that no pod answered bears no version; those of the canary's workload count all the same.
func TestVersionless(t *testing.T) {
	const service = `reporter="source",destination_service_name="reviews",destination_service_namespace="bookinfo",`
	for name, c := range map[string]struct {
		change func(*pipeline.GateWatch)
		want   []string
	}{
		"by workload": {
			change: func(g *pipeline.GateWatch) { g.Canary.Workload = "reviews-v3" },
			want:   []string{service + `destination_version="unknown",destination_workload="reviews-v3"`},
		},
		"by canonical revision": {
			change: func(g *pipeline.GateWatch) { g.Canary.Workload = "" },
			want:   []string{service + `destination_version="unknown",destination_canonical_revision="v3"`},
		},
		"a mirror's own proxies know it": {change: func(g *pipeline.GateWatch) { g.Exposure = pipeline.ExposureMirror }},
		"known by its workload already":  {change: func(g *pipeline.GateWatch) { g.Canary.Labels = map[string]string{"track": "canary"} }},
	} {
		t.Run(name, func(t *testing.T) {
			g := with(c.change)
			canary, err := canaryMatchers(g)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, versionless(g, canary)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	query, err := makeQuery(with(func(g *pipeline.GateWatch) { g.Canary.Workload = "reviews-v3" }))
	if err != nil || strings.Count(query.count, `destination_version="unknown"`) == 0 || strings.Count(query.value, `destination_version="unknown"`) == 0 {
		t.Errorf("%+v, %v", query, err)
	}
}
