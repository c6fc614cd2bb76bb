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
			"CANARY weight: 50", primaryRoute + ", " + primaryRoute,
			v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1", Namesakes: 1}}},
			[]string{"primary -> reviews/v1 50, reviews/v3 50", "primary -> reviews/v1"},
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
	r.Status.DestinationRule = nil
	if got, _ := DestinationRule(r, nil, nil); got.GetName() != "reviews" {
		t.Errorf("without a name: %v", got)
	}
	r.Status.Subsets = nil
	if got, problem := DestinationRule(r, foreign, nil); got != foreign || problem != nil {
		t.Errorf("a rule for another host that would hold nothing: %v %+v", got, problem)
	}
	if got, _ := DestinationRule(r, nil, nil); got != nil {
		t.Errorf("one that holds nothing is made: %v", got)
	}
}
