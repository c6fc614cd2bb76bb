package mesh

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

const site = `
metadata: {name: site, namespace: bookinfo}
spec:
  hosts: [reviews]
  http:
  - {name: old.site, redirect: {uri: /}}
  - {name: mixed, match: [{uri: {prefix: /m}}], route: [{destination: {host: reviews}, weight: 50}, {destination: {host: ratings}, weight: 50}]}
  - {name: split, match: [{uri: {prefix: /s}}], route: [{destination: {host: reviews, subset: v1}, weight: 90}, {destination: {host: reviews, subset: v2}, weight: 10}]}
  - {match: [{uri: {prefix: /a}, port: 80}, {port: 80}], route: [{destination: {host: reviews, subset: v1}}]}
  - {match: [{port: 80}, {port: 81}], route: [{destination: {host: reviews, subset: v1}}]}
  - {match: [{port: 80}], route: [{destination: {host: ratings}}]}
  - {name: api.v2, match: [{uri: {prefix: /v2}, gateways: []}], route: [{destination: {host: reviews, subset: v2}}]}
  - {name: api.v2, match: [{uri: {prefix: /twin}}], route: [{destination: {host: reviews}}]}
  - {name: primary, route: [{destination: {host: reviews, subset: v1}}]}`

func TestSelectors(t *testing.T) {
	split := v1.ManagedRoute{Key: "split", Subset: "v1", Weighted: true}
	onPort := v1.ManagedRoute{Key: "#b5f83543", Subset: "v1"}
	api := v1.ManagedRoute{Key: "api.v2", Subset: "v2", Namesakes: 1}
	primary := v1.ManagedRoute{Key: "primary", Subset: "v1"}
	for name, tc := range map[string]struct {
		entries         string // of spec.virtualServices
		services        string // beside site
		want            []v1.ManagedRoute
		split           bool
		reason, problem string
	}{
		"by name":                           {entries: `{name: site, routes: [{name: primary}]}`, want: []v1.ManagedRoute{primary}},
		"a name with a dot":                 {entries: `{name: site, routes: [{name: primary}, {match: [{uri: {prefix: /v2}}]}]}`, want: []v1.ManagedRoute{api, primary}},
		"one that splits":                   {entries: `{name: site, routes: [{name: split}]}`, want: []v1.ManagedRoute{split}, split: true},
		"by port":                           {entries: `{name: site, routes: [{port: 80}]}`, want: []v1.ManagedRoute{onPort}},
		"by match, reordered":               {entries: `{name: site, routes: [{match: [{port: 80}, {port: 80, uri: {prefix: /a}}]}]}`, want: []v1.ManagedRoute{onPort}},
		"twice":                             {entries: `{name: site, routes: [{name: primary}, {name: primary}]}`, want: []v1.ManagedRoute{primary}},
		"without the VirtualService's name": {entries: `{routes: [{name: primary}]}`, want: []v1.ManagedRoute{primary}},
		"half of the match":                 {entries: `{name: site, routes: [{match: [{port: 80}]}]}`, reason: v1.ReasonRouteNotFound, problem: "does not send to reviews"},
		"more than the match":               {entries: `{name: site, routes: [{match: [{uri: {prefix: /v2}}, {port: 1}]}]}`, reason: v1.ReasonRouteNotFound, problem: `VirtualService site has no route to reviews of match [{"uri":{"prefix":"/v2"}},{"port":1}]`},
		"no such name":                      {entries: `{name: site, routes: [{name: primary}, {name: main}]}`, reason: v1.ReasonRouteNotFound, problem: "VirtualService site has no route to reviews of name main"},
		"no such port":                      {entries: `{name: site, routes: [{port: 81}]}`, reason: v1.ReasonRouteNotFound, problem: "of port 81"},
		"no such name anywhere":             {entries: `{routes: [{name: main}]}`, reason: v1.ReasonRouteNotFound, problem: "no VirtualService that routes to reviews has a route of name main"},
		"a redirect":                        {entries: `{name: site, routes: [{name: old.site}]}`, reason: v1.ReasonRouteNotFound, problem: "route old.site of VirtualService site, which spec.virtualServices names, does not send to reviews"},
		"several hosts":                     {entries: `{name: site, routes: [{name: mixed}]}`, reason: v1.ReasonMixedRoute, problem: "route mixed of VirtualService site, which spec.virtualServices names, has destinations on several hosts"},
		"a twin":                            {entries: `{name: site, routes: [{match: [{uri: {prefix: /twin}}]}]}`, reason: v1.ReasonRouteNotFound, problem: "route api.v2 of VirtualService site can not be told apart"},
		"one is not there":                  {entries: `{name: site}, {name: gone}`, reason: v1.ReasonVirtualServiceNotFound, problem: "spec.virtualServices names gone, which is not there, and site routes to reviews"},
		"for another host":                  {entries: `{name: site}, {name: ratings}`, services: ratings, reason: v1.ReasonHostConflict, problem: "VirtualService ratings is there already, for another host"},
		"routes of another host": {
			entries: `{name: site}, {name: ratings, routes: [{name: all}]}`, services: ratings, reason: v1.ReasonRouteNotFound, problem: "VirtualService ratings has no route to reviews of name all",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := parseRollout(t, "metadata: {name: reviews, namespace: bookinfo}\nspec: {host: reviews, version: v3, virtualServices: ["+tc.entries+"]}")
			got := Survey(r, parseAll(t, "VirtualService", site+"\n---\n"+tc.services), nil)
			if tc.problem != "" {
				checkProblem(t, got.Problem, tc.reason, tc.problem)
				return
			}
			if got.Problem != nil {
				t.Fatalf("problem %+v", got.Problem)
			}
			if diff := cmp.Diff([]v1.ManagedVirtualService{{Name: "site", Routes: tc.want}}, got.VirtualServices); diff != "" || got.SplitRoutes != tc.split {
				t.Errorf("splits %v; -want +got:\n%s", got.SplitRoutes, diff)
			}
			if len(got.SkippedRoutes) != 7-len(tc.want) {
				t.Errorf("skipped %s, want each of the 7 routes to reviews that is not managed", strings.Join(got.SkippedRoutes, "; "))
			}
		})
	}
}

// TestCreation: a VirtualService is made only where none routes to the host, and only if it has what the spec names.
func TestCreation(t *testing.T) {
	for name, tc := range map[string]struct{ entries, reason, problem string }{
		"none named":          {},
		"one named":           {entries: "{name: mine}"},
		"its only route":      {entries: "{name: mine, routes: [{name: primary}]}"},
		"another route":       {entries: "{name: mine, routes: [{port: 80}]}", reason: v1.ReasonRouteNotFound, problem: "the one that Sluice would make has the route primary only, none of port 80"},
		"another route of it": {entries: "{routes: [{name: all}]}", reason: v1.ReasonRouteNotFound, problem: "there is no VirtualService reviews"},
		"two named":           {entries: "{name: mine}, {name: yours}", reason: v1.ReasonVirtualServiceNotFound, problem: "spec.virtualServices names mine, yours, which is not there: create it, or name one only"},
	} {
		t.Run(name, func(t *testing.T) {
			r := parseRollout(t, "metadata: {name: reviews, namespace: bookinfo}\nspec: {host: reviews, version: v3, virtualServices: ["+tc.entries+"]}")
			got := Survey(r, parseAll(t, "VirtualService", ratings), nil)
			if tc.problem != "" {
				checkProblem(t, got.Problem, tc.reason, tc.problem)
			} else if got.Problem != nil || len(got.VirtualServices) > 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestSelectionInMidRun: what the spec selects now is for the next run; what is driven and gone is the rendering's to tell.
func TestSelectionInMidRun(t *testing.T) {
	const selects = `
metadata: {name: reviews, namespace: bookinfo}
spec: {host: reviews, version: v3, virtualServices: [{name: site, routes: [{name: mixed}, {name: lost}, {name: old.site}]}, {name: gone}]}
status: {STATUS virtualServices: [{name: site, routes: [{key: primary, subset: v1}]}, {name: gone}]}`
	services := parseAll(t, "VirtualService", site)
	run := strings.Replace(selects, "STATUS", "run: {number: 1, from: v1, to: v3, startedAt: null},", 1)
	if got := Survey(parseRollout(t, run), services, nil).Problem; got != nil {
		t.Errorf("in mid-run: %+v", got)
	}
	atRest := strings.NewReplacer("STATUS", "", "{name: mixed}, {name: lost}, {name: old.site}", "{name: primary}").Replace(selects)
	if got := Survey(parseRollout(t, atRest), services, nil).Problem; got != nil {
		t.Errorf("at rest, gone but driven: %+v", got)
	}
	checkProblem(t, Survey(parseRollout(t, strings.Replace(selects, "STATUS", "", 1)), services, nil).Problem, v1.ReasonRouteNotFound, "old.site")
}
