package mesh

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	istio "istio.io/api/networking/v1alpha3"

	v1 "sluice.dev/sluice/api/v1"
)

// The kinds of inserted copies, in the order in which they stand before their route.
const (
	kindFault = "fault"
	kindMatch = "match"
)

func copyName(kind, rollout string, i int) string {
	return fmt.Sprintf("sluice-%s-%s-%d", kind, rollout, i)
}

// ownCopies are the copies that stand before the i-th driven route: first the fault's, then the match's, both to the canary
// alone. A copy that no request can reach is left out; asked notes the kinds that the traffic asks for.
func ownCopies(r *v1.Rollout, i int, plain object, asked map[string]bool) (copies []any, problem *Problem) {
	traffic := r.Status.Traffic
	if traffic.Canary == nil || drivenList(r) != httpList {
		return nil, nil
	}
	add := func(kind string, match v1.HTTPMatches, fault *istio.HTTPFaultInjection) {
		if len(match) == 0 || problem != nil {
			return
		}
		asked[kind] = true
		both, conflict := andMatches(rawMatches(match), objects(plain["match"]), r.Namespace)
		if conflict != "" {
			problem = matchConflict(routeKey(plain), conflict)
			return
		}
		if len(both) == 0 {
			return
		}
		c := copyOf(plain, copyName(kind, r.Name, i), both)
		c["route"] = []any{toSubset(baseDestination(r, plain), traffic.Canary.Subset)}
		if fault != nil {
			c["fault"] = toRaw(fault)
		}
		copies = append(copies, c)
	}
	if f := traffic.Fault; f != nil && f.Host == "" {
		add(kindFault, f.Match, &istio.HTTPFaultInjection{Delay: f.Delay, Abort: f.Abort})
	}
	add(kindMatch, traffic.Match, nil)
	return copies, problem
}

func matchConflict(key, conflict string) *Problem {
	return &Problem{v1.ReasonMatchConflict, fmt.Sprintf(
		"the step's match and that of route %s can not be combined in one HTTPMatchRequest: %s; write the step's match so that it implies the route's", key, conflict)}
}

// copyOf is a route of another name and match; rewrite, headers, retries, time-outs, CORS and unknown fields are the route's.
func copyOf(route object, name string, match []object) object {
	c := clone(route)
	c["name"] = name
	blocks := make([]any, len(match))
	for i, m := range match {
		blocks[i] = m
	}
	c["match"] = blocks
	return c
}

func rawMatches(matches v1.HTTPMatches) []object {
	var raw []object
	for _, m := range matches {
		if o, ok := toRaw(m).(object); ok {
			raw = append(raw, o)
		}
	}
	return raw
}

// insertCopies puts copies right before the route at an index. Fault copies go before any match copies that stand there already,
// and in the order of their Rollouts' names, so that renderings for several Rollouts come to the same order.
func insertCopies(list []any, at int, copies []any) []any {
	for _, c := range copies {
		place := at
		route, ok := c.(object)
		if kind, owner := inserted(route); ok && kind == kindFault {
			place = placeOfFault(list, at, owner)
		}
		list = slices.Insert(list, place, c)
		at++
	}
	return list
}

func placeOfFault(list []any, at int, rollout string) int {
	for at > 0 {
		kind, owner := inserted(asObject(list[at-1]))
		if kind == "" || (kind == kindFault && owner <= rollout) {
			break
		}
		at--
	}
	return at
}

// FaultVirtualService renders the VirtualService of another host that carries the traffic's fault: copies before each route
// that goes to that host alone, for requests from the canary's pods. Without a fault in the traffic the copies are gone, and one
// that was made for the fault is to be deleted: nil. Beside a problem the object is nil, or the found one without an earlier fault.
func FaultVirtualService(r *v1.Rollout, managed *v1.ManagedVirtualService, found *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	if r.Status.Traffic == nil {
		return found, nil
	}
	fault := r.Status.Traffic.Fault
	wanted := fault != nil && fault.Host != "" && r.Status.Traffic.Canary != nil
	switch {
	case !wanted && (managed.Created || found == nil):
		return nil, nil
	case wanted && managed.Created:
		found = completeFaultCarrier(r, managed.Name, found)
	case found == nil:
		return nil, &Problem{v1.ReasonVirtualServiceNotFound, fmt.Sprintf(
			"VirtualService %s, which carries the fault on %s, is gone: bring it back", managed.Name, fault.Host)}
	}
	out := found.DeepCopy()
	list := withoutCopies(routesOf(out), r.Name)
	if wanted {
		var problem *Problem
		if list, problem = insertFaults(r, out.GetName(), list); problem != nil {
			return withoutFaults(r.Name, found), problem
		}
	}
	setRoutes(out, list)
	return out, nil
}

// completeFaultCarrier makes the VirtualService for a fault, or its route where only that is gone.
func completeFaultCarrier(r *v1.Rollout, name string, found *unstructured.Unstructured) *unstructured.Unstructured {
	carrier := r.DeepCopy()
	carrier.Spec.Host, carrier.Spec.Port, carrier.Spec.Protocol = r.Status.Traffic.Fault.Host, nil, v1.ProtocolHTTP
	made := createdVirtualService(carrier, name)
	if found == nil {
		return made
	}
	found = found.DeepCopy()
	if list := routesOf(found); indexOfRoute(list, createdRoute) < 0 {
		specOf(found)["http"] = append(list, routesOf(made)...)
	}
	return found
}

// withoutFaults is what was found but for the fault copies of a Rollout; nil where it has none.
func withoutFaults(rollout string, found *unstructured.Unstructured) *unstructured.Unstructured {
	ours := func(entry any) bool {
		kind, owner := inserted(asObject(entry))
		return kind == kindFault && owner == rollout
	}
	out := found.DeepCopy()
	if !slices.ContainsFunc(routesOf(out), ours) {
		return nil
	}
	setRoutes(out, slices.DeleteFunc(routesOf(out), ours))
	return out
}

func insertFaults(r *v1.Rollout, name string, list []any) ([]any, *Problem) {
	fault := r.Status.Traffic.Fault
	message := &istio.HTTPFaultInjection{Delay: fault.Delay, Abort: fault.Abort}
	fromCanary := object{"sourceLabels": rawLabels(r.Status.Traffic.Canary.Labels)}
	match, _ := andMatches(rawMatches(fault.Match), []object{fromCanary}, r.Namespace) // labels add up or exclude each other
	count := 0
	for at := 0; at < len(list); at++ {
		route, ok := list[at].(object)
		if kind, _ := inserted(route); !ok || kind != "" || !allTo(route, HostKey(fault.Host, r.Namespace), r.Namespace) {
			continue
		}
		both, conflict := andMatches(match, objects(route["match"]), r.Namespace)
		if conflict != "" {
			return nil, matchConflict(routeKey(route), conflict)
		}
		if len(both) == 0 {
			continue
		}
		c := copyOf(route, copyName(kindFault, r.Name, count), both)
		c["fault"] = toRaw(message)
		list = slices.Insert(list, placeOfFault(list, at, r.Name), any(c))
		count++
		at++
	}
	if count == 0 {
		return nil, &Problem{v1.ReasonMatchConflict, fmt.Sprintf(
			"VirtualService %s has no route to %s alone that the fault's match can meet: change fault.match or the routes", name, fault.Host)}
	}
	return list, nil
}

// allTo tells whether all destinations of a route are one host.
func allTo(route object, host, namespace string) bool {
	destinations := objects(route["route"])
	return len(destinations) > 0 && !slices.ContainsFunc(destinations, func(d object) bool {
		return HostKey(text(child(d, "destination"), "host"), namespace) != host
	})
}

// SurveyFault finds the VirtualService that can carry a fault on another host, or names the one to make.
func SurveyFault(r *v1.Rollout, host string, virtualServices []*unstructured.Unstructured) (v1.ManagedVirtualService, *Problem) {
	key := HostKey(host, r.Namespace)
	name := faultCarrierName(r.Name, host, r.Namespace)
	var found []string
	made := false
	for _, vs := range byName(virtualServices) {
		made = made || (vs.GetName() == name && isOurs(vs))
		routes := slices.ContainsFunc(httpRoutes(vs), func(route object) bool { return allTo(route, key, r.Namespace) })
		binds := slices.Contains(boundHosts(vs, r.Namespace), key)
		if (binds || routes) && carriesMesh(vs, r.Namespace) {
			found = append(found, vs.GetName())
		}
	}
	switch {
	case len(found) == 0 && slices.ContainsFunc(virtualServices, func(vs *unstructured.Unstructured) bool { return vs.GetName() == name }):
		return v1.ManagedVirtualService{}, &Problem{v1.ReasonHostConflict, fmt.Sprintf(
			"VirtualService %s, which would carry the fault on %s, is there already, for another host: rename it", name, host)}
	case len(found) == 0:
		return v1.ManagedVirtualService{Name: name, Created: true}, nil
	case len(found) == 1:
		return v1.ManagedVirtualService{Name: found[0], Created: found[0] == name && made}, nil
	}
	return v1.ManagedVirtualService{}, &Problem{v1.ReasonHostConflict, fmt.Sprintf(
		"VirtualServices %v all concern fault host %s: keep one", found, host)}
}

// isOurs tells whether Sluice made an object: one that people gave the same name is not deleted.
func isOurs(u *unstructured.Unstructured) bool {
	for key, value := range managedBy {
		if u.GetLabels()[key] != value {
			return false
		}
	}
	return true
}

// FaultCarrier is the name of the VirtualService that is made for a Rollout's fault on a host that has none.
func FaultCarrier(rollout, host, namespace string) string {
	return faultCarrierName(rollout, host, namespace)
}

// faultCarrierName is the same however the host of a Service is spelled.
func faultCarrierName(rollout, host, namespace string) string {
	if service, _, ok := ServiceOf(host, namespace); ok {
		host = service
	}
	return SubsetName(rollout + "-fault-" + host)
}

// madeForFault names the Rollout for whose fault on a host a VirtualService was made; empty: it was not made for that.
func madeForFault(vs *unstructured.Unstructured, host, namespace string) string {
	for _, route := range httpRoutes(vs) {
		if kind, owner := inserted(route); kind == kindFault && vs.GetName() == faultCarrierName(owner, host, namespace) {
			return owner
		}
	}
	return ""
}

// MadeForFaultOf tells whether Sluice made a VirtualService for a fault of a Rollout of its namespace: it goes with that fault.
func MadeForFaultOf(rollout string, vs *unstructured.Unstructured) bool {
	hosts, _, err := unstructured.NestedStringSlice(vs.Object, "spec", "hosts")
	return err == nil && isOurs(vs) && slices.ContainsFunc(hosts, func(host string) bool {
		return vs.GetName() == faultCarrierName(rollout, host, vs.GetNamespace())
	})
}

// carriesMesh tells whether sidecars obey a VirtualService: only there do sourceLabels select the canary's calls.
func carriesMesh(vs *unstructured.Unstructured, namespace string) bool {
	return slices.Contains(gatewaysOf(vs, namespace), meshGateway)
}
