package controllers

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// A Deployment whose version label changes is both versions' workload, unless its selector says which version it runs, stable has
// another workload, or never had one.
func TestInPlace(t *testing.T) {
	for name, tc := range map[string]struct {
		selector      map[string]string
		revision, own string
		want          bool
	}{
		"updated in place":               {labelled("app", "reviews"), "c0ffee", "", true},
		"a Deployment for each version":  {labelled("app", "reviews", "version", "v2"), "c0ffee", "", false},
		"stable has one":                 {labelled("app", "reviews"), "c0ffee", "reviews-v1", false},
		"stable had none, such as on VM": {labelled("app", "reviews"), "", "", false},
		"selects nothing":                {nil, "c0ffee", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			d := deploymentOf("reviews", 1, 1, 1, labelled("app", "reviews", "version", "v2"))
			d.Spec.Selector = &metav1.LabelSelector{MatchLabels: tc.selector}
			s := &sight{place: place{workloads: []workload{deployment(d)}}}
			versions := map[string]pipeline.Version{
				"v1": {Labels: labelled("version", "v1"), Workload: tc.own}, "v2": {Labels: labelled("version", "v2"), Workload: "reviews"},
			}
			rollout := &v1.Rollout{Spec: v1.RolloutSpec{Version: "v2"}, Status: v1.RolloutStatus{Stable: "v1", StableRevision: tc.revision}}
			s.noteInPlace(rollout, versions)
			noteOverlaps(versions)
			if got := versions["v2"].Overlaps == "v1"; got != tc.want {
				t.Errorf("overlaps: %v, want %v", got, tc.want)
			}
		})
	}
}
