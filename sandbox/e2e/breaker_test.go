package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/environment"
	"sluice.dev/sluice/sandbox/scenario"
	"sluice.dev/sluice/sandbox/setup"
)

const (
	// poolOfOne overflows as soon as two requests come at once, and ejectsAll takes an endpoint out at its first error.
	poolOfOne = `{connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}}`
	ejectsAll = `{outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100}}`
)

// slow makes requests come at once, at the tests' rate.
var slow = bookinfo.Misbehaviour{Latency: 200 * time.Millisecond}

// newStatsStage is a stage whose proxies expose Envoy's own statistics.
func newStatsStage(t *testing.T, namespace string) *stage {
	t.Helper()
	return newStageWith(t, cluster, setup.UniqueName(namespace), environment.Options{EnvoyStats: true}, []string{"mesh.yaml", "rbac.yaml"})
}

// pushGuarded follows v1, sends users, and pushes v3 with these steps and a policy for one version.
func (s *stage) pushGuarded(t *testing.T, version, policy string, steps ...v1.Step) {
	t.Helper()
	if err := s.Follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	generator, err := s.StartLoad(t.Context(), rate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { generator.Stop() })
	given := &istio.TrafficPolicy{}
	if err := yaml.Unmarshal([]byte(policy), given); err != nil {
		t.Fatal(err)
	}
	push(t, s, func(spec *v1.RolloutSpec) {
		spec.Version, spec.Steps = scenario.Canary, steps
		spec.Versions = []v1.Version{{Name: version, TrafficPolicy: given}}
		spec.Gates = []v1.Gate{{Name: "content", Query: "vector(1)", Min: "1"}} // nothing but the breaker can roll back
	})
}

func shadow(hold time.Duration) v1.Step {
	return v1.Step{Name: "shadow", Mirror: &v1.Mirror{}, Hold: &metav1.Duration{Duration: hold}}
}

func weight(name string, percent int32, hold time.Duration) v1.Step {
	return v1.Step{Name: name, Weight: &percent, Hold: &metav1.Duration{Duration: hold}}
}

// tripped waits until the run was rolled back by a trip, and checks that nothing of it is left.
func (s *stage) tripped(t *testing.T) *v1.Rollout {
	t.Helper()
	r := wait(t, s, v1.PhaseRolledBack, v1.ReasonTrip)
	assertClean(t, s)
	if r.Status.Stable != scenario.Stable || r.Status.Rejected == nil || r.Status.Rejected.Version != scenario.Canary {
		t.Errorf("stable %s, rejected %v", r.Status.Stable, r.Status.Rejected)
	}
	t.Log(r.Status.Message)
	return r
}

// TestEjectionTrips: v3 answers errors, and outlier detection takes out all of its endpoints. Istio's own metrics tell of no
// version then; Envoy's statistics do.
func TestEjectionTrips(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		stage       func(*testing.T, string) *stage
		message     string
		not, metric string
	}{
		"by host":    {newStage, "(attributed by host)", "envoy_", "istio_requests_total"},
		"with stats": {newStatsStage, "Ejection 1 > 0", "by host", "envoy_cluster_outlier_detection_ejections_active"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := test.stage(t, "ejection")
			s.Misbehave("reviews-v3", bookinfo.Misbehaviour{ErrorRate: 1})
			s.pushGuarded(t, scenario.Canary, ejectsAll, weight("half", 50, time.Hour))
			status := s.tripped(t).Status
			if !strings.Contains(status.Message, "Ejection") || !strings.Contains(status.Message, test.message) || strings.Contains(status.Message, test.not) {
				t.Errorf("message %q, want %q in it", status.Message, test.message)
			}
			if f := status.LastFailure; !strings.Contains(f.Query, test.metric) || strings.Contains(f.Query, test.not) || f.Gate != "breaker Ejection" {
				t.Errorf("evidence %+v, want one by %s", f, test.metric)
			}
		})
	}
}

// TestStormOnStable: v1's pool overflows all through the run, which goes on to its end.
func TestStormOnStable(t *testing.T) {
	t.Parallel()
	s := newStatsStage(t, "stable-storm")
	s.Misbehave("reviews-v1", slow)
	s.pushGuarded(t, scenario.Stable, poolOfOne, weight("half", 50, 10*time.Second))
	_, err := s.WaitRollout(t.Context(), "half", func(r *v1.Rollout) bool { return r.Status.Step != nil && r.Status.Step.Name == "half" })
	if err != nil {
		t.Fatal(err)
	}
	before := overflows(t, s)
	eventually(t, "v1 overflows", func() bool { return overflows(t, s) > before+20 })
	if r := wait(t, s, v1.PhaseHealthy, v1.ReasonServing); r.Status.Stable != scenario.Canary {
		t.Errorf("stable %s", r.Status.Stable)
	}
}

func overflows(t *testing.T, s *stage) float64 {
	t.Helper()
	n, err := s.Lost(t.Context(), "UO")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestStormInTheMirrorStep: copies that find no place in v3's pool are nobody's requests, so Istio's metrics do not tell of them and
// the run goes on, until users find no place either. Envoy's statistics count copies as well: where they are exposed it trips at once.
func TestStormInTheMirrorStep(t *testing.T) {
	t.Parallel()
	t.Run("by requests", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, "mirror-storm")
		s.Misbehave("reviews-v3", slow)
		s.pushGuarded(t, scenario.Canary, poolOfOne, shadow(8*time.Second), weight("full", 100, time.Hour))
		_, err := s.WaitRollout(t.Context(), "shadow", func(r *v1.Rollout) bool { return r.Status.Step != nil && r.Status.Step.Applied != nil })
		if err != nil {
			t.Fatal(err)
		}
		read := func(name func(context.Context) (float64, error)) float64 {
			n, err := name(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		received := func(ctx context.Context) (float64, error) { return s.Received(ctx, scenario.Canary) }
		asked, copies := read(s.Asked), read(received)
		eventually(t, "v3 has no place for most of the copies", func() bool {
			more := read(s.Asked) - asked
			return more > 100 && read(received)-copies < more/2
		})
		if r := s.tripped(t); !strings.Contains(r.Status.Message, "Overflow") || !strings.HasSuffix(r.Status.LastFailure.Step, "full") {
			t.Errorf("%s (%+v), want an overflow at full", r.Status.Message, r.Status.LastFailure)
		}
	})
	t.Run("with stats", func(t *testing.T) {
		t.Parallel()
		s := newStatsStage(t, "mirror-storm")
		s.Misbehave("reviews-v3", slow)
		s.pushGuarded(t, scenario.Canary, poolOfOne, shadow(time.Hour))
		r := s.tripped(t)
		if f := r.Status.LastFailure; !strings.HasSuffix(f.Step, "shadow") || !strings.Contains(f.Query, "envoy_cluster_upstream_rq_pending_overflow") {
			t.Errorf("evidence %+v, want Envoy's statistics at shadow", f)
		}
	})
}
