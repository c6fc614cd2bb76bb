package mesh

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"pgregory.net/rapid"

	v1 "sluice.dev/sluice/api/v1"
)

// genList draws the list that a Rollout drives, most often HTTP's.
func genList(t *rapid.T) routeList {
	return rapid.SampledFrom([]routeList{httpList, httpList, tcpList, tlsList}).Draw(t, "list")
}

// speaking is the Rollout with the protocol of a list.
func speaking(list routeList, r *v1.Rollout) *v1.Rollout {
	r.Spec.Protocol = list.protocol()
	return r
}

// genWith draws a VirtualService whose routes of a list can be driven.
func genWith(t *rapid.T, list routeList, name string) *unstructured.Unstructured {
	vs := genVirtualService(t, name)
	if list == httpList {
		return vs
	}
	spec := specOf(vs)
	if rapid.Bool().Draw(t, "no HTTP") {
		delete(spec, "http")
	}
	routes := []any{genL4Driven(t, list, name, 0)}
	for i := range rapid.IntRange(0, 4).Draw(t, "more "+string(list)) {
		route := genL4Driven(t, list, name, i+1)
		if rapid.Bool().Draw(t, "foreign "+string(list)) {
			route["route"] = genForeignEnds(t, name)
		}
		at := rapid.IntRange(0, len(routes)).Draw(t, "place among "+string(list))
		routes = append(routes[:at], append([]any{route}, routes[at:]...)...)
	}
	spec[string(list)] = routes
	return vs
}

// genL4Driven draws a route of TCP or TLS to one destination. The i-th is told apart by its port, as they are in Istio's terms.
func genL4Driven(t *rapid.T, list routeList, host string, i int) object {
	destination := object{"host": rapid.SampledFrom([]string{host, host + ".bookinfo.svc.cluster.local"}).Draw(t, "spelling")}
	end := object{"destination": destination}
	if rapid.Bool().Draw(t, "subset") {
		destination["subset"] = "v1"
	}
	if rapid.Bool().Draw(t, "port of the destination") {
		destination["port"] = object{"number": int64(9000)}
	}
	if rapid.Bool().Draw(t, "weight") {
		end["weight"] = int64(100)
	}
	if rapid.Bool().Draw(t, "unknown") {
		end["future"] = []any{int64(1), 2.5}
	}
	blocks := []any{object{"port": int64(31400 + i)}}
	if rapid.Bool().Draw(t, "two blocks") {
		blocks = append(blocks, object{"port": int64(32400 + i), "sourceLabels": object{"app": "page"}, "destinationSubnets": []any{"10.0.0.0/8"}})
	}
	route := object{"match": blocks, "route": []any{end}}
	switch {
	case list == tlsList:
		for _, block := range objects(route["match"]) {
			block["sniHosts"] = []any{host}
		}
	case i == 0 && rapid.Bool().Draw(t, "every connection"):
		delete(route, "match")
	}
	if rapid.Bool().Draw(t, "later") {
		route["later"] = object{"a": nil}
	}
	return route
}

func genForeignEnds(t *rapid.T, host string) []any {
	to := func(host, subset string) object { return object{"destination": object{"host": host, "subset": subset}} }
	ends := rapid.SampledFrom([][]any{
		{to("details", "v1")}, {to(host, "v1"), to("details", "v1")}, {to(host, "v1"), to(host, "v2")}, {to(host, "v9")},
	}).Draw(t, "other ends")
	for _, end := range ends {
		if len(ends) > 1 {
			asObject(end)["weight"] = int64(50) // or Istio refuses them
		}
	}
	return ends
}

// genTrafficOf draws a traffic that routes of a list can have.
func genTrafficOf(t *rapid.T, list routeList) *v1.Traffic {
	traffic := genTraffic(t, list == httpList)
	if list != httpList {
		traffic.Mirror, traffic.Match = nil, nil
	}
	return traffic
}

// genL4Edit changes what a push may change of routes without moving them: unknown fields, and who else has routes.
func genL4Edit(t *rapid.T, list routeList, vs *unstructured.Unstructured) *unstructured.Unstructured {
	out := vs.DeepCopy()
	for i, route := range list.routes(out) {
		if rapid.Bool().Draw(t, "edits") {
			route["edited"] = fmt.Sprint("by push ", i)
		}
	}
	if rapid.Bool().Draw(t, "adds a route") {
		added := object{"match": []any{object{"port": int64(7), "sniHosts": []any{"reviews"}}}, "route": genForeignEnds(t, "details")}
		list.set(out, append(list.of(out), added))
	}
	return out
}
