package mesh

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// Drives tells whether a Rollout writes a VirtualService or DestinationRule of its namespace, by its committed status.
func Drives(r *v1.Rollout, kind, name string) bool {
	status := &r.Status
	switch {
	case status.Traffic == nil:
		return false
	case kind == "DestinationRule":
		return status.DestinationRule != nil && status.DestinationRule.Name == name
	case kind == "VirtualService":
		return managedOf(r, name) != nil || carries(r, name)
	}
	return false
}

// Rebase gives an object, as the one who owns its other fields wants it, the traffic that the found one has: weights, mirrors,
// inserted copies and subsets are those of the Rollouts that drive it, read after the object was. Where the found one is as their
// statuses say, that is the rendering of the statuses; else a write of a Rollout's own is due, with waits and an order of its
// own, and what it drives stays exactly as found. So no rebased object moves a weight. What is not found gets stable versions only.
// found nil: it does not exist. A problem: the object as it is wanted would take something away that a Rollout drives.
func Rebase(rollouts []v1.Rollout, found, desired *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	out := desired.DeepCopy()
	if found != nil {
		found = found.DeepCopy()
	}
	var drivers []driver
	for i := range rollouts {
		if r := &rollouts[i]; Drives(r, out.GetKind(), out.GetName()) {
			drivers = append(drivers, driver{rollout: r, found: found})
		}
	}
	slices.SortFunc(drivers, func(a, b driver) int { return strings.Compare(a.rollout.Name, b.rollout.Name) })
	rebases := []func(driver, *unstructured.Unstructured) (*unstructured.Unstructured, *Problem){driver.rebaseRule}
	if out.GetKind() == "VirtualService" {
		// Faults last: their copies are made of routes that are rebased already.
		rebases = []func(driver, *unstructured.Unstructured) (*unstructured.Unstructured, *Problem){driver.rebaseRoutes, driver.rebaseFault}
	}
	for _, rebase := range rebases {
		for _, d := range drivers {
			var problem *Problem
			if out, problem = rebase(d, out); problem != nil {
				return nil, problem
			}
		}
	}
	return out, nil
}

// driver is a Rollout that drives an object, and the object as found.
type driver struct {
	rollout *v1.Rollout
	found   *unstructured.Unstructured
}

func managedOf(r *v1.Rollout, name string) *v1.ManagedVirtualService {
	at := slices.IndexFunc(r.Status.VirtualServices, func(vs v1.ManagedVirtualService) bool { return vs.Name == name })
	if at < 0 {
		return nil
	}
	return &r.Status.VirtualServices[at]
}

func carries(r *v1.Rollout, name string) bool {
	carrier := r.Status.FaultVirtualService
	return carrier != nil && carrier.Name == name
}

// drivenRoutes are the routes that a Rollout drives in a VirtualService.
func drivenRoutes(r *v1.Rollout, managed *v1.ManagedVirtualService) []v1.ManagedRoute {
	if managed.Created && len(managed.Routes) == 0 {
		return []v1.ManagedRoute{{Key: createdKey(r)}}
	}
	return managed.Routes
}

// settled tells whether the found VirtualService is as the Rollout's status says.
func (d driver) settled() bool {
	if d.found == nil {
		return false
	}
	rendered, problem := d.found, (*Problem)(nil)
	if managed := managedOf(d.rollout, d.found.GetName()); managed != nil {
		rendered, problem = VirtualService(d.rollout, *managed, rendered)
	}
	if problem == nil && carries(d.rollout, d.found.GetName()) {
		rendered, problem = FaultVirtualService(d.rollout, d.rollout.Status.FaultVirtualService, rendered)
	}
	return problem == nil && rendered != nil && sameJSON(rendered.Object, d.found.Object)
}

// atStable is the Rollout with all traffic on its stable version.
func atStable(r *v1.Rollout) *v1.Rollout {
	stable := r.Status.Traffic.AllStable()
	status := r.Status
	status.Traffic = &stable
	return &v1.Rollout{ObjectMeta: r.ObjectMeta, Spec: r.Spec, Status: status}
}

// rebaseRoutes gives the driven routes of out, which it may change, their traffic.
func (d driver) rebaseRoutes(out *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	managed := managedOf(d.rollout, out.GetName())
	if managed == nil {
		return out, nil
	}
	if problem := d.takenAway(managed, out); problem != nil {
		return nil, problem
	}
	if problem := d.moreNamesakes(managed, out); problem != nil {
		return nil, problem
	}
	switch {
	case d.found == nil:
		// Routes that were gone before stay so: the Rollout says what it misses.
		rendered, _ := VirtualService(atStable(d.rollout), *managed, out)
		return rendered, nil
	case d.settled():
		return VirtualService(d.rollout, *managed, out)
	}
	return d.carryRoutes(managed, out)
}

// takenAway tells whether out lacks a driven route that is there.
func (d driver) takenAway(managed *v1.ManagedVirtualService, out *unstructured.Unstructured) *Problem {
	var gone []string
	list := drivenList(d.rollout)
	for _, route := range drivenRoutes(d.rollout, managed) {
		there := managed.Created || (d.found != nil && indexOfRoute(list.of(d.found), route.Key) >= 0)
		if there && indexOfRoute(list.of(out), route.Key) < 0 {
			gone = append(gone, route.Key)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return &Problem{v1.ReasonRouteNotFound, fmt.Sprintf(
		"Rollout %s drives its route %s (a route is known by its name, one without a name by its match): keep it, or delete the Rollout first",
		d.rollout.Name, strings.Join(gone, ", "))}
}

// carryRoutes takes the destinations and mirrors of the driven routes, and the copies before them, from the found object.
func (d driver) carryRoutes(managed *v1.ManagedVirtualService, out *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	stable, kind := atStable(d.rollout), drivenList(d.rollout)
	list, found := withoutCopies(kind.of(out), d.rollout.Name), kind.of(d.found)
	for _, driven := range drivenRoutes(d.rollout, managed) {
		at := indexOfRoute(list, driven.Key)
		if at < 0 {
			continue // gone before: the Rollout says that it misses it
		}
		route := asObject(list[at])
		from := d.standing(found, driven.Key)
		if from < 0 {
			renderRoute(stable, driven, route) // it is back
			continue
		}
		source := clone(asObject(found[from]))
		for _, field := range append([]string{"route", "mirrors"}, mirrorFields...) {
			delete(route, field)
			if value, given := source[field]; given {
				route[field] = value
			}
		}
	}
	if kind != httpList {
		kind.set(out, list)
		return out, nil
	}
	list, problem := d.carryCopies(list)
	setRoutes(out, list)
	return out, problem
}

// carryCopies puts the copies that the found object has for the Rollout before the same routes of a list.
func (d driver) carryCopies(list []any) ([]any, *Problem) {
	var copies []any
	for _, entry := range routesOf(d.found) {
		route, ok := entry.(object)
		if !ok {
			continue
		}
		kind, owner := inserted(route)
		switch {
		case kind != "" && owner == d.rollout.Name:
			copies = append(copies, any(clone(route)))
		case kind == "" && len(copies) > 0:
			at := indexOfRoute(list, routeKey(route))
			if at < 0 {
				return nil, &Problem{v1.ReasonRouteNotFound, fmt.Sprintf(
					"Rollout %s has inserted %s before its route %s: keep that route until the step is over",
					d.rollout.Name, text(asObject(copies[0]), "name"), routeKey(route))}
			}
			list, copies = insertCopies(list, at, copies), nil
		}
	}
	return list, nil
}

// rebaseFault gives the routes of out the copies of a fault that stands on another Rollout's or nobody's VirtualService.
func (d driver) rebaseFault(out *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	switch {
	case !carries(d.rollout, out.GetName()), d.found == nil:
		return out, nil // the Rollout inserts what is missing
	case d.settled():
		rendered, problem := FaultVirtualService(d.rollout, d.rollout.Status.FaultVirtualService, out)
		if problem == nil && rendered == nil {
			return out, nil // one that was made for a fault and is somebody's now
		}
		return rendered, problem
	}
	if managedOf(d.rollout, out.GetName()) != nil && drivenList(d.rollout) == httpList {
		return out, nil // its copies were carried with the routes
	}
	list, problem := d.carryCopies(withoutCopies(routesOf(out), d.rollout.Name))
	setRoutes(out, list)
	return out, problem
}

// rebaseRule gives out, which it may change, the subsets that the Rollout needs.
func (d driver) rebaseRule(out *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	if d.found == nil {
		return DestinationRule(d.rollout, out, nil)
	}
	settled := false
	if rendered, problem := DestinationRule(d.rollout, d.found, nil); problem == nil {
		settled = sameJSON(rendered.Object, d.found.Object)
	}
	d.carrySubsets(out, !settled)
	rendered, problem := DestinationRule(d.rollout, out, nil)
	if problem != nil || settled {
		return rendered, problem
	}
	spec, found := specOf(out), specOf(d.found.DeepCopy())
	for field, value := range specOf(rendered) {
		if field == "subsets" || sameJSON(spec[field], value) {
			continue
		}
		delete(spec, field)
		if value, given := found[field]; given {
			spec[field] = value
		}
	}
	return out, nil
}

// KeepNamed gives a rule, which it may change, the found rule's subsets that it lacks and that routes still name: a subset leaves
// after its last route, whoever takes it out.
func KeepNamed(found, rule *unstructured.Unstructured, virtualServices []*unstructured.Unstructured) {
	host, namespace := text(child(found.Object, "spec"), "host"), found.GetNamespace()
	if HostKey(host, namespace) != HostKey(text(specOf(rule), "host"), namespace) {
		return
	}
	names := References(virtualServices, namespace, host)
	for _, entry := range objects(child(found.Object, "spec")["subsets"]) {
		if names[text(entry, "name")] {
			spec := specOf(rule)
			list, _ := spec["subsets"].([]any)
			if !slices.ContainsFunc(list, func(o any) bool { return text(asObject(o), "name") == text(entry, "name") }) {
				spec["subsets"] = append(list, any(clone(entry)))
			}
		}
	}
}

// carrySubsets adds the found subsets that status lists and out lacks. exactly: those that out has are as found as well.
func (d driver) carrySubsets(out *unstructured.Unstructured, exactly bool) {
	spec := specOf(out)
	list, _ := spec["subsets"].([]any)
	for _, entry := range objects(child(d.found.Object, "spec")["subsets"]) {
		name := text(entry, "name")
		if !slices.ContainsFunc(d.rollout.Status.Subsets, func(s v1.Subset) bool { return s.Name == name }) {
			continue
		}
		at := slices.IndexFunc(list, func(o any) bool { return text(asObject(o), "name") == name })
		switch {
		case at < 0:
			list = append(list, clone(entry))
		case exactly:
			list[at] = clone(entry)
		}
	}
	if len(list) > 0 {
		spec["subsets"] = list
	}
}
