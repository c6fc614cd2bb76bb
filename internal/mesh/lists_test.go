package mesh

import (
	stdcmp "cmp"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

const everything = `
metadata: {name: echo, namespace: bookinfo}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{name: status, route: [{destination: {host: reviews}}]}]
  tcp:
  - {match: [{port: 31400}], route: [{destination: {host: reviews, subset: v1, port: {number: 9000}}}]}
  - {match: [{port: 31401}, {port: 31402}], route: [{destination: {host: reviews, port: {number: 9001}}, weight: 100}]}
  tls: [{match: [{port: 443, sniHosts: [a.example.com]}], route: [{destination: {host: reviews}}]}]`

// TestSurveyByProtocol: of a VirtualService with routes of all kinds, those of the Rollout's protocol can be driven, and it is
// said of the others that they are not.
func TestSurveyByProtocol(t *testing.T) {
	t.Parallel()
	const tcp, tls = "protocol: TCP, ", "protocol: TLS, "
	first := v1.ManagedRoute{Key: "#c2359bab", Subset: "v1"}
	for name, tc := range map[string]struct {
		spec, services string
		want           []v1.ManagedRoute
		skipped        []string
		reason, says   string
	}{
		"HTTP": {
			services: everything, want: []v1.ManagedRoute{{Key: "status"}},
			skipped: []string{
				"echo/#c2359bab: stands under tcp, protocol HTTP drives routes under http",
				"echo/#2133f502: stands under tcp, protocol HTTP drives routes under http",
				"echo/#953445b9: stands under tls, protocol HTTP drives routes under http",
			},
		},
		"TCP": {
			spec: tcp, services: everything, want: []v1.ManagedRoute{first, {Key: "#2133f502", Weighted: true}},
			skipped: []string{
				"echo/status: stands under http, protocol TCP drives routes under tcp",
				"echo/#953445b9: stands under tls, protocol TCP drives routes under tcp",
			},
		},
		"TCP by port": {
			spec: tcp + "virtualServices: [{name: echo, routes: [{port: 31400}]}], ", services: everything, want: []v1.ManagedRoute{first},
			skipped: []string{
				"echo/#2133f502: spec.virtualServices does not name it",
				"echo/status: stands under http, protocol TCP drives routes under tcp",
				"echo/#953445b9: stands under tls, protocol TCP drives routes under tcp",
			},
		},
		"a port of another protocol": {
			spec: tcp + "virtualServices: [{name: echo, routes: [{port: 443}]}], ", services: everything,
			reason: v1.ReasonRouteNotFound, says: "VirtualService echo has no route to reviews of port 443",
		},
		"a route for every connection hides the next": {
			spec: tcp, services: `
metadata: {name: echo, namespace: bookinfo}
spec: {hosts: [reviews], tcp: [{route: [{destination: {host: reviews}}]}, {route: [{destination: {host: reviews, subset: v2}}]}]}`,
			want: []v1.ManagedRoute{{Key: "#74234e98"}}, skipped: []string{"echo/#74234e98: another route of this name or match comes before it"},
		},
		"bound for HTTP alone": {
			spec: tcp, services: plainReviews, reason: v1.ReasonHostConflict, says: "VirtualService reviews is there already, for another host",
		},
		"bound on the mesh for HTTP alone": {
			spec: tls, services: "metadata: {name: site, namespace: bookinfo}\nspec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}",
			reason: v1.ReasonHostConflict, says: "VirtualService site binds host reviews but has no TLS route to it",
		},
		"one to make, by its port":    {spec: tcp + "port: {number: 9000}, virtualServices: [{routes: [{port: 9000}]}], "},
		"one to make has no such":     {spec: tcp + "virtualServices: [{routes: [{port: 9000}]}], ", reason: v1.ReasonRouteNotFound, says: "has the route #74234e98 only, none of port 9000"},
		"one to make has a port only": {spec: tcp + "port: {number: 9000}, virtualServices: [{routes: [{port: 9001}]}], ", reason: v1.ReasonRouteNotFound, says: "none of port 9001"},
	} {
		r := parseRollout(t, "metadata: {name: reviews, namespace: bookinfo}\nspec: {"+tc.spec+"host: reviews, version: v3}")
		got := Survey(r, parseAll(t, "VirtualService", tc.services), nil)
		if tc.says != "" || got.Problem != nil {
			checkProblem(t, got.Problem, stdcmp.Or(tc.reason, "none"), tc.says)
			continue
		}
		var routes []v1.ManagedRoute
		for _, vs := range got.VirtualServices {
			routes = append(routes, vs.Routes...)
		}
		if diff := cmp.Diff(tc.want, routes); diff != "" {
			t.Errorf("%s: to drive (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(tc.skipped, got.SkippedRoutes); diff != "" {
			t.Errorf("%s: skipped (-want +got):\n%s", name, diff)
		}
	}
}

// TestPinnedByProtocol: what a Rollout of TCP drives pins nothing; routes of other protocols do, since it leaves them alone.
func TestPinnedByProtocol(t *testing.T) {
	t.Parallel()
	services := parseAll(t, "VirtualService", `
metadata: {name: echo, namespace: bookinfo}
spec:
  http: [{route: [{destination: {host: reviews, subset: web}}]}]
  tcp: [{match: [{port: 31400}], route: [{destination: {host: reviews, subset: driven}}]}, {match: [{port: 1}], route: [{destination: {host: reviews, subset: old}}]}]
---
metadata: {name: made, namespace: bookinfo}
spec: {tcp: [{match: [{port: 9000}], route: [{destination: {host: reviews, subset: driven}}]}]}`)
	r := parseRollout(t, `
metadata: {name: reviews, namespace: bookinfo}
spec: {host: reviews, protocol: TCP, port: {number: 9000}, version: v3}
status: {virtualServices: [{name: echo, routes: [{key: "#c2359bab"}]}, {name: made, created: true}]}`)
	if diff := cmp.Diff([]string{"old", "web"}, Survey(r, services, nil).PinnedSubsets); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestFaultBesideTCP: a Rollout of TCP may put a fault on the HTTP routes of a VirtualService that it drives as well; its own
// traffic neither takes that away nor gets it, and it goes with its step.
func TestFaultBesideTCP(t *testing.T) {
	t.Parallel()
	found := parseAll(t, "VirtualService", `
metadata: {name: site, namespace: bookinfo}
spec:
  hosts: [reviews, ratings]
  http: [{name: ratings, route: [{destination: {host: ratings}}]}]
  tcp: [{match: [{port: 31400}], route: [{destination: {host: reviews, subset: v1}}]}]`)[0]
	r := reviewsWith(t, "CANARY weight: 20, fault: {host: ratings, match: "+jason+", "+delayed+"}")
	r.Spec.Protocol = v1.ProtocolTCP
	managed := v1.ManagedVirtualService{Name: "site", Routes: []v1.ManagedRoute{{Key: "#c2359bab", Subset: "v1"}}}
	r.Status.VirtualServices, r.Status.FaultVirtualService = []v1.ManagedVirtualService{managed}, &v1.ManagedVirtualService{Name: "site"}
	with, problem := VirtualService(r, managed, found)
	if problem == nil {
		with, problem = FaultVirtualService(r, r.Status.FaultVirtualService, with)
	}
	if problem != nil {
		t.Fatalf("%+v", problem)
	}
	if diff := cmp.Diff([]string{"sluice-fault-reviews-0 -> ratings fault", "ratings -> ratings"}, summary(with)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	pushed, problem := Rebase([]v1.Rollout{*r}, with, found)
	if diff := cmp.Diff(with.Object, pushed.Object); problem != nil || diff != "" {
		t.Errorf("after a push: %+v (-before +after):\n%s", problem, diff)
	}
	r.Status.Traffic.Weight = 30 // a write is due
	due, problem := Rebase([]v1.Rollout{*r}, with, found)
	if diff := cmp.Diff(with.Object, due.Object); problem != nil || diff != "" {
		t.Errorf("after a push, with a write due: %+v (-before +after):\n%s", problem, diff)
	}
	back := atStable(r)
	without, problem := VirtualService(back, managed, with)
	if diff := cmp.Diff(found.Object, without.Object); problem != nil || diff != "" {
		t.Errorf("on the way back: %+v (-found +left):\n%s", problem, diff)
	}
}
