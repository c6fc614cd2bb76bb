package mesh

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"pgregory.net/rapid"

	v1 "sluice.dev/sluice/api/v1"
)

// shares are what decides where a route's requests go and are copied to: subsets, weights, and mirrors on the host.
func shares(route object) string {
	var parts []string
	for _, d := range objects(route["route"]) {
		parts = append(parts, fmt.Sprint(text(child(d, "destination"), "subset"), "=", d["weight"]))
	}
	for _, m := range objects(route["mirrors"]) {
		if HostKey(text(child(m, "destination"), "host"), "bookinfo") == HostKey("reviews", "bookinfo") {
			parts = append(parts, fmt.Sprint("mirror ", text(child(m, "destination"), "subset"), " ", m["percentage"]))
		}
	}
	return strings.Join(parts, ", ")
}

// driven lists the driven routes and the inserted copies of a VirtualService with their shares.
func driven(r *v1.Rollout, vs *unstructured.Unstructured, managed v1.ManagedVirtualService) []string {
	var lines []string
	for _, route := range drivenList(r).routes(vs) {
		kind, _ := inserted(route)
		if kind != "" || slices.ContainsFunc(managed.Routes, func(m v1.ManagedRoute) bool { return m.Key == routeKey(route) }) {
			lines = append(lines, routeKey(route)+": "+shares(route))
		}
	}
	return lines
}

// foreign is a VirtualService without what a Rollout drives in it.
func foreign(r *v1.Rollout, vs *unstructured.Unstructured, managed v1.ManagedVirtualService) *unstructured.Unstructured {
	out := vs.DeepCopy()
	list := withoutCopies(drivenList(r).of(out), "reviews")
	for _, m := range managed.Routes {
		route := asObject(list[indexOfRoute(list, m.Key)])
		for _, field := range append([]string{"route", "mirrors"}, mirrorFields...) {
			delete(route, field)
		}
	}
	drivenList(r).set(out, list)
	return out
}

// genEdit changes in a manifest what a push may change without touching which routes there are.
func genEdit(t *rapid.T, vs *unstructured.Unstructured) *unstructured.Unstructured {
	out := vs.DeepCopy()
	for _, route := range httpRoutes(out) {
		if rapid.Bool().Draw(t, "edits") {
			route["timeout"] = fmt.Sprint(rapid.IntRange(1, 9).Draw(t, "timeout"), "s")
		}
	}
	if rapid.Bool().Draw(t, "adds a route") {
		list := routesOf(out)
		at := rapid.IntRange(0, len(list)).Draw(t, "at")
		setRoutes(out, slices.Insert(slices.Clone(list), at, any(genForeign(t, "reviews", "added"))))
	}
	if rapid.Bool().Draw(t, "edits labels") {
		out.SetLabels(map[string]string{"team": "b"})
	}
	return out
}

// TestRebaseMovesNothing: a manifest that says "everything to v1", pushed at any moment of a run, changes all that is not the
// Rollout's, and no weight, mirror or copy; where the mesh is as status says, the Rollout finds nothing to write afterwards.
func TestRebaseMovesNothing(t *testing.T) {
	t.Parallel()
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		list := genList(t)
		rollout := func(traffic *v1.Traffic) *v1.Rollout { return speaking(list, rolloutOf("reviews", traffic)) }
		manifest := genWith(t, list, "reviews")
		managed := manage(t, rollout(nil), manifest)
		now, r := manifest.DeepCopy(), rollout(&v1.Traffic{Stable: v1.Target{Version: "v1", Subset: "v1"}})
		for range rapid.IntRange(0, 3).Draw(t, "steps") {
			r = rollout(genTrafficOf(t, list))
			if r.Status.Traffic.Mirror != nil {
				managed = SaveMirrors(managed, now)
			}
			if next, problem := VirtualService(r, managed, now); problem == nil {
				now = next
			}
		}
		if rapid.IntRange(0, 3).Draw(t, "promoted") == 0 {
			r = rollout(&v1.Traffic{Stable: v1.Target{Version: "v3", Subset: "v3"}})
			now, _ = VirtualService(r, managed, now)
		}
		if rapid.IntRange(0, 2).Draw(t, "a write is due") == 0 {
			r = rollout(genTrafficOf(t, list))
		}
		r.Status.VirtualServices = []v1.ManagedVirtualService{managed}
		d := driver{rollout: r, found: now}
		edited := genEdit(t, manifest)
		if list != httpList {
			edited = genL4Edit(t, list, edited)
		}
		out, problem := Rebase([]v1.Rollout{*r}, now, edited)
		if problem != nil {
			t.Fatalf("%+v", problem)
		}
		if diff := cmp.Diff(driven(r, now, managed), driven(r, out, managed)); diff != "" {
			t.Fatalf("settled %t: the push moves something (-before +after):\n%s", d.settled(), diff)
		}
		if diff := cmp.Diff(foreign(r, edited, managed).Object, foreign(r, out, managed).Object); diff != "" {
			t.Fatalf("settled %t: the push does not arrive (-want +got):\n%s", d.settled(), diff)
		}
		if again, problem := Rebase([]v1.Rollout{*r}, out, edited); problem != nil || !sameJSON(again.Object, out.Object) {
			t.Fatalf("settled %t: pushing again changes something: %+v\n%s", d.settled(), problem, cmp.Diff(out.Object, again.Object))
		}
		if rendered, problem := VirtualService(r, managed, out); d.settled() && (problem != nil || !sameJSON(rendered.Object, out.Object)) {
			t.Fatalf("the Rollout has something to put right: %+v\n%s", problem, cmp.Diff(out.Object, rendered.Object))
		}
		seen[fmt.Sprint("settled ", d.settled())]++
		seen[string(list)]++
	})
	if len(seen) < 2+len(routeLists) {
		t.Errorf("seen %v", seen)
	}
}

// drivenReviews is the Rollout of reviews that drives the VirtualService reviews and its rule, with a traffic.
func drivenReviews(t testing.TB, traffic string) v1.Rollout {
	t.Helper()
	r := reviewsWith(t, traffic)
	r.Status.VirtualServices = []v1.ManagedVirtualService{{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1"}}}}
	r.Status.DestinationRule = &v1.ManagedDestinationRule{Name: "reviews"}
	return *r
}

const (
	gitRoute  = "{name: primary, timeout: 9s, route: [{destination: {host: reviews, subset: v1}}]}"
	halfRoute = "{name: primary, route: [{destination: {host: reviews, subset: v1}, weight: 50}, {destination: {host: reviews, subset: v3}, weight: 50}]}"
)

func TestRebaseRoutes(t *testing.T) {
	t.Parallel()
	const half, canary = "CANARY weight: 50", "weight: 0"
	testers := "{name: sluice-match-reviews-0, match: " + jason + ", route: [{destination: {host: reviews, subset: v3}}]}, "
	for name, tc := range map[string]struct {
		traffic      string
		change       func(*v1.Rollout)
		found, wants string
		want         []string
		problem      string
	}{
		"in mid-run":               {traffic: half, found: halfRoute, wants: gitRoute, want: []string{"primary -> reviews/v1 50, reviews/v3 50"}},
		"a write is due":           {traffic: "CANARY weight: 90", found: halfRoute, wants: gitRoute, want: []string{"primary -> reviews/v1 50, reviews/v3 50"}},
		"a rollback is due":        {traffic: canary, found: halfRoute, wants: gitRoute, want: []string{"primary -> reviews/v1 50, reviews/v3 50"}},
		"somebody moved it":        {traffic: canary, found: strings.Replace(halfRoute, "50", "1", 1), wants: gitRoute, want: []string{"primary -> reviews/v1 1, reviews/v3 50"}},
		"Git has a dump of it":     {traffic: canary, found: gitRoute, wants: testers + halfRoute, want: []string{"primary -> reviews/v1"}},
		"a copy stands":            {traffic: half + ", match: " + jason, found: testers + halfRoute, wants: "{name: x}, " + gitRoute, want: []string{"x -> ", "sluice-match-reviews-0 -> reviews/v3", "primary -> reviews/v1 50, reviews/v3 50"}},
		"a copy stands, other due": {traffic: canary, found: testers + halfRoute, wants: "{name: x}, " + gitRoute, want: []string{"x -> ", "sluice-match-reviews-0 -> reviews/v3", "primary -> reviews/v1 50, reviews/v3 50"}},
		"nothing is there":         {traffic: half, wants: gitRoute, want: []string{"primary -> reviews/v1"}},
		"the route is back":        {traffic: half, found: "{name: x}", wants: gitRoute, want: []string{"primary -> reviews/v1"}},
		"it was gone before":       {traffic: half, found: "{name: x}", wants: "{name: z}", want: []string{"z -> "}},
		"nothing, and a route was": {traffic: half, wants: "{name: z}", want: []string{"z -> "}},
		"the route goes":           {traffic: half, found: halfRoute, wants: "{name: other}", problem: "Rollout reviews drives its route primary"},
		"it goes at rest":          {traffic: canary, found: gitRoute, wants: "{name: other}", problem: "Rollout reviews drives its route primary"},
		"it goes, a write is due":  {traffic: canary, found: halfRoute, wants: "{name: other}", problem: "Rollout reviews drives its route primary"},
		"no match can be combined": {
			traffic: "CANARY weight: 0, match: [{headers: {end-user: {regex: j.*}}}]",
			found:   "{name: sluice-match-reviews-0, match: [{headers: {end-user: {regex: j.*}}}], route: [{destination: {host: reviews, subset: v3}}]}, " + strings.NewReplacer("v1}, weight: 50", "v1}, weight: 100", "v3}, weight: 50", "v3}, weight: 0").Replace(halfRoute),
			wants:   "{name: primary, match: [{headers: {end-user: {regex: k.*}}}], route: [{destination: {host: reviews, subset: v1}}]}", problem: "can not be combined",
		},
		"nobody drives it yet": {traffic: half, change: func(r *v1.Rollout) { r.Status.Traffic = nil }, found: gitRoute, wants: "{name: x}", want: []string{"x -> "}},
		"another is driven":    {traffic: half, change: func(r *v1.Rollout) { r.Status.VirtualServices[0].Name = "other" }, found: gitRoute, wants: "{name: x}", want: []string{"x -> "}},
		"one that Sluice made": {
			traffic: half, change: func(r *v1.Rollout) {
				r.Status.VirtualServices = []v1.ManagedVirtualService{{Name: "reviews", Created: true}}
			},
			found: halfRoute, wants: gitRoute, want: []string{"primary -> reviews/v1 50, reviews/v3 50"},
		},
		"one that Sluice made, by another name": {
			traffic: half, change: func(r *v1.Rollout) {
				r.Status.VirtualServices = []v1.ManagedVirtualService{{Name: "reviews", Created: true}}
			},
			found: halfRoute, wants: strings.Replace(gitRoute, "name: primary, ", "", 1), problem: "drives its route primary",
		},
	} {
		r := drivenReviews(t, tc.traffic)
		if tc.change != nil {
			tc.change(&r)
		}
		var found *unstructured.Unstructured
		if tc.found != "" {
			found = virtualService(t, tc.found)
		}
		out, problem := Rebase([]v1.Rollout{r}, found, virtualService(t, tc.wants))
		switch {
		case (problem != nil) != (tc.problem != ""), problem != nil && !strings.Contains(problem.Message, tc.problem):
			t.Errorf("%s: problem %+v, want %q", name, problem, tc.problem)
		case problem == nil:
			if diff := cmp.Diff(tc.want, summary(out)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
}

// A fault copy on a dependency's VirtualService outlives a push there, with that dependency's own Rollout in mid-run.
func TestRebaseFault(t *testing.T) {
	t.Parallel()
	faulty := *parseRollout(t, `
metadata: {name: page, namespace: bookinfo}
spec: {host: page}
status:
  traffic: {stable: {version: v1, subset: v1}, canary: {version: v3, subset: v3, labels: {version: v3}}, weight: 0, fault: {host: reviews, match: `+jason+", "+delayed+`}}
  virtualServices: [{name: page}]
  faultVirtualService: {name: reviews}`)
	own := drivenReviews(t, "CANARY weight: 50")
	found, problem := Rebase(nil, nil, virtualService(t, halfRoute))
	if problem != nil {
		t.Fatal(problem)
	}
	if found, problem = FaultVirtualService(&faulty, faulty.Status.FaultVirtualService, found); problem != nil {
		t.Fatal(problem)
	}
	over := *faulty.DeepCopy()
	over.Status.Traffic.Fault = nil
	half := " -> reviews/v1 50, reviews/v3 50"
	for name, tc := range map[string]struct {
		rollouts []v1.Rollout
		found    *unstructured.Unstructured
		wants    string
		want     []string
		problem  string
	}{
		"both":             {[]v1.Rollout{faulty, own}, found, gitRoute, []string{"sluice-fault-page-0" + half + " fault", "primary" + half}, ""},
		"the fault alone":  {[]v1.Rollout{faulty}, found, gitRoute, []string{"sluice-fault-page-0 -> reviews/v1 fault", "primary -> reviews/v1"}, ""},
		"own write due":    {[]v1.Rollout{faulty, drivenReviews(t, "weight: 0")}, found, gitRoute, []string{"sluice-fault-page-0" + half + " fault", "primary" + half}, ""},
		"nothing there":    {[]v1.Rollout{faulty}, nil, gitRoute, []string{"primary -> reviews/v1"}, ""},
		"not written yet":  {[]v1.Rollout{faulty, own}, virtualService(t, halfRoute), gitRoute, []string{"primary" + half}, ""},
		"its route goes":   {[]v1.Rollout{faulty}, found, "{name: x}", nil, "no route to reviews alone"},
		"it is over there": {[]v1.Rollout{over}, found, gitRoute, []string{"sluice-fault-page-0" + half + " fault", "primary -> reviews/v1"}, ""},
	} {
		out, problem := Rebase(tc.rollouts, tc.found, virtualService(t, tc.wants))
		if (problem != nil) != (tc.problem != "") || (problem != nil && !strings.Contains(problem.Message, tc.problem)) {
			t.Errorf("%s: problem %+v, want %q", name, problem, tc.problem)
		} else if problem == nil {
			if diff := cmp.Diff(tc.want, summary(out)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
}

func TestRebaseRule(t *testing.T) {
	t.Parallel()
	rule := func(spec string) *unstructured.Unstructured {
		return parseAll(t, "DestinationRule", "metadata: {name: reviews, namespace: bookinfo}\nspec: "+spec)[0]
	}
	const one, three = "{name: v1, labels: {version: v1}}", "{name: v3, labels: {version: v3}, note: kept}"
	for name, tc := range map[string]struct{ found, wants, want, problem string }{
		"added subsets stay": {
			found: "{host: reviews, subsets: [" + one + ", " + three + "]}", wants: "{host: reviews, subsets: [" + one + "], trafficPolicy: {tls: {}}}",
			want: "{host: reviews, subsets: [" + one + ", " + three + "], trafficPolicy: {tls: {}}}",
		},
		"others are Git's": {
			found: "{host: reviews, subsets: [{name: old}, " + three + ", " + one + "]}", wants: "{host: reviews, subsets: [" + one + ", {name: new}]}",
			want: "{host: reviews, subsets: [" + one + ", {name: new}, " + three + "]}",
		},
		"labels of a version stay": {
			found: "{host: reviews, subsets: [" + one + ", " + three + "]}", wants: "{host: reviews, subsets: [{name: v1, labels: {version: v2}}]}",
			want: "{host: reviews, subsets: [" + one + ", " + three + "]}",
		},
		"a rule without subsets": {
			found: "{host: reviews, subsets: [" + one + ", " + three + "]}", wants: "{host: reviews}", want: "{host: reviews, subsets: [" + one + ", " + three + "]}",
		},
		"a write is due": {
			found: "{host: reviews, subsets: [{name: v1, labels: {version: old}}]}", wants: "{host: reviews, subsets: [" + one + ", {name: new}]}",
			want: "{host: reviews, subsets: [{name: v1, labels: {version: old}}, {name: new}]}",
		},
		"nothing is there": {
			wants: "{host: reviews, subsets: [{name: new}]}", want: "{host: reviews, subsets: [{name: new}, " + one + ", {name: v3, labels: {version: v3}}]}",
		},
		"for another host": {
			found: "{host: reviews, subsets: [" + one + ", " + three + "]}", wants: "{host: ratings}", problem: "is for host ratings",
		},
	} {
		var found *unstructured.Unstructured
		if tc.found != "" {
			found = rule(tc.found)
		}
		out, problem := Rebase([]v1.Rollout{drivenReviews(t, "CANARY weight: 50")}, found, rule(tc.wants))
		if (problem != nil) != (tc.problem != "") || (problem != nil && !strings.Contains(problem.Message, tc.problem)) {
			t.Errorf("%s: problem %+v, want %q", name, problem, tc.problem)
		} else if problem == nil {
			if diff := cmp.Diff(rule(tc.want).Object, out.Object); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
	}
}

func TestKeepNamed(t *testing.T) {
	t.Parallel()
	rule := func(spec string) *unstructured.Unstructured {
		return parseAll(t, "DestinationRule", "metadata: {name: reviews, namespace: bookinfo}\nspec: "+spec)[0]
	}
	const found = "{host: reviews, subsets: [{name: v1}, {name: v2, labels: {version: v2}}, {name: v3}]}"
	routes := []*unstructured.Unstructured{virtualService(t, "{name: primary, route: [{destination: {host: reviews, subset: v3}}], mirror: {host: reviews, subset: v1}}")}
	for wants, want := range map[string]string{
		"{host: reviews, subsets: [{name: v1, labels: {a: b}}]}": "{host: reviews, subsets: [{name: v1, labels: {a: b}}, {name: v3}]}",
		"{host: reviews}":                        "{host: reviews, subsets: [{name: v1}, {name: v3}]}",
		"{host: ratings, subsets: [{name: v9}]}": "{host: ratings, subsets: [{name: v9}]}",
		// The same host, spelled in full from now on.
		"{host: reviews.bookinfo.svc.cluster.local}": "{host: reviews.bookinfo.svc.cluster.local, subsets: [{name: v1}, {name: v3}]}",
	} {
		got := rule(wants)
		KeepNamed(rule(found), got, routes)
		if diff := cmp.Diff(rule(want).Object, got.Object); diff != "" {
			t.Errorf("%s (-want +got):\n%s", wants, diff)
		}
	}
}

// FuzzRebase: whatever a cluster and a repository hold, nothing panics, neither is changed, and a second push changes nothing.
func FuzzRebase(f *testing.F) {
	f.Add(`{"http":[{"name":"primary","route":[{"destination":{"host":"reviews"}}]}]}`, `{"http":[{"name":"primary"}]}`)
	f.Add(`{"host":"reviews","subsets":[{"name":"v1"},null]}`, `{"host":"reviews","subsets":[1,{"name":"v3"}]}`)
	f.Fuzz(func(t *testing.T, found, wants string) {
		for _, kind := range []string{"VirtualService", "DestinationRule"} {
			object := func(spec string) *unstructured.Unstructured {
				var raw any
				if json.Unmarshal([]byte(spec), &raw) != nil {
					t.Skip()
				}
				return &unstructured.Unstructured{Object: object{"kind": kind, "metadata": object{"name": "reviews", "namespace": "bookinfo"}, "spec": raw}}
			}
			here, there := object(found), object(wants)
			hereBefore, thereBefore := here.DeepCopy(), there.DeepCopy()
			for _, traffic := range []string{"weight: 0", "CANARY weight: 30, mirror: {percentage: 5}, match: " + jason + ", fault: {match: " + jason + ", " + delayed + "}"} {
				r := drivenReviews(t, traffic)
				r.Status.FaultVirtualService = &v1.ManagedVirtualService{Name: "reviews"}
				out, problem := Rebase([]v1.Rollout{r}, here, there)
				if problem != nil {
					continue
				}
				if again, problem := Rebase([]v1.Rollout{r}, out, there); problem != nil || cmp.Diff(out, again) != "" {
					t.Errorf("pushing twice changes something: %+v\n%s", problem, cmp.Diff(out, again))
				}
			}
			if diff := cmp.Diff(hereBefore, here) + cmp.Diff(thereBefore, there); diff != "" {
				t.Errorf("an input is changed:\n%s", diff)
			}
		}
	})
}
