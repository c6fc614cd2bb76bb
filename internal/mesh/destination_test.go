package mesh

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	istio "istio.io/api/networking/v1alpha3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"

	v1 "sluice.dev/sluice/api/v1"
)

// elsewhere are versions with hosts of their own: a Service, an external host, and one on another port of the Rollout's.
var elsewhere = map[string]v1.Target{
	"v3": {Version: "v3", Host: "reviews-v3"},
	"v4": {Version: "v4", Host: "api-v4.partner.com", Port: 443},
	"v5": {Version: "v5", Host: "reviews.bookinfo.svc.cluster.local", Port: 9443},
}

func rolloutElsewhere(traffic *v1.Traffic) *v1.Rollout {
	r := rolloutOf("reviews", traffic)
	for _, name := range []string{"v3", "v4", "v5"} {
		t := elsewhere[name]
		d := &v1.Destination{Host: t.Host}
		if t.Port != 0 {
			d.Port = &istio.PortSelector{Number: t.Port}
		}
		r.Spec.Versions = append(r.Spec.Versions, v1.Version{Name: name, Destination: d})
	}
	return r
}

// TestRunsElsewhereLeaveOnlyTheDestination: versions may have hosts of their own; whoever is stable in between, once a subset of
// the Rollout's host serves again everything is as it was found.
func TestRunsElsewhereLeaveOnlyTheDestination(t *testing.T) {
	walked := 0
	rapid.Check(t, func(t *rapid.T) {
		found := genVirtualService(t, "reviews")
		managed := manage(t, rolloutElsewhere(nil), found)
		now, stable := found, v1.Target{Version: "v1", Subset: "v1", Labels: map[string]string{"version": "v1"}}
		for range rapid.IntRange(1, 5).Draw(t, "writes") {
			traffic := genTraffic(t, true)
			to := rapid.SampledFrom([]string{"v3", "v4", "v5"}).Draw(t, "to")
			canary := elsewhere[to]
			traffic.Stable, traffic.Canary = stable, &canary
			switch rapid.IntRange(0, 3).Draw(t, "moves") {
			case 0:
				stable = canary
				traffic = &v1.Traffic{Stable: stable}
			case 1:
				stable = v1.Target{Version: "v2", Subset: "v2"}
				traffic = &v1.Traffic{Stable: stable}
			}
			r := rolloutElsewhere(traffic)
			if traffic.Mirror != nil && !traffic.MirrorsApart() {
				managed = SaveMirrors(managed, now)
			}
			managed = SaveDestinations(r, managed, now)
			next, problem := VirtualService(r, managed, now)
			if problem != nil {
				continue // a match that can not be joined: nothing is written
			}
			if again, problem := VirtualService(r, managed, next); problem != nil || !cmp.Equal(again, next) {
				t.Fatalf("rendering twice changes something: %+v\n%s", problem, cmp.Diff(next, again))
			}
			checkDestinations(t, r, managed, next)
			now, walked = next, walked+1
		}
		newWalkFrom(t, managed, found, now).end("v1")
	})
	if walked == 0 {
		t.Error("nothing was ever written")
	}
}

func newWalkFrom(t failer, managed v1.ManagedVirtualService, found, now *unstructured.Unstructured) *walk {
	return &walk{t: t, rollout: rolloutElsewhere(nil), managed: managed, found: found, now: now}
}

// checkDestinations: each driven route has the destinations of its traffic, and asks an external host for its own name.
func checkDestinations(t failer, r *v1.Rollout, managed v1.ManagedVirtualService, vs *unstructured.Unstructured) {
	t.Helper()
	targets := []v1.Target{r.Status.Traffic.Stable}
	if c := r.Status.Traffic.Canary; c != nil {
		targets = append(targets, *c)
	}
	for _, m := range managed.Routes {
		ends := objects(asObject(routesOf(vs)[indexOfRoute(routesOf(vs), m.Key)])["route"])
		if len(ends) != len(targets) {
			t.Fatalf("route %s has %d destinations, want %d", m.Key, len(ends), len(targets))
		}
		for i, target := range targets {
			to := child(ends[i], "destination")
			host := target.Host
			if host == "" {
				host = r.Spec.Host
			}
			port, _ := number(child(to, "port")["number"])
			if HostKey(text(to, "host"), r.Namespace) != HostKey(host, r.Namespace) || text(to, "subset") != target.Subset || (target.Port != 0 && port != int64(target.Port)) {
				t.Fatalf("route %s leads to %v, want %+v", m.Key, to, target)
			}
			want := ""
			if target.Version == "v4" {
				want = target.Host
			}
			if _, got := authorityOf(ends[i]); got != want {
				t.Fatalf("route %s asks %v for %q, want %q", m.Key, to, got, want)
			}
		}
	}
}

// Whoever sets an authority of their own keeps it.
func TestAnAuthorityOfTheRoutesOwnStays(t *testing.T) {
	external := v1.Target{Version: "v4", Host: "api-v4.partner.com"}
	r := rolloutElsewhere(&v1.Traffic{Stable: external})
	for name, header := range map[string]string{"Host": "mine.example.com", ":authority": "mine.example.com"} {
		base := object{"destination": object{"host": "reviews"}, "headers": object{"request": object{"set": object{name: header}}}}
		got := toTarget(r, v1.ManagedRoute{}, base, external)
		if _, value := authorityOf(got); value != header {
			t.Errorf("%s: %v", name, got)
		}
		back := toTarget(r, v1.ManagedRoute{Destination: `{"host":"reviews"}`}, got, v1.Target{Subset: "v1"})
		if _, value := authorityOf(back); value != header {
			t.Errorf("%s, back: %v", name, back)
		}
	}
}

func TestSurveyKnowsTheHostsOfVersions(t *testing.T) {
	routes := parseAll(t, "VirtualService", `
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: old
    match: [{uri: {prefix: /old}}]
    route: [{destination: {host: reviews-v3}}]
  - name: split
    route: [{destination: {host: reviews, subset: v1}, weight: 50}, {destination: {host: api-v4.partner.com}, weight: 50}]
---
metadata: {name: direct}
spec:
  hosts: [reviews-v3]
  http: [{route: [{destination: {host: reviews-v3}}]}]
`)
	got := Survey(rolloutElsewhere(nil), routes, nil)
	want := []v1.ManagedVirtualService{{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "old", Host: "reviews-v3.bookinfo.svc.cluster.local"}}}}
	if diff := cmp.Diff(want, got.VirtualServices); diff != "" || got.Problem != nil || !got.SplitRoutes {
		t.Errorf("%+v, split %v (-want +got):\n%s", got.Problem, got.SplitRoutes, diff)
	}
}

// A VirtualService for the host and for a version's own stays the Rollout's when that version serves: the next run drives it.
func TestAVirtualServiceForBothHostsStaysDriven(t *testing.T) {
	routes := parseAll(t, "VirtualService", `
metadata: {name: reviews}
spec:
  hosts: [reviews, reviews-v3]
  http: [{name: primary, route: [{destination: {host: reviews-v3}}]}]
`)
	want := []v1.ManagedVirtualService{{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", Host: "reviews-v3.bookinfo.svc.cluster.local"}}}}
	if diff := cmp.Diff(want, Survey(rolloutElsewhere(nil), routes, nil).VirtualServices); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Versions on one host are told apart by their ports: a route to one of these pins it.
func TestAPortThatIsAVersionsPinsIt(t *testing.T) {
	routes := parseAll(t, "VirtualService", `
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - {name: v5, match: [{uri: {prefix: /v5}}], route: [{destination: {host: reviews.bookinfo.svc.cluster.local, port: {number: 9443}}}]}
  - {name: v4, match: [{uri: {prefix: /v4}}], route: [{destination: {host: api-v4.partner.com, port: {number: 443}}}]}
  - {name: plain, route: [{destination: {host: reviews, port: {number: 9080}}}]}
`)
	const own = "reviews.bookinfo.svc.cluster.local"
	want := []v1.ManagedRoute{{Key: "v5", Host: own, Port: 9443}, {Key: "v4", Host: "api-v4.partner.com", Port: 443}, {Key: "plain"}}
	if diff := cmp.Diff(want, Survey(rolloutElsewhere(nil), routes, nil).VirtualServices[0].Routes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	// Nor does a version without a port get the one that was kept for it.
	saved := v1.ManagedRoute{Destination: `{"host":"` + own + `","port":{"number":9443}}`}
	base := object{"destination": object{"host": own, "port": object{"number": int64(9443)}}}
	got := toTarget(rolloutElsewhere(nil), saved, base, v1.Target{Version: "v1", Subset: "v1"})
	if port, given := child(child(got, "destination"), "port")["number"]; given && port != int64(9080) {
		t.Errorf("v1 is sent to port %v: %v", port, got)
	}
}

// An exact rule or VirtualService hides one for a wildcard, with its policy and its routes.
func TestNothingTakesAWildcardsPlaceUnasked(t *testing.T) {
	rule := func(hosts ...string) []*unstructured.Unstructured {
		var all []*unstructured.Unstructured
		for _, host := range hosts {
			vs := parseAll(t, "DestinationRule", "metadata: {name: rule-"+HostKey(host, "x")+"}\nspec: {host: '"+host+"'}")[0]
			all = append(all, vs)
		}
		return all
	}
	routes := func(hosts, more string) []*unstructured.Unstructured {
		return parseAll(t, "VirtualService", "metadata: {name: wide}\nspec: {hosts: ["+hosts+"], http: [{route: [{destination: {host: egress}}]}]"+more+"}")
	}
	subsets := &v1.Rollout{}
	subsets.Name, subsets.Namespace, subsets.Spec.Host, subsets.Spec.Version = "partner", "bookinfo", "api.partner.com", "v1"
	bare := subsets.DeepCopy()
	bare.Spec.Versions = []v1.Version{{Name: "v1", Destination: &v1.Destination{Host: "api.partner.com"}}}
	for name, tc := range map[string]struct {
		rollout  *v1.Rollout
		services []*unstructured.Unstructured
		rules    []*unstructured.Unstructured
		conflict bool
	}{
		"a wider rule":                           {subsets, nil, rule("*.partner.com"), true},
		"a rule for all there is":                {subsets, nil, rule("*.com"), true},
		"a rule for others":                      {subsets, nil, rule("*.api.partner.com", "*.partner.org"), false},
		"an exact rule beside it":                {subsets, nil, rule("*.partner.com", "api.partner.com"), false},
		"no rule is needed":                      {bare, nil, rule("*.partner.com"), false},
		"a wider VirtualService":                 {bare, routes("'*.partner.com'", ""), nil, true},
		"a wider VirtualService for a gateway":   {bare, routes("'*.partner.com'", ", gateways: [edge]"), nil, false},
		"a wider VirtualService for other hosts": {bare, routes("'*.partner.org'", ""), nil, false},
	} {
		if _, p := SurveyFault(rolloutOf("reviews", nil), "api.partner.com", tc.services); (p != nil) != (tc.conflict && tc.services != nil) {
			t.Errorf("%s, for a fault: %+v", name, p)
		}
		got := Survey(tc.rollout, tc.services, tc.rules).Problem
		if (got != nil) != tc.conflict || (got != nil && got.Reason != v1.ReasonHostConflict) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
