package capabilities

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Test01Subsets: every subset of every service gets all traffic when its Rollout says so, one after the other, and the rules that
// came from Git keep the subsets that Git gave them.
func Test01Subsets(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "01-subsets", apps: []string{"bookinfo.yaml", "bookinfo-versions.yaml"}})
	urls := map[string]string{
		"productpage": "http://productpage:9080/productpage", "reviews": reviewsURL,
		"ratings": "http://ratings:9080/ratings/0", "details": "http://details:9080/details/0",
	}
	before := map[string][]string{}
	for name, url := range urls {
		before[name] = s.subsets(t, name)
		s.waitServed(t, "v1", url)
	}
	for _, move := range []struct{ service, version string }{
		{"reviews", "v2"}, {"ratings", "v2"}, {"details", "v2"}, {"ratings", "v2-mysql"}, {"reviews", "v3"}, {"ratings", "v2-mysql-vm"},
	} {
		s.pushVersion(t, move.service+".yaml", move.version)
		s.waitHealthy(t, move.service, move.version)
		s.waitServed(t, move.version, urls[move.service])
	}
	if page := s.get(t, urls["productpage"]).page(t); page.Reviews.Version != "v3" || !page.Complete() {
		t.Errorf("the page is %+v, want a whole one with reviews v3", page)
	}
	for name, want := range before {
		if diff := cmp.Diff(want, s.subsets(t, name)); diff != "" {
			t.Errorf("DestinationRule %s has other subsets (-before +after):\n%s", name, diff)
		}
	}
}

func (s *stage) subsets(t *testing.T, rule string) []string {
	t.Helper()
	var dr networking.DestinationRule
	if err := s.cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: s.Namespace, Name: rule}, &dr); err != nil {
		t.Fatal(err)
	}
	names := make([]string, 0, len(dr.Spec.Subsets))
	for _, subset := range dr.Spec.Subsets {
		names = append(names, subset.Name)
	}
	return names
}

// Test02AllToOne: without a route users meet every version; with the Rollout the one that it names, and after a push the other.
func Test02AllToOne(t *testing.T) {
	t.Parallel()
	s := newBareStage(t, example{dir: "02-all-to-one", apps: []string{"bookinfo.yaml"}})
	s.eventually(t, "users meet three versions", func() (bool, string) {
		seen := s.visit(t, 30, reviewsURL)
		return len(seen.versions) == 3, seen.String()
	})
	s.follow(t)
	s.waitHealthy(t, "reviews", "v1")
	s.waitServed(t, "v1", reviewsURL)
	s.load(t, 40, reviewsURL)
	for _, version := range []string{"v2", "v3"} {
		s.pushVersion(t, "rollout.yaml", version)
		s.waitHealthy(t, "reviews", version)
		s.waitServed(t, version, reviewsURL)
	}
}
