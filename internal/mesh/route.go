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
	case found == nil && Leaves(r, managed):
		return nil, nil
	case managed.Template != "":
		out, problem = renderDescribed(r, managed, found)
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
	out, list := createdVirtualService(r, managed.Name), drivenList(r)
	route := v1.ManagedRoute{Key: createdKey(r)}
	if found != nil {
		out = found.DeepCopy()
		entries := list.of(out)
		if indexOfRoute(entries, route.Key) < 0 {
			entries = putMade(r, list, entries, list.of(createdVirtualService(r, managed.Name))...)
			specOf(out)[string(list)] = entries
		}
		// Nothing is saved of a route that Sluice made: a single mirror of its own would not outlast a mirror step.
		route.SavedMirror = "{}"
		for _, field := range mirrorFields {
			delete(asObject(entries[indexOfRoute(entries, route.Key)]), field)
		}
	}
	return renderRoutes(r, []v1.ManagedRoute{route}, out)
}

func createdVirtualService(r *v1.Rollout, name string) *unstructured.Unstructured {
	vs := &networking.VirtualService{
		TypeMeta:   metav1.TypeMeta{APIVersion: networking.SchemeGroupVersion.String(), Kind: "VirtualService"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.Namespace, Labels: managedBy},
		Spec:       istio.VirtualService{Hosts: []string{r.Spec.Host}, Gateways: []string{meshGateway}},
	}
	destination := &istio.Destination{Host: r.Spec.Host, Port: r.Spec.Port}
	switch drivenList(r) {
	case tcpList:
		vs.Spec.Tcp = []*istio.TCPRoute{madeTCP(r, destination)}
	case tlsList:
		vs.Spec.Hosts = spellings(r.Spec.Host, r.Namespace)
		vs.Spec.Tls = []*istio.TLSRoute{madeTLS(r, vs.Spec.Hosts, destination)}
	default:
		vs.Spec.Http = []*istio.HTTPRoute{{Name: createdRoute, Route: []*istio.HTTPRouteDestination{{Destination: destination}}}}
	}
	return created(vs)
}

// renderRoutes puts the driven routes of a VirtualService, which it may change, and the copies before them, into their state.
func renderRoutes(r *v1.Rollout, routes []v1.ManagedRoute, vs *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	driven := drivenList(r)
	if driven != httpList {
		// Copies stand among the HTTP routes only; those of a fault that goes on are put back after this.
		if rest := withoutCopies(routesOf(vs), r.Name); len(rest) < len(routesOf(vs)) {
			setRoutes(vs, rest)
		}
	}
	list := withoutCopies(driven.of(vs), r.Name)
	var gone []string
	asked, made, gateways := map[string]bool{}, map[string]bool{}, servedGateways(vs, r.Namespace)
	var problem *Problem
	for i, managed := range routes {
		at := indexOfRoute(list, managed.Key)
		if at < 0 {
			gone = append(gone, managed.Key)
			continue
		}
		if p := namesakeProblem(vs.GetName(), managed, list); p != nil {
			problem = p
			renderNamesakes(r, managed, list)
			continue
		}
		c := copier{rollout: r, managed: managed, place: i, of: len(routes), gateways: gateways, asked: asked}
		inserts, conflict := c.renderAt(list, at)
		if conflict != nil {
			return nil, conflict
		}
		for _, c := range inserts {
			kind, _ := inserted(asObject(c))
			made[kind] = true
		}
		list = insertCopies(list, at, inserts)
	}
	driven.set(vs, list)
	if len(gone) > 0 {
		problem = &Problem{v1.ReasonRouteNotFound, fmt.Sprintf(
			"VirtualService %s has no route %s any more: bring it back", vs.GetName(), strings.Join(gone, ", "))}
	}
	if problem != nil {
		if r.Status.Traffic.Canary == nil {
			return vs, problem
		}
		return nil, problem
	}
	for _, kind := range []string{kindFault, kindMatch, kindMirror} {
		if asked[kind] && !made[kind] {
			return nil, &Problem{v1.ReasonMatchConflict, fmt.Sprintf(
				"no request can meet both the step's %s and the match of a route of VirtualService %s: change the step's", kind, vs.GetName())}
		}
	}
	return vs, nil
}

func indexOfRoute(list []any, key string) int {
	return slices.IndexFunc(list, func(entry any) bool {
		route, ok := entry.(object)
		return ok && routeKey(route) == key
	})
}

// followFaults gives the fault copies that other Rollouts had inserted right before a route that route's new destinations: they
// lead to this Rollout's host as well, and a rollback must not wait for theirs.
func followFaults(r *v1.Rollout, before []any, route object) {
	for i := len(before) - 1; i >= 0; i-- {
		c := asObject(before[i])
		kind, _ := inserted(c)
		if kind == "" {
			return
		}
		if kind != kindFault || !allOwn(r, c) {
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
		stable := toTarget(r, managed, base, traffic.Stable)
		if managed.Weighted {
			stable["weight"] = int64(100)
		}
		route["route"] = []any{stable}
	} else {
		stable, canary := toTarget(r, managed, base, traffic.Stable), toTarget(r, managed, base, *traffic.Canary)
		stable["weight"], canary["weight"] = int64(100-traffic.Weight), int64(traffic.Weight)
		route["route"] = []any{stable, canary}
	}
	if drivenList(r) == httpList {
		renderMirrors(r, managed, route, base)
	}
}

// renderAt puts the route at a place of a list into its state, and returns the copies that are to stand before it.
func (c *copier) renderAt(list []any, at int) ([]any, *Problem) {
	route := asObject(list[at])
	if c.managed.Leaving {
		renderRoute(letGo(c.rollout), c.managed, route)
		return nil, nil
	}
	c.route, c.plain = route, plainRoute(c.rollout, c.managed, clone(route))
	renderRoute(c.rollout, c.managed, route)
	followFaults(c.rollout, list[:at], route)
	return c.ownCopies() // none but for HTTP: nothing else has matches
}

// letGo is a Rollout that sends to its host, and to no version of it.
func letGo(r *v1.Rollout) *v1.Rollout {
	return &v1.Rollout{ObjectMeta: r.ObjectMeta, Spec: r.Spec, Status: v1.RolloutStatus{Traffic: &v1.Traffic{}}}
}

// plainRoute is the route as it is outside of runs: what copies are made of.
func plainRoute(r *v1.Rollout, managed v1.ManagedRoute, route object) object {
	stable := r.Status.Traffic.AllStable()
	at := &v1.Rollout{ObjectMeta: r.ObjectMeta, Spec: r.Spec, Status: v1.RolloutStatus{Traffic: &stable}}
	renderRoute(at, managed, route)
	return route
}
