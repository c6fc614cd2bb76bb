package pipeline

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

func TestGateResolution(t *testing.T) {
	spec := v1.RolloutSpec{Host: "reviews", Gates: []v1.Gate{
		{Name: "errors", Metric: v1.MetricErrorRate, Max: "1%"},
		{Name: "p99", Metric: v1.MetricLatency, Max: "500ms"},
		{Name: "orders", Query: "q[{{ .Window }}]", Min: "1", Max: "5"},
	}}
	own := []v1.Gate{{Name: "own", Query: "up", Min: "1"}}
	half, zero := v1.Step{Name: "s", Weight: ptr[int32](50)}, v1.Step{Name: "s"}
	mirror := v1.Step{Name: "s", Mirror: &v1.Mirror{}, Gates: own}
	fault := v1.Step{Name: "s", Weight: ptr[int32](50), Fault: &v1.Fault{Match: jason()}, Gates: own}
	narrowed, none := half, half
	narrowed.UseGates, none.UseGates = []string{"p99"}, []string{}
	tests := map[string]struct {
		step v1.Step
		want []string
	}{
		"exposed":                         {half, []string{"errors/Traffic", "p99/Traffic", "orders/Traffic"}},
		"not exposed: queries only":       {zero, []string{"orders/Mirror"}},
		"mirror: the destination reports": {mirror, []string{"errors/Mirror", "p99/Mirror", "orders/Mirror", "own/Mirror"}},
		"fault: the step's own only":      {fault, []string{"own/Traffic"}},
		"narrowed":                        {narrowed, []string{"p99/Traffic"}},
		"none":                            {none, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := &v1.Rollout{Spec: spec}
			r.Spec.Steps = []v1.Step{test.step}
			var got []string
			for _, g := range resolvePlan(r)[0].gates {
				got = append(got, g.Name+"/"+string(g.Exposure))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	both := GateWatch{Min: "1", Max: "5"}
	least := GateWatch{Min: "1"}
	got := []string{both.limit(), both.breached(), both.held(), least.limit(), least.breached(), least.held()}
	if diff := cmp.Diff([]string{"1 to 5", "outside 1 to 5", "within 1 to 5", "1", "< 1", "≥ 1"}, got); diff != "" {
		t.Error(diff)
	}
	if p := resolveGate(v1.Gate{Metric: v1.MetricLatency}, v1.GateDefaults{}); p.Quantile != "0.99" || p.Window != time.Minute {
		t.Errorf("latency's defaults: %v", p)
	}
	if w := resolveGate(v1.Gate{Query: "up"}, v1.GateDefaults{}); w.Window != 0 {
		t.Errorf("a query without {{ .Window }} has window %s", w.Window)
	}
	if tcp := (&v1.Rollout{Spec: v1.RolloutSpec{Protocol: v1.ProtocolTCP}}); len(specGates(tcp)) != 0 {
		t.Error("TCP has a default gate of HTTP requests")
	}
}

func TestPassingNeedsTheNewestSampleAndNoGap(t *testing.T) {
	start := time.Unix(1000, 0).UTC()
	g := GateWatch{Interval: 10 * time.Second, Samples: 3, First: start}
	at := func(offsets ...int) (out []Sample) {
		for _, o := range offsets {
			out = append(out, Sample{Time: start.Add(time.Duration(o) * time.Second), Verdict: Pass})
		}
		return out
	}
	tests := map[string]struct {
		samples []Sample
		now     int
		want    bool
	}{
		"three in a row":        {at(0, 10, 20), 21, true},
		"not due yet":           {at(), 0, false},
		"two only":              {at(0, 10), 11, false},
		"newest is missing":     {at(0, 10, 20), 31, false},
		"newest is not settled": {at(0, 10, 20), 30, true},
		"gap":                   {at(0, 10, 30), 31, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := g.passing(test.samples, start.Add(time.Duration(test.now)*time.Second), time.Second); got != test.want {
				t.Errorf("passing = %v, want %v", got, test.want)
			}
		})
	}
}

func TestOwnHostFaultIsItsOwnRoute(t *testing.T) {
	r := &v1.Rollout{Spec: v1.RolloutSpec{Host: "reviews", Steps: []v1.Step{
		{Name: "a", Fault: &v1.Fault{Host: "reviews.bookinfo.svc.cluster.local", Match: jason()}},
	}}}
	r.Namespace = "bookinfo"
	s := resolvePlan(r)[0]
	if s.fault.Host != "" || len(s.match) != 0 || !s.traffic(v1.Target{}, v1.Target{}).ExposedToUsers() {
		t.Errorf("fault %v match %v", s.fault, s.match)
	}
}
