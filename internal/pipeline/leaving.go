package pipeline

import (
	"fmt"
	"slices"

	v1 "sluice.dev/sluice/api/v1"
)

// leaves tells whether a driven VirtualService is one of Sluice's making that the spec names no more.
func (d *draft) leaves(vs v1.ManagedVirtualService) bool {
	_, named := d.rollout.Manages(vs.Name)
	return vs.Created && !named
}

// unreplaced tells whether all that is driven leaves, so that something has to be driven in its place.
func (d *draft) unreplaced() bool {
	return !slices.ContainsFunc(d.status.VirtualServices, func(vs v1.ManagedVirtualService) bool { return !d.leaves(vs) })
}

// forgetLeft drops the VirtualServices that went.
func (d *draft) forgetLeft() {
	d.status.VirtualServices = slices.DeleteFunc(d.status.VirtualServices, func(vs v1.ManagedVirtualService) bool {
		gone := d.leaves(vs) && slices.Contains(d.in.Mesh.Left, vs.Name)
		if gone {
			d.event(false, "VirtualServiceRemoved", "VirtualService %s is gone: spec.virtualServices names it no more", vs.Name)
		}
		return gone
	})
}

// goes names a VirtualService that is about to be deleted; empty: none is.
func (d *draft) goes() string {
	for _, vs := range d.status.VirtualServices {
		if why, there := d.in.Mesh.Leaving[vs.Name]; there && why == "" {
			return vs.Name
		}
	}
	return ""
}

// kept lists, for status.skippedRoutes, the VirtualServices that the spec names no more and that have to stay.
func (d *draft) kept() []string {
	var kept []string
	for _, vs := range d.status.VirtualServices {
		if why := d.in.Mesh.Leaving[vs.Name]; why != "" {
			kept = append(kept, fmt.Sprintf("%s: spec.virtualServices names it no more, and it stays, driven: %s", vs.Name, why))
		}
	}
	return kept
}

// tellKept tells, once each, of what has to stay.
func (d *draft) tellKept() {
	for _, kept := range d.kept() {
		if !slices.Contains(d.rollout.Status.SkippedRoutes, kept) {
			d.event(true, "VirtualServiceKept", "VirtualService %s; name or describe it again, or delete it by hand", kept)
		}
	}
}

// letGo takes the adopted routes that the spec names no more out of what is driven, at rest. One that was found without a subset
// gets that form back if stable alone is ready; any other goes on leading to stable, as after a deletion. It tells whether
// something is to be written for that.
func (d *draft) letGo() bool {
	if d.in.Mesh.SurveyProblem != nil || d.in.Mesh.WriteProblem != nil || d.in.Written == nil {
		return false
	}
	writes := false
	var rest []v1.ManagedVirtualService
	for _, vs := range d.status.VirtualServices {
		var routes []v1.ManagedRoute
		for _, route := range vs.Routes {
			before, stays := route.Leaving, d.keepsRoute(vs.Name, &route)
			if writes = writes || before != route.Leaving; stays {
				routes = append(routes, route)
			}
		}
		if len(vs.Routes) == 0 || len(routes) > 0 {
			vs.Routes = routes
			rest = append(rest, vs)
		}
	}
	d.status.VirtualServices = rest
	if writes {
		d.in.Written = nil // what was known is of the routes as they were
	}
	return writes
}

// keepsRoute tells whether a route is driven on: while the spec names it, or until it has the form back in which it was found.
func (d *draft) keepsRoute(vs string, route *v1.ManagedRoute) bool {
	name := vs + "/" + route.Key
	switch plain := route.Subset == "" && route.Host == ""; {
	case !slices.Contains(d.in.Mesh.Dropped, name):
		route.Leaving = false
		return true
	case route.Leaving:
		return false
	case plain && d.in.Alone:
		route.Leaving = true
		d.event(false, "RouteReleased", "route %s is driven no more, since spec.virtualServices does not name it: it leads to all of %s again, as it was found",
			name, d.rollout.Spec.Host)
		return true
	}
	d.event(true, "RouteReleased", "route %s is driven no more, since spec.virtualServices does not name it, and goes on leading to %s alone: "+
		"name it again, or point it elsewhere before %s is taken away", name, d.status.Stable, d.status.Stable)
	return false
}

// orMade adds the VirtualService that Sluice makes where nothing else is driven.
func (d *draft) orMade(managed []v1.ManagedVirtualService) []v1.ManagedVirtualService {
	if slices.ContainsFunc(managed, func(vs v1.ManagedVirtualService) bool { return !d.leaves(vs) }) {
		return managed
	}
	return append(managed, v1.ManagedVirtualService{Name: d.createdName(), Created: true})
}
