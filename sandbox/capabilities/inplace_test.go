package capabilities

import (
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// TestInPlace: one Deployment in Git becomes a new one with each push of spec.version. The one before serves until the run is over, is
// kept for keepPrevious, and is pruned then; no request fails.
func TestInPlace(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "in-place"})
	s.waitServed(t, "v1", reviewsURL)
	users := s.load(t, 80, reviewsURL)
	for _, push := range []struct{ before, version string }{{"v1", "v2"}, {"v2", "v3"}} {
		s.pushVersion(t, "rollout.yaml", push.version)
		s.waitStep(t, "reviews", "half")
		if got := s.deployments(t); !slices.Equal(got, []string{"reviews-" + push.before, "reviews-" + push.version}) {
			t.Errorf("in the run to %s there are Deployments %v", push.version, got)
		}
		s.waitSplit(t, map[string]float64{push.before: 0.5, push.version: 0.5}, reviewsURL)
		s.waitHealthy(t, "reviews", push.version)
		if got := s.deployments(t); !slices.Contains(got, "reviews-"+push.before) {
			t.Errorf("right after the run to %s there are Deployments %v", push.version, got)
		}
		s.eventually(t, "reviews-"+push.before+" is pruned", func() (bool, string) {
			got := s.deployments(t)
			return slices.Equal(got, []string{"reviews-" + push.version}), fmt.Sprint(got)
		})
		s.waitServed(t, push.version, reviewsURL)
	}
	if seen := users.Stop(); seen.Failed > 0 || seen.Total == 0 {
		t.Errorf("%d of %d requests failed: %v", seen.Failed, seen.Total, seen.LastError)
	}
}

// deployments are the names of the namespace's, sorted.
func (s *stage) deployments(t *testing.T) []string {
	t.Helper()
	var list appsv1.DeploymentList
	if err := s.cluster.Client.List(t.Context(), &list, client.InNamespace(s.Namespace)); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range list.Items {
		names = append(names, d.Name)
	}
	slices.Sort(names)
	return names
}
