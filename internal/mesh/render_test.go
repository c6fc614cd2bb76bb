package mesh

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// reviewsWith is the Rollout of reviews with a traffic, as the inside of a YAML flow mapping beside stable.
func reviewsWith(t testing.TB, traffic string) *v1.Rollout {
	t.Helper()
	const canary = "canary: {version: v3, subset: v3, labels: {version: v3}}, "
	return parseRollout(t, `
metadata: {name: reviews, namespace: bookinfo}
spec: {host: reviews, version: v3}
status:
  traffic: {stable: {version: v1, subset: v1, labels: {version: v1}}, `+strings.Replace(traffic, "CANARY ", canary, 1)+`}
  subsets: [{name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}, added: true}]`)
}

func virtualService(t testing.TB, routes string) *unstructured.Unstructured {
	t.Helper()
	return parseAll(t, "VirtualService", "metadata: {name: reviews, namespace: bookinfo}\nspec: {hosts: [reviews], http: ["+routes+"]}")[0]
}

// summary writes routes as "name -> host/subset weight, ... [mirror ...] [fault]".
func summary(vs *unstructured.Unstructured) []string {
	var lines []string
	for _, route := range httpRoutes(vs) {
		var ends []string
		for _, d := range objects(route["route"]) {
			end := text(child(d, "destination"), "host")
			if subset := text(child(d, "destination"), "subset"); subset != "" {
				end += "/" + subset
			}
			if weight, given := number(d["weight"]); given {
				end += fmt.Sprint(" ", weight)
			}
			ends = append(ends, end)
		}
		line := text(route, "name") + " -> " + strings.Join(ends, ", ")
		if single := child(route, "mirror"); single != nil {
			line += " mirror " + text(single, "host")
		}
		for _, m := range objects(route["mirrors"]) {
			line += fmt.Sprintf(" mirrors %s/%s %v", text(child(m, "destination"), "host"), text(child(m, "destination"), "subset"), child(m, "percentage")["value"])
		}
		if route["fault"] != nil {
			line += " fault"
		}
		lines = append(lines, line)
	}
	return lines
}

const (
	primaryRoute = `{name: primary, route: [{destination: {host: reviews, subset: v1}}]}`
	jason        = `[{headers: {end-user: {exact: jason}}}]`
	delayed      = `delay: {percentage: {value: 100}, fixedDelay: 7s}`
)

func TestVirtualService(t *testing.T) {
	primary := v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1"}}}
	made := v1.ManagedVirtualService{Name: "reviews", Created: true}
	for name, tc := range map[string]struct {
		traffic, found string
		managed        v1.ManagedVirtualService
		want           []string
	}{
		"half":               {"CANARY weight: 50", primaryRoute, primary, []string{"primary -> reviews/v1 50, reviews/v3 50"}},
		"both stand at 0":    {"CANARY weight: 0", primaryRoute, primary, []string{"primary -> reviews/v1 100, reviews/v3 0"}},
		"both stand at 100":  {"CANARY weight: 100", primaryRoute, primary, []string{"primary -> reviews/v1 0, reviews/v3 100"}},
		"at rest":            {"weight: 0", primaryRoute, primary, []string{"primary -> reviews/v1"}},
		"drift is put right": {"weight: 0", strings.ReplaceAll(primaryRoute, "v1", "v9"), primary, []string{"primary -> reviews/v1"}},
		"a foreign host is put right": {
			"CANARY weight: 20", strings.ReplaceAll(primaryRoute, "reviews", "ratings"), primary, []string{"primary -> reviews/v1 80, reviews/v3 20"},
		},
		"weight stays where it was": {
			"weight: 0", strings.ReplaceAll(primaryRoute, "v1}", "v1}, weight: 7"),
			v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", Weighted: true}}},
			[]string{"primary -> reviews/v1 100"},
		},
		"only the first of a name is driven": {
			"CANARY weight: 50", primaryRoute + ", " + primaryRoute, primary, []string{"primary -> reviews/v1 50, reviews/v3 50", "primary -> reviews/v1"},
		},
		"copies of Rollouts with longer and shorter names stay": {
			"CANARY weight: 1",
			`{name: sluice-match-reviews-1-0, route: [{destination: {host: reviews}}]}, {name: sluice-mirror-reviews-7, route: []},
			 {name: sluice-match-review-0, route: [{destination: {host: reviews}}]}, ` + primaryRoute + `, {name: sluice-fault-reviews, route: []}, x`,
			primary,
			[]string{"sluice-match-reviews-1-0 -> reviews", "sluice-match-review-0 -> reviews", "primary -> reviews/v1 99, reviews/v3 1", "sluice-fault-reviews -> "},
		},
		"faults, then matches": {
			"CANARY weight: 10, match: " + jason + ", fault: {match: " + jason + ", " + delayed + "}", primaryRoute, primary,
			[]string{"sluice-fault-reviews-0 -> reviews/v3 fault", "sluice-match-reviews-0 -> reviews/v3", "primary -> reviews/v1 90, reviews/v3 10"},
		},
		"a fault of a neighbour is led along": {
			"CANARY weight: 30, match: " + jason,
			`{name: sluice-fault-page-0, fault: {delay: {}}, route: [{destination: {host: reviews, subset: v9}}]},
			 {name: sluice-fault-page-1, route: [{destination: {host: other}}]}, {name: sluice-match-reviews-0, route: []}, ` + primaryRoute,
			primary,
			[]string{
				"sluice-fault-page-0 -> reviews/v1 70, reviews/v3 30 fault", "sluice-fault-page-1 -> other",
				"sluice-match-reviews-0 -> reviews/v3", "primary -> reviews/v1 70, reviews/v3 30",
			},
		},
		"a mirror beside another": {
			"CANARY weight: 0, mirror: {percentage: 30}", `{name: primary, mirrors: [{destination: {host: audit}, percentage: {value: 5}}], route: [{destination: {host: reviews}}]}`,
			primary,
			[]string{"primary -> reviews/v1 100, reviews/v3 0 mirrors audit/ 5 mirrors reviews/v3 30"},
		},
		"made again whole": {"CANARY weight: 0, mirror: {percentage: 30}", "", made, []string{"primary -> reviews/v1 100, reviews/v3 0 mirrors reviews/v3 30"}},
		"made: nothing lasts of a mirror": {
			"weight: 0", `{name: mine, route: []}, {name: primary, mirrors: [{destination: {host: reviews, subset: v3}}], route: []}`,
			made,
			[]string{"mine -> ", "primary -> reviews/v1"},
		},
		"made: the route that is gone comes back": {"CANARY weight: 5", `{name: mine, route: []}`, made, []string{"mine -> ", "primary -> reviews/v1 95, reviews/v3 5"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := reviewsWith(t, tc.traffic)
			got, problem := VirtualService(r, tc.managed, virtualService(t, tc.found))
			if problem != nil {
				t.Fatalf("%+v", problem)
			}
			if diff := cmp.Diff(tc.want, summary(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			again, _ := VirtualService(r, tc.managed, got)
			if diff := cmp.Diff(got, again); diff != "" {
				t.Errorf("rendering twice changes something:\n%s", diff)
			}
		})
	}
}

func TestVirtualServiceProblems(t *testing.T) {
	primary := v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary"}}}
	const behindPrefix = `{name: primary, match: [{headers: {end-user: {prefix: k}}}], route: [{destination: {host: reviews}}]}`
	for name, tc := range map[string]struct{ traffic, found, reason, says string }{
		"gone":         {"CANARY weight: 5", "", v1.ReasonVirtualServiceNotFound, "VirtualService reviews is gone"},
		"route gone":   {"CANARY weight: 5", `{name: other, route: []}`, v1.ReasonRouteNotFound, "has no route primary any more"},
		"no pair left": {"CANARY weight: 5, match: " + jason, behindPrefix, v1.ReasonMatchConflict, "no request can meet both the step's match"},
		"no pair left for the fault alone": {
			"CANARY weight: 5, match: [{headers: {end-user: {exact: kim}}}], fault: {match: " + jason + ", " + delayed + "}", behindPrefix,
			v1.ReasonMatchConflict, "no request can meet both the step's fault",
		},
		"not expressible": {
			"CANARY weight: 5, match: [{headers: {end-user: {regex: .*j}}}]", behindPrefix, v1.ReasonMatchConflict,
			`route primary can not be combined in one HTTPMatchRequest: headers: end-user: regex ".*j" and prefix "k"`,
		},
		"not expressible for the fault": {
			"CANARY weight: 5, match: " + jason + ", fault: {match: [{headers: {end-user: {regex: .*j}}}], " + delayed + "}", behindPrefix,
			v1.ReasonMatchConflict, "can not be combined",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var found *unstructured.Unstructured
			if tc.found != "" {
				found = virtualService(t, tc.found)
			}
			got, problem := VirtualService(reviewsWith(t, tc.traffic), primary, found)
			if got != nil || problem == nil || problem.Reason != tc.reason || !strings.Contains(problem.Message, tc.says) {
				t.Errorf("%v, problem %+v, want %s that says %q", got, problem, tc.reason, tc.says)
			}
		})
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

// TestWayBackOfWhatIsLeft: without a canary a route that is gone does not keep the others from going back to stable.
func TestWayBackOfWhatIsLeft(t *testing.T) {
	managed := v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "gone"}, {Key: "primary"}, {Key: "lost"}}}
	found := virtualService(t, `{name: sluice-match-reviews-1, route: []}, `+strings.ReplaceAll(primaryRoute, "v1", "v3"))
	got, problem := VirtualService(reviewsWith(t, "weight: 0"), managed, found)
	if problem == nil || problem.Reason != v1.ReasonRouteNotFound || !strings.Contains(problem.Message, "gone, lost") {
		t.Errorf("problem %+v, want RouteNotFound of gone, lost", problem)
	}
	if got == nil {
		t.Fatal("nothing to write")
	}
	if diff := cmp.Diff([]string{"primary -> reviews/v1"}, summary(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestBeforeDiscovery: without traffic in status nothing is changed.
func TestBeforeDiscovery(t *testing.T) {
	found := virtualService(t, primaryRoute)
	r := parseRollout(t, "metadata: {name: reviews, namespace: bookinfo}\nspec: {host: reviews, version: v3}")
	managed := v1.ManagedVirtualService{Name: "reviews", Created: true}
	own, problem := VirtualService(r, managed, found)
	fault, faultProblem := FaultVirtualService(r, &managed, found)
	if own != found || fault != found || problem != nil || faultProblem != nil {
		t.Errorf("%v %v, %v %v", own, problem, fault, faultProblem)
	}
}

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

func TestDestinationRule(t *testing.T) {
	const status = `
status:
  destinationRule: {name: rule}
  subsets: [{name: v3, labels: {version: v3}, added: true}, {name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, added: true, leaving: true}]`
	r := parseRollout(t, "metadata: {name: reviews, namespace: bookinfo}\nspec: {host: reviews, version: v3}"+status)
	for name, tc := range map[string]struct {
		found  string
		remove []string
		want   string
	}{
		"made": {want: `{host: reviews, subsets: [{name: v3, labels: {version: v3}}, {name: v1, labels: {version: v1}}]}`},
		"order, policies and foreign subsets stay": {
			found: `{host: reviews, x: 1, subsets: [{name: foreign}, {name: v1, labels: {version: wrong}, trafficPolicy: {tls: {mode: DISABLE}}}]}`,
			want: `{host: reviews, x: 1, subsets: [{name: foreign}, {name: v1, labels: {version: v1}, trafficPolicy: {tls: {mode: DISABLE}}},
			        {name: v3, labels: {version: v3}}]}`,
		},
		"a leaving one waits": {
			found: `{host: reviews, subsets: [{name: v2, labels: {version: v2}}, {name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]}`,
			want:  `{host: reviews, subsets: [{name: v2, labels: {version: v2}}, {name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]}`,
		},
		"and leaves": {
			found: `{host: reviews, subsets: [{name: v2, labels: {version: v2}}, {name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]}`, remove: []string{"v2"},
			want: `{host: reviews, subsets: [{name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var found *unstructured.Unstructured
			if tc.found != "" {
				found = parseAll(t, "DestinationRule", "metadata: {name: rule}\nspec: "+tc.found)[0]
			}
			got, problem := DestinationRule(r, found, tc.remove)
			want := parseAll(t, "DestinationRule", "metadata: {name: rule}\nspec: "+tc.want)[0]
			if diff := cmp.Diff(specOf(want), specOf(got)); diff != "" || problem != nil || got.GetName() != "rule" {
				t.Errorf("%s %+v -want +got:\n%s", got.GetName(), problem, diff)
			}
		})
	}
	foreign := parseAll(t, "DestinationRule", "metadata: {name: rule}\nspec: {host: ratings}")[0]
	if got, problem := DestinationRule(r, foreign, nil); got != nil || problem == nil || problem.Reason != v1.ReasonHostConflict {
		t.Errorf("a rule for another host: %v %+v", got, problem)
	}
	r.Status.Subsets, r.Status.DestinationRule = nil, nil
	if got, _ := DestinationRule(r, nil, nil); got.GetName() != "reviews" || specOf(got)["subsets"] != nil {
		t.Errorf("without subsets and name: %v", got)
	}
}
