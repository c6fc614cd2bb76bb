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
	kindFault  = "fault"
	kindMatch  = "match"
	kindMirror = "mirror"
)

func copyName(kind, rollout string, i int) string {
	return fmt.Sprintf("sluice-%s-%s-%d", kind, rollout, i)
}

// copier makes the copies that stand before one of several driven routes.
type copier struct {
	rollout *v1.Rollout
	managed v1.ManagedRoute
	// place of the route among the driven ones, of which there are so many.
	place, of int
	// route as the traffic wants it, and plain as it is outside of runs.
	route, plain object
	// gateways of the VirtualService; nil for a delegate, whose requests may come by any.
	gateways []string
	// asked notes the kinds that the traffic asks for.
	asked map[string]bool
}

// ownCopies are the copies that stand before a driven route: those of a fault, then the match's and the mirror's. One that no
// request can reach is left out. With a fault that leaves the traffic as it is, each of the others has a copy with the fault, and
// so has the route.
func (c *copier) ownCopies() ([]any, *Problem) {
	if c.rollout.Status.Traffic.Canary == nil || drivenList(c.rollout) != httpList {
		return nil, nil
	}
	copies, problem := c.trafficCopies()
	fault := c.ownFault()
	if problem != nil || fault == nil {
		return copies, problem
	}
	var faults []any
	if fault.Traffic == v1.FaultTrafficUnchanged {
		faults, problem = c.unchanged(fault, copies)
	} else {
		faults, problem = c.insert(kindFault, fault.Match, c.toCanary())
		faults = withFault(fault, faults)
	}
	if problem != nil {
		return nil, problem
	}
	return append(faults, copies...), nil
}

// ownFault is the fault on the Rollout's own host, nil without one. No match alone never stands for everyone.
func (c *copier) ownFault() *v1.FaultInjection {
	fault := c.rollout.Status.Traffic.Fault
	if fault == nil || fault.Host != "" || (len(fault.Match) == 0 && fault.Scope != v1.FaultScopeEveryone) {
		return nil
	}
	return fault
}

// trafficCopies are those of the match and of a mirror that stands apart.
func (c *copier) trafficCopies() (copies []any, problem *Problem) {
	traffic := c.rollout.Status.Traffic
	if len(traffic.Match) > 0 {
		if copies, problem = c.insert(kindMatch, traffic.Match, c.toCanary()); problem != nil {
			return nil, problem
		}
	}
	if !traffic.MirrorsApart() {
		return copies, nil
	}
	mirrors, problem := c.insert(kindMirror, traffic.Mirror.Match, c.mirroring())
	if problem != nil {
		return nil, problem
	}
	return append(copies, mirrors...), nil
}

// insert gives a base, a form of the route, a copy's name and the AND of a match and the route's; none when no request can meet
// both. No match: all that the route gets.
func (c *copier) insert(kind string, match v1.HTTPMatches, base object) ([]any, *Problem) {
	here := c.here(match)
	if len(here) == 0 && len(match) > 0 {
		return nil, nil
	}
	c.asked[kind] = true
	return c.narrowed(copyName(kind, c.rollout.Name, c.place), here, base)
}

func (c *copier) narrowed(name string, match v1.HTTPMatches, base object) ([]any, *Problem) {
	if len(match) == 0 {
		return []any{copyOf(base, name, nil)}, nil
	}
	both, conflict := andMatches(rawMatches(match), objects(base["match"]), c.rollout.Namespace)
	switch {
	case conflict != "":
		return nil, matchConflict(routeKey(c.plain), conflict)
	case len(both) == 0:
		return nil, nil
	}
	return []any{copyOf(base, name, both)}, nil
}

// unchanged are the copies of a fault that leaves the traffic as it is: of each other copy, and then of the route itself.
func (c *copier) unchanged(fault *v1.FaultInjection, others []any) (faults []any, problem *Problem) {
	here := c.here(fault.Match)
	if len(here) == 0 && len(fault.Match) > 0 {
		return nil, nil
	}
	c.asked[kindFault] = true
	for i, base := range append(slices.Clone(others), c.route) {
		place := c.place // of the route's own; those of its copies are told apart from all routes'
		if i < len(others) {
			place += (i + 1) * c.of
		}
		made, problem := c.narrowed(copyName(kindFault, c.rollout.Name, place), here, asObject(base))
		if problem != nil {
			return nil, problem
		}
		faults = append(faults, withFault(fault, made)...)
	}
	return faults, nil
}

// toCanary is the route with the canary alone.
func (c *copier) toCanary() object {
	to := clone(c.plain)
	to["route"] = []any{toTarget(c.rollout, c.managed, baseDestination(c.rollout, c.plain), *c.rollout.Status.Traffic.Canary)}
	return to
}

// mirroring is the route with the step's mirror beside those that it has.
func (c *copier) mirroring() object {
	to := clone(c.route)
	mirrors, _ := to["mirrors"].([]any)
	if single, given := to["mirror"]; given {
		mirrors = append(mirrors, object{"destination": single, "percentage": object{"value": singlePercentage(to)}})
	}
	for _, field := range mirrorFields {
		delete(to, field)
	}
	to["mirrors"] = append(mirrors, stepMirror(c.rollout, c.managed, baseDestination(c.rollout, c.plain)))
	return to
}

// withFault gives copies, which it may change, a fault in place of what the route has of its own.
func withFault(fault *v1.FaultInjection, copies []any) []any {
	for _, c := range copies {
		asObject(c)["fault"] = toRaw(&istio.HTTPFaultInjection{Delay: fault.Delay, Abort: fault.Abort})
	}
	return copies
}

func matchConflict(key, conflict string) *Problem {
	return &Problem{v1.ReasonMatchConflict, fmt.Sprintf(
		"the step's match and that of route %s can not be combined in one HTTPMatchRequest: %s; write the step's match so that it implies the route's", key, conflict)}
}

// copyOf is a route of another name and match, nil for the route's; rewrite, headers, retries, time-outs, CORS and unknown fields are the route's.
func copyOf(route object, name string, match []object) object {
	c := clone(route)
	c["name"] = name
	if match == nil {
		return c
	}
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
// that goes to that host alone, for requests from the canary's pods unless the fault is everybody's. One that the Rollout drives
// as well is given as VirtualService renders it. Without a fault in the traffic the copies are gone, and one
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
	if managedOf(r, managed.Name) != nil {
		list = withoutFaultCopies(routesOf(out), r.Name)
	}
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
	out := found.DeepCopy()
	list := routesOf(out)
	kept := withoutFaultCopies(list, rollout)
	if len(kept) == len(list) {
		return nil
	}
	setRoutes(out, kept)
	return out
}

func withoutFaultCopies(list []any, rollout string) []any {
	return slices.DeleteFunc(slices.Clone(list), func(entry any) bool {
		kind, owner := inserted(asObject(entry))
		return kind == kindFault && owner == rollout
	})
}

// faultMatch is what a fault on another host asks of requests: that they come from the canary's pods, unless it leaves the traffic
// as it is. None: nothing.
func faultMatch(r *v1.Rollout) []object {
	fault := r.Status.Traffic.Fault
	match := rawMatches(fault.Match)
	if fault.Traffic == v1.FaultTrafficUnchanged {
		return match
	}
	fromCanary := object{"sourceLabels": rawLabels(r.Status.Traffic.Canary.Labels)}
	both, _ := andMatches(match, []object{fromCanary}, r.Namespace) // labels add up or exclude each other
	return both
}

func insertFaults(r *v1.Rollout, name string, list []any) ([]any, *Problem) {
	fault := r.Status.Traffic.Fault
	if fault.Traffic != v1.FaultTrafficUnchanged && len(r.Status.Traffic.Canary.Labels) == 0 {
		return nil, &Problem{v1.ReasonMatchConflict, fmt.Sprintf(
			"a fault on %s for the calls of %s alone needs labels that tell its pods, and it has none: set fault.traffic to Unchanged",
			fault.Host, r.Status.Traffic.Canary.Version)}
	}
	match := faultMatch(r)
	count := 0
	for at := 0; at < len(list); at++ {
		route, ok := list[at].(object)
		if kind, _ := inserted(route); !ok || kind != "" || !allTo(route, HostKey(fault.Host, r.Namespace), r.Namespace) {
			continue
		}
		var both []object
		if fault.Scope != v1.FaultScopeEveryone {
			var conflict string
			if both, conflict = andMatches(match, objects(route["match"]), r.Namespace); conflict != "" {
				return nil, matchConflict(routeKey(route), conflict)
			}
			if len(both) == 0 {
				continue
			}
		}
		c := withFault(fault, []any{copyOf(route, copyName(kindFault, r.Name, count), both)})
		list = slices.Insert(list, placeOfFault(list, at, r.Name), c...)
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

// SurveyFault finds the VirtualService that can carry a fault on another host, or names the one to make: the one that binds the
// host's name for sidecars, where callers meet it, else the one that routes to it.
func SurveyFault(r *v1.Rollout, host string, virtualServices []*unstructured.Unstructured) (v1.ManagedVirtualService, *Problem) {
	name := faultCarrierName(r.Name, host, r.Namespace)
	found := faultCarriers(HostKey(host, r.Namespace), r.Namespace, virtualServices)
	at := slices.IndexFunc(virtualServices, func(vs *unstructured.Unstructured) bool { return vs.GetName() == name })
	if len(found) == 2 && at >= 0 && isOurs(virtualServices[at]) { // another one came since it was made
		found = slices.DeleteFunc(found, func(carrier string) bool { return carrier == name })
	}
	hidden := hides(virtualServices, host, r.Namespace)
	switch {
	case len(found) == 0 && hidden != "":
		return v1.ManagedVirtualService{}, &Problem{v1.ReasonHostConflict, hidden}
	case len(found) == 0 && at >= 0:
		return v1.ManagedVirtualService{}, &Problem{v1.ReasonHostConflict, fmt.Sprintf(
			"VirtualService %s, which would carry the fault on %s, is there already, for another host: rename it", name, host)}
	case len(found) == 0:
		return v1.ManagedVirtualService{Name: name, Created: true}, nil
	case len(found) == 1:
		return v1.ManagedVirtualService{Name: found[0], Created: found[0] == name && isOurs(virtualServices[at])}, nil
	}
	return v1.ManagedVirtualService{}, &Problem{v1.ReasonHostConflict, fmt.Sprintf(
		"VirtualServices %v all concern fault host %s: keep one", found, host)}
}

// faultCarriers are the VirtualServices for sidecars that bind a host's name; where none does, those that route to it.
func faultCarriers(key, namespace string, virtualServices []*unstructured.Unstructured) []string {
	var binding, routing []string
	for _, vs := range byName(virtualServices) {
		switch {
		case !carriesMesh(vs, namespace):
		case slices.Contains(boundHosts(vs, namespace), key):
			binding = append(binding, vs.GetName())
		case slices.ContainsFunc(httpRoutes(vs), func(route object) bool { return allTo(route, key, namespace) }):
			routing = append(routing, vs.GetName())
		}
	}
	if len(binding) > 0 {
		return binding
	}
	return routing
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
