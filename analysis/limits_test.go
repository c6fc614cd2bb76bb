package analysis

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

func TestParseLimit(t *testing.T) {
	for text, want := range map[string]struct {
		value float64
		unit  unit
	}{
		"1%": {0.01, percentage}, "4.2%": {0.042, percentage}, "0%": {0, percentage}, "100%": {1, percentage},
		"500ms": {0.5, seconds}, "1.5s": {1.5, seconds}, "1m30s": {90, seconds},
		"0.5": {0.5, number}, "0": {0, number}, "-3": {-3, number}, "1e3": {1000, number},
	} {
		value, unit, err := parseLimit(text)
		if err != nil || value != want.value || unit != want.unit {
			t.Errorf("parseLimit(%q) = %v, %v, %v; want %v, %v", text, value, unit, err, want.value, want.unit)
		}
	}
	for _, text := range []string{"", "%", "NaN", "Inf", "-Inf%", "1e999", "5 %", "5 minutes", "one"} {
		if value, _, err := parseLimit(text); err == nil {
			t.Errorf("parseLimit(%q) = %v; want an error", text, value)
		} else if !strings.Contains(err.Error(), "is expected") {
			t.Errorf("parseLimit(%q): %v; want it to say what is expected", text, err)
		}
	}
}

func TestFormat(t *testing.T) {
	rate := mustLimits(t, pipeline.GateWatch{Metric: v1.MetricErrorRate, Max: "1%"})
	latency := mustLimits(t, pipeline.GateWatch{Metric: v1.MetricLatency, Max: "500ms"})
	plain := mustLimits(t, pipeline.GateWatch{Query: "x", Max: "0.5"})
	for _, c := range []struct {
		limits limits
		value  float64
		want   string
	}{
		{rate, 0, "0%"},
		{rate, 0.042, "4.2%"},
		{rate, 0.01, "1%"},
		{rate, 1.0 / 3, "33.3%"},
		{rate, 1, "100%"},
		{rate, 0.010004, "1.0004%"}, // not "1%", which would pass
		{latency, 0.312, "312ms"},
		{latency, 0.0005, "500µs"},
		{latency, 1.25, "1.25s"},
		{latency, 75, "75s"},
		{latency, 0, "0ms"},
		{latency, 0.50001, "500.01ms"},
		{plain, 0.25, "0.25"},
		{plain, 12345.678, "12346"},
		{plain, 0.1 + 0.2, "0.3"},
		{plain, -7, "-7"},
		{plain, 1e-9, "1e-09"},
	} {
		if got := c.limits.format(c.value); got != c.want {
			t.Errorf("format(%v) = %q; want %q", c.value, got, c.want)
		}
	}
}

func mustLimits(t *testing.T, g pipeline.GateWatch) limits {
	t.Helper()
	l, err := makeLimits(g)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestVerdict(t *testing.T) {
	both := mustLimits(t, pipeline.GateWatch{Query: "x", Min: "1", Max: "2"})
	for value, want := range map[float64]pipeline.Verdict{
		0.99: pipeline.Fail, 1: pipeline.Pass, 1.5: pipeline.Pass, 2: pipeline.Pass, 2.01: pipeline.Fail,
		math.Inf(1): pipeline.Fail, math.Inf(-1): pipeline.Fail,
	} {
		if got := both.verdict(value); got != want {
			t.Errorf("verdict(%v) = %s; want %s", value, got, want)
		}
	}
	rate := mustLimits(t, pipeline.GateWatch{Metric: v1.MetricErrorRate, Max: "1%"})
	if noise := 1 - 0.99; rate.verdict(rate.normal(noise)) != pipeline.Pass {
		t.Errorf("5 of 500 (%v) fails a limit of 1%%", noise)
	}
	if rate.verdict(rate.normal(0.0100001)) != pipeline.Fail {
		t.Error("1.00001% passes a limit of 1%")
	}
}

func TestMakeLimitsErrors(t *testing.T) {
	for want, g := range map[string]pipeline.GateWatch{
		`gate g: neither max nor min is set`: {Name: "g"},
		`gate g: max: "lots" is not a limit`: {Name: "g", Max: "lots"},
		`gate g: min: "NaN" is not a limit`:  {Name: "g", Min: "NaN", Max: "1"},
	} {
		if _, err := makeLimits(g); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("makeLimits(%+v): %v; want %q", g, err, want)
		}
	}
}

// What is shown must not contradict what was decided.
func TestShownValueHasTheSameVerdict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := rapid.SampledFrom([]unit{number, percentage, seconds}).Draw(t, "unit")
		limit := rapid.Float64Range(-1e6, 1e6).Draw(t, "limit")
		value := rapid.OneOf(
			rapid.Float64Range(-1e6, 1e6),
			rapid.Just(math.Nextafter(limit, math.Inf(1))),
			rapid.Just(math.Nextafter(limit, math.Inf(-1))),
			rapid.Just(limit),
		).Draw(t, "value")
		l := limits{max: &limit, unit: u}
		text := l.format(value)
		scale, suffix := l.scale(value)
		shown, err := parseNumber(strings.TrimSuffix(text, suffix))
		if err != nil {
			t.Fatalf("format(%v) = %q: %v", value, text, err)
		}
		// Within what a float can tell apart after scaling, 17 digits decide nothing more.
		if near := math.Abs(shown/scale-limit) <= 1e-12*math.Abs(limit); !near && l.verdict(shown/scale) != l.verdict(value) {
			t.Fatalf("%v against %v: verdict %s, but %q reads as %s", value, limit, l.verdict(value), text, l.verdict(shown/scale))
		}
	})
}

func FuzzParseLimit(f *testing.F) {
	for _, seed := range []string{"1%", "500ms", "0.5", "NaN%", "1e400", "-0x1p-2", "9999999h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if value, _, err := parseLimit(text); err == nil && (math.IsNaN(value) || math.IsInf(value, 0)) {
			t.Errorf("parseLimit(%q) = %v", text, value)
		}
	})
}
