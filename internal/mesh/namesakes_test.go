package mesh

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

const (
	splitRoute = `{name: primary, route: [{destination: {host: reviews, subset: v1}, weight: 50}, {destination: {host: reviews, subset: v3}, weight: 50}]}`
	newcomer   = `{name: primary, match: [{headers: {x-test: {exact: "1"}}}], route: [{destination: {host: reviews, subset: v9}}]}`
	stranger   = `{name: primary, match: [{headers: {x-test: {exact: "1"}}}], route: [{destination: {host: assets}}]}`
)

// A route that gets the name of a driven one holds the way forward, and is taken along on the way back if it leads to the host.
func TestNamesakes(t *testing.T) {
	for name, tc := range map[string]struct {
		traffic, found string
		want           []string // nil: nothing is written
	}{
		"forward":          {"CANARY weight: 60", newcomer + ", " + splitRoute, nil},
		"forward, behind":  {"CANARY weight: 60", splitRoute + ", " + newcomer, nil},
		"back":             {"weight: 0", newcomer + ", " + splitRoute, []string{"primary -> reviews/v1", "primary -> reviews/v1"}},
		"back, a stranger": {"weight: 0", stranger + ", " + splitRoute, []string{"primary -> assets", "primary -> reviews/v1"}},
	} {
		t.Run(name, func(t *testing.T) {
			managed := v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1"}}}
			got, problem := VirtualService(reviewsWith(t, tc.traffic), managed, virtualService(t, tc.found))
			checkProblem(t, problem, v1.ReasonRouteNotFound, "has 2 routes named primary, and had 1")
			if tc.want == nil {
				if got != nil {
					t.Errorf("written %v", summary(got))
				}
				return
			}
			if diff := cmp.Diff(tc.want, summary(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// A push takes a newcomer away without moving a weight, and brings none.
func TestNamesakesArePushed(t *testing.T) {
	r := reviewsWith(t, "CANARY weight: 50")
	r.Status.VirtualServices = []v1.ManagedVirtualService{{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1"}}}}
	rebase := func(found, desired string) (*unstructured.Unstructured, *Problem) {
		return Rebase([]v1.Rollout{*r}, virtualService(t, found), virtualService(t, desired))
	}
	got, problem := rebase(newcomer+", "+splitRoute, primaryRoute)
	if problem != nil || strings.Join(summary(got), "; ") != "primary -> reviews/v1 50, reviews/v3 50" {
		t.Errorf("%v, %+v", summary(got), problem)
	}
	_, problem = rebase(splitRoute, newcomer+", "+primaryRoute)
	checkProblem(t, problem, v1.ReasonRouteNotFound, "give the others names of their own")
}
