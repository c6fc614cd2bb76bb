package mesh

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

func TestFaultVirtualService(t *testing.T) {
	const onRatings = "CANARY weight: 0, match: " + jason + ", fault: {host: ratings, match: " + jason + ", " + delayed + "}"
	adopted, made := v1.ManagedVirtualService{Name: "ratings"}, v1.ManagedVirtualService{Name: "reviews-fault-ratings", Created: true}
	for name, tc := range map[string]struct {
		traffic, found string
		managed        v1.ManagedVirtualService
		want           []string // nil: to be deleted, or never made
		reason, says   string
	}{
		"made": {traffic: onRatings, managed: made, want: []string{"sluice-fault-reviews-0 -> ratings fault", "primary -> ratings"}},
		"made: its route comes back": {
			traffic: onRatings, managed: made, found: `{name: sluice-fault-reviews-0, route: []}, {name: mine, route: []}`,
			want: []string{"mine -> ", "sluice-fault-reviews-0 -> ratings fault", "primary -> ratings"},
		},
		"faults of several Rollouts stand in order of their names": {
			traffic: onRatings, managed: adopted,
			found: `{name: sluice-fault-a-0, route: []}, {name: sluice-fault-z-0, route: []}, {name: sluice-match-z-0, route: []},
			        {name: all, route: [{destination: {host: ratings}}]}`,
			want: []string{
				"sluice-fault-a-0 -> ", "sluice-fault-reviews-0 -> ratings fault", "sluice-fault-z-0 -> ", "sluice-match-z-0 -> ", "all -> ratings",
			},
		},
		"before each route to ratings alone": {
			traffic: onRatings, managed: adopted,
			found: `{name: page, route: [{destination: {host: page}}]}, {name: mixed, route: [{destination: {host: ratings}}, {destination: {host: page}}]},
			        {name: tester, match: [{headers: {end-user: {exact: kim}}}], route: [{destination: {host: ratings, subset: v2}}]},
			        {name: sluice-match-ratings-0, route: [{destination: {host: ratings, subset: v2}}]},
			        {name: all, route: [{destination: {host: ratings, subset: v1}, weight: 90}, {destination: {host: ratings, subset: v2}, weight: 10}]}`,
			want: []string{
				"page -> page", "mixed -> ratings, page", "tester -> ratings/v2",
				"sluice-fault-reviews-0 -> ratings/v1 90, ratings/v2 10 fault", "sluice-match-ratings-0 -> ratings/v2",
				"all -> ratings/v1 90, ratings/v2 10",
			},
		},
		"over, adopted": {
			traffic: "weight: 0", managed: adopted, found: `{name: sluice-fault-reviews-0, route: []}, {name: all, route: []}`, want: []string{"all -> "},
		},
		"over, made":            {traffic: "weight: 0", managed: made, found: `{name: primary, route: []}`},
		"over, gone by itself":  {traffic: "weight: 0", managed: adopted},
		"over, nothing to take": {traffic: "weight: 0", managed: adopted, found: "-"},
		"adopted and gone":      {traffic: onRatings, managed: adopted, reason: v1.ReasonVirtualServiceNotFound, says: "VirtualService ratings, which carries the fault on ratings, is gone"},
		"no route": {
			traffic: onRatings, managed: adopted, found: `{name: page, route: [{destination: {host: page}}]}`, reason: v1.ReasonMatchConflict, says: "has no route to ratings alone",
		},
		"for pods of another version": {
			traffic: strings.Replace(onRatings, "host: ratings, match: "+jason, "host: ratings, match: [{sourceLabels: {version: v1}}]", 1), managed: adopted,
			found: `{name: all, route: [{destination: {host: ratings}}]}`, reason: v1.ReasonMatchConflict, says: "that the fault's match can meet",
		},
		"a canary whose calls nobody can tell": {
			traffic: strings.NewReplacer("CANARY", "canary: {version: v3, host: v3.partner.com},", "match: "+jason+", fault", "fault").Replace(onRatings), managed: made,
			reason: v1.ReasonMatchConflict, says: "needs labels that tell its pods",
		},
		"not expressible": {
			traffic: onRatings, managed: adopted, found: `{name: all, match: [{future: 1, headers: {end-user: {suffix: n}}}], route: [{destination: {host: ratings}}]}`,
			reason: v1.ReasonMatchConflict, says: "can not be combined",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var found *unstructured.Unstructured
			switch tc.found {
			case "":
			case "-":
				found = parseAll(t, "VirtualService", "metadata: {name: ratings}\nspec: {hosts: [ratings]}")[0]
				tc.want = []string{}
			default:
				found = virtualService(t, tc.found)
			}
			r := reviewsWith(t, tc.traffic)
			got, problem := FaultVirtualService(r, &tc.managed, found)
			if tc.reason != "" {
				if problem == nil || got != nil || problem.Reason != tc.reason || !strings.Contains(problem.Message, tc.says) {
					t.Errorf("%+v, want %s that says %q", problem, tc.reason, tc.says)
				}
				return
			}
			if problem != nil || (got == nil) != (tc.want == nil) {
				t.Fatalf("%v, problem %+v", got, problem)
			}
			if got == nil {
				return
			}
			if lines := summary(got); strings.Join(lines, "\n") != strings.Join(tc.want, "\n") {
				t.Errorf("-want +got:\n%s", cmp.Diff(tc.want, lines))
			}
			if tc.found == "-" && !cmp.Equal(found, got) {
				t.Errorf("changed without need:\n%s", cmp.Diff(found, got))
			}
		})
	}
}

// TestFaultIsForTheCanarysCalls: the copy carries the canary's labels, beside those of the step.
func TestFaultIsForTheCanarysCalls(t *testing.T) {
	r := reviewsWith(t, "CANARY weight: 0, fault: {host: ratings, match: [{sourceLabels: {app: reviews}}], "+delayed+"}")
	got, problem := FaultVirtualService(r, &v1.ManagedVirtualService{Name: "f", Created: true}, nil)
	if problem != nil {
		t.Fatal(problem)
	}
	want := parseMatches(t, `[{sourceLabels: {app: reviews, version: v3}}]`)
	if diff := cmp.Diff(want, objects(httpRoutes(got)[0]["match"])); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestFaultGoesBesideAProblem: what keeps the next step from being written does not leave the fault of the one before.
func TestFaultGoesBesideAProblem(t *testing.T) {
	const after = `{name: sluice-fault-other-0, route: []}, {name: sluice-fault-reviews-0, route: []}, {name: sluice-match-reviews-0, route: []}, `
	const conflicting = "[{headers: {end-user: {suffix: n}}}]"
	own := v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary"}}}
	carrier := v1.ManagedVirtualService{Name: "reviews"}
	for name, tc := range map[string]struct {
		traffic, found string
		render         func(*v1.Rollout, *unstructured.Unstructured) (*unstructured.Unstructured, *Problem)
		want           []string
	}{
		"on the own host": {
			"CANARY weight: 5, match: " + jason, after + `{name: primary, match: ` + conflicting + `, route: [{destination: {host: reviews}}]}`,
			func(r *v1.Rollout, found *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
				return VirtualService(r, own, found)
			},
			[]string{"sluice-fault-other-0 -> ", "sluice-match-reviews-0 -> ", "primary -> reviews"},
		},
		"on the own host, a route is gone": {
			"CANARY weight: 5", after + `{name: renamed, route: [{destination: {host: reviews}}]}`,
			func(r *v1.Rollout, found *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
				return VirtualService(r, own, found)
			},
			[]string{"sluice-fault-other-0 -> ", "sluice-match-reviews-0 -> ", "renamed -> reviews"},
		},
		"on another": {
			"CANARY weight: 5, fault: {host: ratings, match: " + jason + ", " + delayed + "}",
			after + `{name: all, match: ` + conflicting + `, route: [{destination: {host: ratings}}]}`,
			func(r *v1.Rollout, found *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
				return FaultVirtualService(r, &carrier, found)
			},
			[]string{"sluice-fault-other-0 -> ", "sluice-match-reviews-0 -> ", "all -> ratings"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			found := virtualService(t, tc.found)
			before := found.DeepCopy()
			got, problem := tc.render(reviewsWith(t, tc.traffic), found)
			if problem == nil || got == nil {
				t.Fatalf("%v, problem %+v", got, problem)
			}
			if diff := cmp.Diff(tc.want, summary(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if !cmp.Equal(before, found) {
				t.Error("what was found is changed")
			}
			if again, _ := tc.render(reviewsWith(t, tc.traffic), got); again != nil {
				t.Errorf("rendered again: %v", summary(again))
			}
		})
	}
}
