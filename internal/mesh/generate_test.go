package mesh

import (
	"fmt"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

// genVirtualService draws one that has at least one route to a host that can be driven, among all else that Istio knows.
func genVirtualService(t *rapid.T, name string) *unstructured.Unstructured {
	routes := []any{genDriven(t, name, "primary")}
	for i := range rapid.IntRange(0, 5).Draw(t, "more routes") {
		route := genDriven(t, name, fmt.Sprint("more.", i))
		if rapid.Bool().Draw(t, "foreign") {
			route = genForeign(t, name, fmt.Sprint("foreign.", i))
		}
		at := rapid.IntRange(0, len(routes)).Draw(t, "place")
		routes = append(routes[:at], append([]any{route}, routes[at:]...)...)
	}
	spec := object{"hosts": []any{name}, "http": routes, "unknown": object{"deep": []any{int64(1), "x", nil}}}
	if rapid.Bool().Draw(t, "tcp and tls") {
		spec["tcp"] = []any{object{"route": []any{object{"destination": object{"host": name, "subset": "v1"}}}}}
		spec["tls"] = []any{object{"match": []any{object{"sniHosts": []any{name}}}, "route": []any{object{"destination": object{"host": name, "subset": "v3"}}}}}
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
		{"delegate": object{"name": "part.of.it"}, "match": []any{object{"uri": object{"prefix": "/part"}}}},
		{"route": []any{to("details", "v1")}},
		{"route": []any{to(host, "v1"), to("details", "v1")}},
		{"route": []any{to(host, "v1"), to(host, "v2")}},
		{"route": []any{to(host, "v9")}, "mirror": object{"host": "audit"}},
	}).Draw(t, "kind"))
	route["name"] = name
	return route
}

// genNamespace draws VirtualServices of one host, each for gateways of its own, with routes of a list to drive.
func genNamespace(t *rapid.T, list routeList, host string) []*unstructured.Unstructured {
	all := []*unstructured.Unstructured{genWith(t, list, host)}
	for i, name := range []string{"edge.public", "inner"}[:rapid.IntRange(0, 2).Draw(t, "more VirtualServices")] {
		vs := genWith(t, list, host)
		vs.SetName(name)
		spec := specOf(vs)
		spec["hosts"], spec["gateways"] = []any{fmt.Sprintf("host-%d.example.com", i), host}, []any{fmt.Sprintf("gateways/gw-%d", i), fmt.Sprintf("./gw-%d", i)}
		for _, route := range httpRoutes(vs) {
			for _, block := range objects(route["match"]) {
				delete(block, "gateways") // of the mesh
			}
		}
		all = append(all, vs)
	}
	return all
}

func genTraffic(t *rapid.T, fault bool) *v1.Traffic {
	traffic := &v1.Traffic{
		Stable: v1.Target{Version: "v1", Subset: "v1"}, Weight: rapid.Int32Range(0, 100).Draw(t, "canary's weight"),
		Canary: &v1.Target{Version: "v3", Subset: "v3", Labels: map[string]string{"version": "v3"}},
	}
	if rapid.Bool().Draw(t, "mirrors") {
		traffic.Mirror = &v1.MirrorTraffic{Percentage: rapid.Int32Range(1, 100).Draw(t, "mirror's percentage")}
		if rapid.IntRange(0, 2).Draw(t, "mirrors elsewhere") == 0 {
			traffic.Mirror.Host = "reviews-shadow"
		}
		if rapid.IntRange(0, 2).Draw(t, "mirrors some") == 0 {
			traffic.Mirror.Match = typedMatch(t)
		}
	}
	if rapid.Bool().Draw(t, "matches") {
		traffic.Match = typedMatch(t)
	}
	if fault && rapid.Bool().Draw(t, "has a fault") {
		traffic.Fault = genFault(t)
	}
	return traffic
}

func genFault(t *rapid.T) *v1.FaultInjection {
	switch rapid.IntRange(0, 2).Draw(t, "fault's form") {
	case 0:
		return &v1.FaultInjection{Match: typedMatch(t)}
	case 1:
		return &v1.FaultInjection{Traffic: v1.FaultTrafficUnchanged, Match: typedMatch(t)}
	}
	return &v1.FaultInjection{Traffic: v1.FaultTrafficUnchanged, Scope: v1.FaultScopeEveryone}
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
