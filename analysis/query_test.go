package analysis

import (
	"testing"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

func TestLimitsThatDecideNothing(t *testing.T) {
	for _, c := range []struct {
		metric        v1.Metric
		min, max      string
		never, always bool
	}{
		{metric: v1.MetricErrorRate, max: "1%"},
		{metric: v1.MetricErrorRate, max: "0.01"},
		{metric: v1.MetricErrorRate, max: "0"},
		{metric: v1.MetricErrorRate, max: "1", always: true},
		{metric: v1.MetricErrorRate, max: "100%", always: true},
		{metric: v1.MetricErrorRate, max: "-1%", never: true},
		{metric: v1.MetricSuccessRate, min: "99.5%"},
		{metric: v1.MetricSuccessRate, min: "99", never: true},
		{metric: v1.MetricSuccessRate, min: "0", always: true},
		{metric: v1.MetricLatency, max: "500ms"},
		{metric: v1.MetricLatency, min: "1s", max: "500ms", never: true},
		{max: "1"},
		{min: "3", max: "2", never: true},
		{max: "many", never: true},
	} {
		g := pipeline.GateWatch{Name: "g", Metric: c.metric, Min: c.min, Max: c.max}
		if err := NeverPasses(g); (err != nil) != c.never {
			t.Errorf("%s min %q max %q never passes: %v, want %v", c.metric, c.min, c.max, err, c.never)
		}
		if err := AlwaysPasses(g); (err != nil) != c.always {
			t.Errorf("%s min %q max %q always passes: %v, want %v", c.metric, c.min, c.max, err, c.always)
		}
	}
}

func TestQuery(t *testing.T) {
	g := pipeline.GateWatch{Name: "g", Query: "up{version=\"{{ .Canary }}\"}", Canary: pipeline.GateTarget{Version: "v2"}}
	if got, err := Query(g); got != `up{version="v2"}` || err != nil {
		t.Errorf("query %q, error %v", got, err)
	}
	g.Query = "{{ .Nobody }}"
	if _, err := Query(g); err == nil {
		t.Error("an unknown variable is accepted")
	}
}
