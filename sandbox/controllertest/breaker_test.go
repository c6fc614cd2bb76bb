package controllertest

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// awaitPolicies waits until the rule has these policies, as canonical JSON: the host's, and each subset's by name.
func (w *world) awaitPolicies(host string, subsets map[string]string) {
	w.t.Helper()
	w.eventually("the rule has its policies", func() error {
		rule := &networking.DestinationRule{}
		if err := w.client.Get(w.t.Context(), w.key("reviews"), rule); err != nil {
			return err
		}
		got := map[string]string{"": string(v1.CanonicalJSON(rule.Spec.TrafficPolicy))}
		for _, s := range rule.Spec.Subsets {
			got[s.Name] = string(v1.CanonicalJSON(s.TrafficPolicy))
		}
		want := map[string]string{"": host}
		for name, policy := range subsets {
			want[name] = policy
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

func pool(connections int32) *istio.ConnectionPoolSettings {
	return &istio.ConnectionPoolSettings{Tcp: &istio.ConnectionPoolSettings_TCPSettings{MaxConnections: connections}}
}

// TestTripAndPolicies: policies are written block by block beside what was found; with the pool that they bring the breaker is on,
// its trip rolls back, and what was found comes back when the Rollout gives the blocks no longer, or goes.
func TestTripAndPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	found := &networking.DestinationRule{ObjectMeta: metav1.ObjectMeta{Name: "reviews"}}
	found.Spec.Host, found.Spec.Subsets = "reviews", subsetOf("reviews", "v1").Subsets
	found.Spec.TrafficPolicy = &istio.TrafficPolicy{
		ConnectionPool: pool(50), LoadBalancer: &istio.LoadBalancerSettings{LbPolicy: &istio.LoadBalancerSettings_Simple{Simple: istio.LoadBalancerSettings_RANDOM}},
	}
	w.create(found)
	w.rollout(`
host: reviews
version: v1
gates: []
destinationRule: {trafficPolicy: {connectionPool: {tcp: {maxConnections: 100}}}}
versions:
- {name: v3, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}, outlierDetection: {consecutive5xxErrors: 1}}}
steps:
- {name: half, weight: 50, hold: 1h}
`)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	const host = `{"connectionPool":{"tcp":{"maxConnections":%d}},"loadBalancer":{"simple":"RANDOM"}}`
	const canary = `{"connectionPool":{"tcp":{"maxConnections":1}},"outlierDetection":{"consecutive5xxErrors":1}}`
	w.awaitPolicies(fmt.Sprintf(host, 100), map[string]string{"v1": "null", "v3": canary})
	if got := w.get().Status.DestinationRule.Policies; len(got) != 2 || got[0].Found != `{"connectionPool":{"tcp":{"maxConnections":50}}}` {
		t.Errorf("status keeps %+v of what was found", got)
	}

	w.push("v3")
	w.awaitRoutes("reviews", "v1 50, v3 50")
	w.operator.evidence.trip(w.key("reviews"), pipeline.Trip{Signal: v1.SignalOverflow, Count: 3, Query: "up"})
	r := w.awaitPhase(v1.PhaseRolledBack, v1.ReasonTrip)
	w.awaitRoutes("reviews", "v1")
	if f := r.Status.LastFailure; f == nil || f.Gate != "breaker Overflow" || f.Value != "3 in 30s" || f.Step != "1/2 half" {
		t.Errorf("evidence %+v", f)
	}
	w.eventually("an event tells of it", func() error {
		if got := w.events(); !slices.Contains(got, v1.ReasonTrip) {
			return fmt.Errorf("events %v", got)
		}
		return nil
	})

	w.edit(func(r *v1.Rollout) { r.Spec.Versions[0].TrafficPolicy.OutlierDetection = nil })
	w.awaitPolicies(fmt.Sprintf(host, 100), map[string]string{"v1": "null", "v3": `{"connectionPool":{"tcp":{"maxConnections":1}}}`})
	w.edit(func(r *v1.Rollout) { r.Spec.DestinationRule = nil })
	w.awaitPolicies(fmt.Sprintf(host, 50), map[string]string{"v1": "null", "v3": `{"connectionPool":{"tcp":{"maxConnections":1}}}`})
	w.settles()
	if got := w.get().Status.DestinationRule.Policies; len(got) != 1 || got[0].Subset != "v3" {
		t.Errorf("status still keeps %+v", got)
	}
	if err := w.client.Delete(t.Context(), w.get()); err != nil {
		t.Fatal(err)
	}
	w.gone(&v1.Rollout{}, "reviews")
	w.awaitPolicies(fmt.Sprintf(host, 50), map[string]string{"v1": "null", "v3": "null"})
}
