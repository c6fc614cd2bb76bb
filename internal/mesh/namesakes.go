package mesh

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// namesakes are how many routes of a list have the name that is a key; none for a key that is of a match: Istio reaches the first alone.
func namesakes(list []any, key string) int {
	count := 0
	for _, entry := range list {
		if route, ok := entry.(object); ok && text(route, "name") == key {
			count++
		}
	}
	return count
}

// namesakeProblem is that a name was given to one more route since it was managed: Istio obeys the first that matches, so that it may
// matter, and nothing tells which of them is meant.
func namesakeProblem(vs string, managed v1.ManagedRoute, list []any) *Problem {
	if namesakes(list, managed.Key) <= 1+int(managed.Namesakes) {
		return nil
	}
	return &Problem{v1.ReasonRouteNotFound, fmt.Sprintf(
		"VirtualService %s has %d routes named %s, and had %d when that was managed: which of them is meant can not be told, give the others names of their own",
		vs, namesakes(list, managed.Key), managed.Key, 1+managed.Namesakes)}
}

// renderNamesakes gives, on the way back, all traffic of each route of a name to stable that leads to the Rollout's hosts alone: the one
// that is left out might keep the canary.
func renderNamesakes(r *v1.Rollout, managed v1.ManagedRoute, list []any) {
	if r.Status.Traffic.Canary != nil {
		return // nothing is written then
	}
	for _, entry := range list {
		if route, ok := entry.(object); ok && text(route, "name") == managed.Key && allOwn(r, route) {
			renderRoute(r, managed, route)
		}
	}
}

// moreNamesakes tells whether a VirtualService as it is wanted has them.
func (d driver) moreNamesakes(managed *v1.ManagedVirtualService, out *unstructured.Unstructured) *Problem {
	for _, driven := range drivenRoutes(d.rollout, managed) {
		if problem := namesakeProblem(managed.Name, driven, drivenList(d.rollout).of(out)); problem != nil {
			return problem
		}
	}
	return nil
}

// standing is the place of the route that carries a driven one's traffic: of several of its name one that is split between versions.
func (d driver) standing(found []any, key string) int {
	split := slices.IndexFunc(found, func(entry any) bool {
		route := asObject(entry)
		return text(route, "name") == key && len(objects(route["route"])) > 1 && allOwn(d.rollout, route)
	})
	if split >= 0 {
		return split
	}
	return indexOfRoute(found, key)
}
