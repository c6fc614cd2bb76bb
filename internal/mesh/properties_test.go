package mesh

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

// genVirtualService draws one that has at least one route to a host that can be driven, among all else that Istio knows.
func genVirtualService(t *rapid.T, name string) *unstructured.Unstructured {
	routes := []any{genDriven(t, name, "primary")}
	for i := range rapid.IntRange(0, 5).Draw(t, "more routes") {
		route := genDriven(t, name, fmt.Sprint("more-", i))
		if rapid.Bool().Draw(t, "foreign") {
			route = genForeign(t, name, fmt.Sprint("foreign-", i))
		}
		at := rapid.IntRange(0, len(routes)).Draw(t, "place")
		routes = append(routes[:at], append([]any{route}, routes[at:]...)...)
	}
	spec := object{"hosts": []any{name}, "http": routes, "unknown": object{"deep": []any{int64(1), "x", nil}}}
	if rapid.Bool().Draw(t, "tcp and tls") {
		spec["tcp"] = []any{object{"route": []any{object{"destination": object{"host": name, "subset": "v1"}}}}}
		spec["tls"] = []any{object{"match": []any{object{"sniHosts": []any{name}}}, "route": []any{}}}
	}
	return &unstructured.Unstructured{Object: object{
		"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
		"metadata": object{"name": name, "namespace": "bookinfo", "labels": object{"team": "a"}}, "spec": spec,
	}}
}

func genDriven(t *rapid.T, host, name string) object {
	destination := object{"host": rapid.SampledFrom([]string{host, host + ".bookinfo.svc.cluster.local"}).Draw(t, "spelling")}
	end := object{"destination": destination}
	flag := func(label string, set func()) {
		if rapid.IntRange(0, 2).Draw(t, label) == 0 {
			set()
		}
	}
	flag("subset", func() { destination["subset"] = "v1" })
	flag("port", func() { destination["port"] = object{"number": int64(9080)} })
	flag("weight", func() { end["weight"] = int64(100) })
	flag("headers of the destination", func() { end["headers"] = object{"request": object{"add": object{"x": "1"}}} })
	flag("unknown", func() { end["future"] = []any{int64(1), 2.5} })
	route := object{"name": name, "route": []any{end}}
	flag("unnamed", func() { delete(route, "name") })
	genMatch(t, route)
	extra := object{
		"rewrite": object{"uri": "/"}, "timeout": "3s", "retries": object{"attempts": int64(2)},
		"corsPolicy": object{"maxAge": "1h"}, "headers": object{"response": object{"remove": []any{"x"}}},
		"fault": object{"abort": object{"httpStatus": int64(500)}}, "later": object{"a": nil},
	}
	for _, field := range slices.Sorted(maps.Keys(extra)) {
		flag(field, func() { route[field] = extra[field] })
	}
	switch rapid.IntRange(0, 5).Draw(t, "mirrors") {
	case 0:
		route["mirror"] = object{"host": "audit"}
	case 1:
		route["mirror"], route["mirrorPercentage"] = object{"host": host, "subset": "v3"}, object{"value": 12.5}
	case 2:
		route["mirrors"] = []any{object{"destination": object{"host": "audit"}}, object{"destination": object{"host": host, "subset": "v3"}}}
	case 3:
		route["mirrors"] = []any{object{"destination": object{"host": host, "subset": "v3"}, "percentage": object{"value": int64(100)}}}
	}
	return route
}

func genMatch(t *rapid.T, route object) {
	blocks := rapid.SliceOfN(rapid.SampledFrom([]object{
		{"uri": object{"prefix": "/a"}},
		{"uri": object{"exact": "/B"}, "ignoreUriCase": true},
		{"headers": object{"end-user": object{"regex": "j.*"}}, "name": "j"},
		{"headers": object{"end-user": object{}}, "gateways": []any{"mesh", "gw"}},
		{"withoutHeaders": object{"end-user": object{"exact": "kim"}}},
		{"port": int64(80), "sourceLabels": object{"app": "page"}},
		{"method": object{"exact": "GET"}, "future": int64(1)},
	}), 0, 3).Draw(t, "match")
	if len(blocks) > 0 {
		var list []any
		for _, b := range blocks {
			list = append(list, clone(b))
		}
		route["match"] = list
	}
}

func genForeign(t *rapid.T, host, name string) object {
	to := func(host, subset string) object { return object{"destination": object{"host": host, "subset": subset}} }
	route := clone(rapid.SampledFrom([]object{
		{"redirect": object{"uri": "/x"}},
		{"directResponse": object{"status": int64(404)}},
		{"delegate": object{"name": "part"}},
		{"route": []any{to("details", "v1")}},
		{"route": []any{to(host, "v1"), to("details", "v1")}},
		{"route": []any{to(host, "v1"), to(host, "v2")}},
		{"route": []any{to(host, "v9")}, "mirror": object{"host": "audit"}},
	}).Draw(t, "kind"))
	route["name"] = name
	return route
}

// manage fixes the driven routes as a run does: those that send to stable or name no subset.
func manage(t *rapid.T, r *v1.Rollout, found *unstructured.Unstructured) v1.ManagedVirtualService {
	surveyed := Survey(r, []*unstructured.Unstructured{found}, nil)
	if surveyed.Problem != nil || len(surveyed.VirtualServices) != 1 {
		t.Fatalf("%+v of %v", surveyed, found)
	}
	managed := v1.ManagedVirtualService{Name: found.GetName()}
	for _, route := range surveyed.VirtualServices[0].Routes {
		if route.Subset == "" || route.Subset == "v1" {
			managed.Routes = append(managed.Routes, route)
		}
	}
	return managed
}

func genTraffic(t *rapid.T, fault bool) *v1.Traffic {
	traffic := &v1.Traffic{
		Stable: v1.Target{Version: "v1", Subset: "v1"}, Weight: rapid.Int32Range(0, 100).Draw(t, "canary's weight"),
		Canary: &v1.Target{Version: "v3", Subset: "v3", Labels: map[string]string{"version": "v3"}},
	}
	if rapid.Bool().Draw(t, "mirrors") {
		traffic.Mirror = &v1.MirrorTraffic{Percentage: rapid.Int32Range(1, 100).Draw(t, "mirror's percentage")}
	}
	if rapid.Bool().Draw(t, "matches") {
		traffic.Match = typedMatch(t)
	}
	if fault && rapid.Bool().Draw(t, "has a fault") {
		traffic.Fault = &v1.FaultInjection{Match: typedMatch(t)}
	}
	return traffic
}

func typedMatch(t *rapid.T) v1.HTTPMatches {
	var matches v1.HTTPMatches
	text := rapid.SampledFrom([]string{
		`[{headers: {end-user: {exact: jason}}}]`,
		`[{headers: {end-user: {exact: kim}}}, {uri: {prefix: /a/b}}]`,
		`[{sourceLabels: {app: page}, method: {exact: GET}}]`,
	}).Draw(t, "asks for")
	if err := yaml.Unmarshal([]byte(text), &matches); err != nil {
		t.Fatal(err)
	}
	return matches
}

func rolloutOf(host string, traffic *v1.Traffic) *v1.Rollout {
	r := &v1.Rollout{}
	r.Name, r.Namespace, r.Spec.Host, r.Status.Traffic = host, "bookinfo", host, traffic
	return r
}

// TestRunsLeaveOnlyTheSubset: whatever a run's steps do to a VirtualService, at its end everything is as it was, except that the
// driven routes name the final subset; and in between what is not driven is untouched.
func TestRunsLeaveOnlyTheSubset(t *testing.T) {
	steps := 0
	rapid.Check(t, func(t *rapid.T) {
		found := genVirtualService(t, "reviews")
		managed := manage(t, rolloutOf("reviews", nil), found)
		now := found.DeepCopy()
		for range rapid.IntRange(1, 4).Draw(t, "steps") {
			r := rolloutOf("reviews", genTraffic(t, true))
			if r.Status.Traffic.Mirror != nil {
				managed = SaveMirrors(managed, now)
			}
			if rapid.IntRange(0, 4).Draw(t, "crash before the write") == 0 {
				continue
			}
			next, problem := VirtualService(r, managed, now)
			if problem != nil {
				if problem.Reason != v1.ReasonMatchConflict {
					t.Fatalf("%+v", problem)
				}
				continue // nothing is written
			}
			steps++
			checkStep(t, r, managed, found, next)
			now = next
		}
		end := &v1.Traffic{Stable: v1.Target{Version: "v3", Subset: "v3"}}
		got, problem := VirtualService(rolloutOf("reviews", end), managed, now)
		if problem != nil {
			t.Fatalf("%+v", problem)
		}
		if diff := cmp.Diff(withSubset(found, managed, "v3").Object, got.Object); diff != "" {
			t.Fatalf("after the run (-want +got):\n%s", diff)
		}
	})
	if steps == 0 {
		t.Error("no step was ever written")
	}
}

// withSubset is what was found, with the driven routes at a subset.
func withSubset(found *unstructured.Unstructured, managed v1.ManagedVirtualService, subset string) *unstructured.Unstructured {
	want := found.DeepCopy()
	for _, m := range managed.Routes {
		route := asObject(routesOf(want)[indexOfRoute(routesOf(want), m.Key)])
		child(objects(route["route"])[0], "destination")["subset"] = subset
	}
	return want
}

// checkStep: a rendering in mid-run is stable, splits by whole percents, and keeps what is not driven.
func checkStep(t *rapid.T, r *v1.Rollout, managed v1.ManagedVirtualService, found, got *unstructured.Unstructured) {
	if again, problem := VirtualService(r, managed, got); problem != nil || !cmp.Equal(again, got) {
		t.Fatalf("rendering twice changes something: %+v\n%s", problem, cmp.Diff(got, again))
	}
	kept := got.DeepCopy()
	var rest []any
	for _, entry := range routesOf(kept) {
		if kind, _ := inserted(asObject(entry)); kind == "" {
			rest = append(rest, entry)
		}
	}
	want := found.DeepCopy()
	for _, m := range managed.Routes {
		at := indexOfRoute(rest, m.Key)
		if at != indexOfRoute(routesOf(found), m.Key) {
			t.Fatalf("route %s moved to %d", m.Key, at)
		}
		checkSplit(t, r, asObject(rest[at]))
		for _, field := range append([]string{"route", "mirrors"}, mirrorFields...) {
			delete(asObject(rest[at]), field)
			delete(asObject(routesOf(want)[at]), field)
		}
	}
	specOf(kept)["http"] = rest
	if diff := cmp.Diff(want.Object, kept.Object); diff != "" {
		t.Fatalf("what is not ours changed (-found +rendered):\n%s", diff)
	}
}

func checkSplit(t *rapid.T, r *v1.Rollout, route object) {
	ends := objects(route["route"])
	if len(ends) != 2 {
		t.Fatalf("%d destinations of %v", len(ends), route)
	}
	stable, ok := ends[0]["weight"].(int64)
	canary, too := ends[1]["weight"].(int64)
	if !ok || !too || stable+canary != 100 || canary != int64(r.Status.Traffic.Weight) {
		t.Fatalf("weights %v and %v, want whole ones that add up to 100 with %d for the canary", ends[0]["weight"], ends[1]["weight"], r.Status.Traffic.Weight)
	}
	if _, single := route["mirror"]; single && route["mirrors"] != nil {
		t.Fatalf("mirror beside mirrors, which Istio refuses: %v", route)
	}
}

// TestTwoRolloutsSettle: a fault of reviews on ratings' VirtualService, which the Rollout of ratings drives meanwhile, comes to
// one form that neither changes any more, whoever writes first.
func TestTwoRolloutsSettle(t *testing.T) {
	settled := 0
	rapid.Check(t, func(t *rapid.T) {
		found := genVirtualService(t, "ratings")
		managed := manage(t, rolloutOf("ratings", nil), found)
		driver := rolloutOf("ratings", genTraffic(t, true))
		managed = SaveMirrors(managed, found)
		fault := rolloutOf("reviews", &v1.Traffic{
			Stable: v1.Target{Subset: "v1"}, Canary: &v1.Target{Subset: "v3", Labels: map[string]string{"version": "v3"}},
			Fault: &v1.FaultInjection{Host: "ratings", Match: typedMatch(t)},
		})
		carrier := &v1.ManagedVirtualService{Name: "ratings"}
		drive := func(vs *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
			return VirtualService(driver, managed, vs)
		}
		insert := func(vs *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
			return FaultVirtualService(fault, carrier, vs)
		}
		first, problem := settle(found, drive, insert)
		if problem != nil {
			return
		}
		second, problem := settle(found, insert, drive)
		if problem != nil {
			return
		}
		settled++
		if diff := cmp.Diff(first.Object, second.Object); diff != "" {
			t.Fatalf("who writes first decides (-drives first +faults first):\n%s", diff)
		}
		for name, render := range map[string]renderer{"driver": drive, "fault": insert} {
			if again, problem := render(first); problem != nil || !cmp.Equal(first, again) {
				t.Fatalf("%s does not settle: %+v\n%s", name, problem, cmp.Diff(first, again))
			}
		}
	})
	if settled == 0 {
		t.Error("no two Rollouts ever met")
	}
}

type renderer = func(*unstructured.Unstructured) (*unstructured.Unstructured, *Problem)

// settle renders in turn, twice each.
func settle(vs *unstructured.Unstructured, renderers ...renderer) (*unstructured.Unstructured, *Problem) {
	for range 2 {
		for _, render := range renderers {
			next, problem := render(vs)
			if problem != nil {
				return nil, problem
			}
			vs = next
		}
	}
	return vs, nil
}
