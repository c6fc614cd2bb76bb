package mesh

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
)

// createdRoute is the name of the only route of a VirtualService that Sluice made.
const createdRoute = "primary"

// VirtualService renders a driven VirtualService as status.traffic wants it. found nil: a created one is made, an adopted one
// is a problem. Routes that are not driven, and fields that are not ours, stay as found. Beside a problem the object is nil
// except for what is to be written all the same: without a canary the way back for the routes that are there, else the found one
// without an earlier step's fault, which would stand for no test.
func VirtualService(r *v1.Rollout, managed v1.ManagedVirtualService, found *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	if r.Status.Traffic == nil {
		return found, nil
	}
	var out *unstructured.Unstructured
	var problem *Problem
	switch {
	case managed.Created:
		out, problem = renderCreated(r, managed, found)
	case found == nil:
		return nil, &Problem{v1.ReasonVirtualServiceNotFound, fmt.Sprintf(
			"VirtualService %s is gone: bring it back, nothing is made in its place", managed.Name)}
	default:
		out, problem = renderRoutes(r, managed.Routes, found.DeepCopy())
	}
	fault := r.Status.Traffic.Fault
	inItsStep := fault != nil && fault.Host == ""
	if problem != nil && out == nil && found != nil && (!inItsStep || problem.Reason != v1.ReasonRouteNotFound) {
		out = withoutFaults(r.Name, found)
	}
	return out, problem
}

// renderCreated restores the one route that Sluice made, in the place where it was found.
func renderCreated(r *v1.Rollout, managed v1.ManagedVirtualService, found *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	out := createdVirtualService(r, managed.Name)
	route := v1.ManagedRoute{Key: createdRoute}
	if found != nil {
		out = found.DeepCopy()
		if list := routesOf(out); indexOfRoute(list, createdRoute) < 0 {
			specOf(out)["http"] = append(list, routesOf(createdVirtualService(r, managed.Name))...)
		}
		// Nothing is saved of a route that Sluice made: a single mirror of its own would not outlast a mirror step.
		route.SavedMirror = "{}"
		list := routesOf(out)
		for _, field := range mirrorFields {
			delete(asObject(list[indexOfRoute(list, createdRoute)]), field)
		}
	}
	return renderRoutes(r, []v1.ManagedRoute{route}, out)
}

func createdVirtualService(r *v1.Rollout, name string) *unstructured.Unstructured {
	destination := &istio.Destination{Host: r.Spec.Host, Port: r.Spec.Port}
	return created(&networking.VirtualService{
		TypeMeta:   metav1.TypeMeta{APIVersion: networking.SchemeGroupVersion.String(), Kind: "VirtualService"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.Namespace, Labels: managedBy},
		Spec: istio.VirtualService{
			Hosts: []string{r.Spec.Host}, Gateways: []string{meshGateway},
			Http: []*istio.HTTPRoute{{Name: createdRoute, Route: []*istio.HTTPRouteDestination{{Destination: destination}}}},
		},
	})
}

// renderRoutes puts the driven routes of a VirtualService, which it may change, and the copies before them, into their state.
func renderRoutes(r *v1.Rollout, routes []v1.ManagedRoute, vs *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	list := withoutCopies(routesOf(vs), r.Name)
	var gone []string
	asked, made := map[string]bool{}, map[string]bool{}
	for i, managed := range routes {
		at := indexOfRoute(list, managed.Key)
		if at < 0 {
			gone = append(gone, managed.Key)
			continue
		}
		route := asObject(list[at])
		plain := plainRoute(r, managed, clone(route))
		renderRoute(r, managed, route)
		followFaults(r, list[:at], route)
		inserts, problem := ownCopies(r, i, plain, asked)
		if problem != nil {
			return nil, problem
		}
		for _, c := range inserts {
			kind, _ := inserted(asObject(c))
			made[kind] = true
		}
		list = insertCopies(list, at, inserts)
	}
	setRoutes(vs, list)
	if len(gone) > 0 {
		problem := &Problem{v1.ReasonRouteNotFound, fmt.Sprintf(
			"VirtualService %s has no route %s any more: bring it back", vs.GetName(), strings.Join(gone, ", "))}
		if r.Status.Traffic.Canary == nil {
			return vs, problem
		}
		return nil, problem
	}
	for _, kind := range []string{kindFault, kindMatch} {
		if asked[kind] && !made[kind] {
			return nil, &Problem{v1.ReasonMatchConflict, fmt.Sprintf(
				"no request can meet both the step's %s and the match of a route of VirtualService %s: change the step's", kind, vs.GetName())}
		}
	}
	return vs, nil
}

// routesOf are the HTTP routes, with whatever else stands among them.
func routesOf(vs *unstructured.Unstructured) []any {
	list, _ := specOf(vs)["http"].([]any)
	return list
}

func indexOfRoute(list []any, key string) int {
	return slices.IndexFunc(list, func(entry any) bool {
		route, ok := entry.(object)
		return ok && routeKey(route) == key
	})
}

// setRoutes replaces the HTTP routes; where there were none and are none, nothing is written.
func setRoutes(vs *unstructured.Unstructured, list []any) {
	spec := specOf(vs)
	if _, given := spec["http"]; given || len(list) > 0 {
		spec["http"] = list
	}
}

// followFaults gives the fault copies that other Rollouts had inserted right before a route that route's new destinations: they
// lead to this Rollout's host as well, and a rollback must not wait for theirs.
func followFaults(r *v1.Rollout, before []any, route object) {
	host := HostKey(r.Spec.Host, r.Namespace)
	for i := len(before) - 1; i >= 0; i-- {
		c := asObject(before[i])
		kind, _ := inserted(c)
		if kind == "" {
			return
		}
		if kind != kindFault || !allTo(c, host, r.Namespace) {
			continue
		}
		fresh := clone(route)
		for _, field := range append([]string{"route", "mirrors"}, mirrorFields...) {
			delete(c, field)
			if value, given := fresh[field]; given {
				c[field] = value
			}
		}
	}
}

// withoutCopies drops what was inserted for a Rollout.
func withoutCopies(list []any, rollout string) []any {
	return slices.DeleteFunc(slices.Clone(list), func(entry any) bool {
		route, ok := entry.(object)
		if !ok {
			return false
		}
		kind, owner := inserted(route)
		return kind != "" && owner == rollout
	})
}

// renderRoute writes the destinations and mirrors of one driven route.
func renderRoute(r *v1.Rollout, managed v1.ManagedRoute, route object) {
	traffic := r.Status.Traffic
	base := baseDestination(r, route)
	if traffic.Canary == nil {
		stable := toSubset(base, traffic.Stable.Subset)
		if managed.Weighted {
			stable["weight"] = int64(100)
		}
		route["route"] = []any{stable}
	} else {
		stable, canary := toSubset(base, traffic.Stable.Subset), toSubset(base, traffic.Canary.Subset)
		stable["weight"], canary["weight"] = int64(100-traffic.Weight), int64(traffic.Weight)
		route["route"] = []any{stable, canary}
	}
	renderMirrors(r, managed, route, base)
}

// plainRoute is the route as it is outside of runs: what copies are made of.
func plainRoute(r *v1.Rollout, managed v1.ManagedRoute, route object) object {
	stable := r.Status.Traffic.AllStable()
	at := &v1.Rollout{ObjectMeta: r.ObjectMeta, Spec: r.Spec, Status: v1.RolloutStatus{Traffic: &stable}}
	renderRoute(at, managed, route)
	return route
}

// baseDestination is the route's first destination on the host, without subset and weight; port, headers and unknown fields stay.
func baseDestination(r *v1.Rollout, route object) object {
	host := HostKey(r.Spec.Host, r.Namespace)
	for _, d := range objects(route["route"]) {
		if HostKey(text(child(d, "destination"), "host"), r.Namespace) == host {
			base := clone(d)
			delete(base, "weight")
			delete(child(base, "destination"), "subset")
			return base
		}
	}
	destination := object{"host": r.Spec.Host}
	if r.Spec.Port != nil {
		destination["port"] = toRaw(r.Spec.Port)
	}
	return object{"destination": destination}
}

func toSubset(base object, subset string) object {
	d := clone(base)
	child(d, "destination")["subset"] = subset
	return d
}
