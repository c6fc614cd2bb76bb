package capabilities

import (
	"fmt"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// onDeployments: one Deployment in Git becomes a new one with each push of spec.version. The one before serves until the run is over, is
// kept for keepPrevious, and is pruned then; so are both that v3 leaves behind.
func onDeployments(t *testing.T, s *stage, at string) {
	t.Helper()
	switch at {
	case atRest:
	case promoted:
		s.has(t, "right after the run to v2", "reviews-v1")
	case returned:
		s.pushVersion(t, "rollout.yaml", "v3")
		s.stayIn(t, "reviews", "half")
		s.has(t, "in the run to v3", "reviews-v1", "reviews-v3")
		s.waitSplit(t, map[string]float64{"v1": 0.5, "v3": 0.5}, reviewsURL)
		s.goOn(t, "reviews")
		s.waitHealthy(t, "reviews", "v3")
		s.has(t, "right after the run to v3", "reviews-v1")
		s.eventually(t, "all but reviews-v3 are pruned", func() (bool, string) {
			got := s.deployments(t)
			return slices.Equal(got, []string{"reviews-v3"}), fmt.Sprint(got)
		})
		s.waitServed(t, "v3", reviewsURL)
	default: // a step
		if got := s.deployments(t); !slices.Equal(got, []string{"reviews-v1", "reviews-v2"}) {
			t.Errorf("in step %s of the run to v2 there are Deployments %v", at, got)
		}
	}
}

// has checks that Deployments are there.
func (s *stage) has(t *testing.T, when string, names ...string) {
	t.Helper()
	got := s.deployments(t)
	for _, name := range names {
		if !slices.Contains(got, name) {
			t.Errorf("%s there are Deployments %v, want %s among them", when, got, name)
		}
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
