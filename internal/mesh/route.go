package mesh

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
)

// createdRoute is the name of the only route of a VirtualService that Sluice made.
const createdRoute = "primary"

// VirtualService renders a driven VirtualService as status.traffic wants it. found nil: a created one is made, an adopted one
// is a problem. Routes that are not driven, and fields that are not ours, stay as found.
func VirtualService(r *v1.Rollout, managed v1.ManagedVirtualService, found *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	if managed.Created {
		return renderCreated(r, managed, found)
	}
	if found == nil {
		return nil, &Problem{v1.ReasonVirtualServiceNotFound, fmt.Sprintf(
			"VirtualService %s is gone: bring it back, nothing is made in its place", managed.Name)}
	}
	out := found.DeepCopy()
	problem := renderRoutes(r, managed.Routes, out)
	return out, problem
}

// renderCreated restores the one route that Sluice made, in the place where it was found.
func renderCreated(r *v1.Rollout, managed v1.ManagedVirtualService, found *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	out := createdVirtualService(r, managed.Name)
	route := v1.ManagedRoute{Key: createdRoute}
	if found != nil {
		out = found.DeepCopy()
		if !slices.ContainsFunc(httpRoutes(out), func(o object) bool { return routeKey(o) == createdRoute }) {
			list, _ := specOf(out)["http"].([]any)
			fresh, _ := specOf(createdVirtualService(r, managed.Name))["http"].([]any)
			specOf(out)["http"] = append(list, fresh...)
		}
		route.SavedMirror = "{}" // every mirror of a route that Sluice made is Sluice's
	}
	return out, renderRoutes(r, []v1.ManagedRoute{route}, out)
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

// renderRoutes puts the driven routes of a VirtualService, and the copies before them, into their state.
func renderRoutes(r *v1.Rollout, routes []v1.ManagedRoute, vs *unstructured.Unstructured) *Problem {
	spec := specOf(vs)
	list, _ := spec["http"].([]any)
	list = withoutCopies(list, r.Name)
	traffic := r.Status.Traffic
	pairs, copies := 0, 0
	for i, managed := range routes {
		at := slices.IndexFunc(list, func(entry any) bool {
			route, ok := entry.(object)
			return ok && routeKey(route) == managed.Key
		})
		if at < 0 {
			return &Problem{v1.ReasonRouteNotFound, fmt.Sprintf(
				"VirtualService %s has no route %s any more: bring it back", vs.GetName(), managed.Key)}
		}
		route, ok := list[at].(object)
		if !ok {
			continue
		}
		plain := clone(route)
		renderRoute(r, managed, route)
		inserts, wanted, problem := ownCopies(r, i, plainRoute(r, managed, plain))
		if problem != nil {
			return problem
		}
		pairs, copies = pairs+wanted, copies+len(inserts)
		list = insertCopies(list, at, inserts)
	}
	if pairs > 0 && copies == 0 && traffic.Canary != nil {
		return &Problem{v1.ReasonMatchConflict, fmt.Sprintf(
			"no request can meet both the step's match and that of a route of VirtualService %s: change the step's match", vs.GetName())}
	}
	spec["http"] = list
	return nil
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
	at := r.DeepCopy()
	stable := at.Status.Traffic.AllStable()
	at.Status.Traffic = &stable
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
