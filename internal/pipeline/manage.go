package pipeline

import (
	"fmt"
	"slices"
	"strings"

	v1 "sluice.dev/sluice/api/v1"
)

// Of the bytes that status has, these are for the routes: those that are driven, and those that are left alone.
const (
	managedLimit = 6 * 1024
	skippedLimit = 3 * 1024
)

// selection is what of the mesh is to be driven.
type selection struct {
	managed []v1.ManagedVirtualService
	skipped []string
	// without names the VirtualServices none of whose routes is to be driven.
	without []string
}

// selectRoutes picks the routes to drive from those that were found: all that the spec names, else those that send to stable or
// name no subset. A route that was left alone because it pins a version stays so, also when that version becomes stable.
func (d *draft) selectRoutes() selection {
	var s selection
	var pins []string
	for _, found := range d.in.Mesh.VirtualServices {
		before, driven := managedByName(d.status.VirtualServices, found.Name)
		if d.describes(found.Name) {
			pins = append(pins, d.undescribed(found, before)...)
			continue
		}
		if driven && before.Created && before.Template == "" {
			s.managed = append(s.managed, before)
			continue
		}
		named, _ := d.rollout.Manages(found.Name)
		vs := v1.ManagedVirtualService{Name: found.Name}
		for _, route := range found.Routes {
			pin := fmt.Sprintf("%s/%s: pins %s", found.Name, route.Key, pinOf(route))
			if len(named) == 0 && !d.selects(route, pin) && !drivesRoute(before, route.Key) {
				pins = append(pins, pin)
				continue
			}
			vs.Routes = append(vs.Routes, sameForm(route, before))
		}
		if len(vs.Routes) == 0 {
			s.without = append(s.without, found.Name)
			continue
		}
		s.managed = append(s.managed, vs)
	}
	s.managed = d.withDescribed(s.managed)
	s.skipped = boundSkipped(slices.Concat(d.kept(), pins, d.in.Mesh.SkippedRoutes))
	return s
}

// boundSkipped keeps the first of a list, as many as status has room for.
func boundSkipped(list []string) []string {
	room := skippedLimit
	for i, entry := range list {
		if room -= len(entry); room < 0 {
			return append(list[:i:i], fmt.Sprintf("%s%d more", skippedRest, len(list)-i))
		}
	}
	return list
}

// skippedRest begins an entry that stands for those that status has no room for.
const skippedRest = "and "

// selects is the default: a route that sends to stable, unless it was left alone with that pin before, or that names no subset.
// Where the list of those has no room for all, each may have been.
func (d *draft) selects(route v1.ManagedRoute, pin string) bool {
	leftAlone := func(known string) bool { return known == pin || strings.HasPrefix(known, skippedRest) }
	if route.Subset == "" && route.Host == "" {
		return true
	}
	return route.SendsTo(d.status.Traffic.Stable, d.rollout.Namespace) && !slices.ContainsFunc(d.status.SkippedRoutes, leftAlone)
}

func pinOf(route v1.ManagedRoute) string {
	switch {
	case route.Host != "" && route.Port != 0:
		return fmt.Sprintf("destination %s port %d", route.Host, route.Port)
	case route.Host != "":
		return "destination " + route.Host
	}
	return "subset " + route.Subset
}

// sameForm keeps the form in which a route was found when it is driven already.
func sameForm(route v1.ManagedRoute, before v1.ManagedVirtualService) v1.ManagedRoute {
	for _, known := range before.Routes {
		if known.Key == route.Key {
			return known
		}
	}
	return route
}

func drivesRoute(vs v1.ManagedVirtualService, key string) bool {
	return slices.ContainsFunc(vs.Routes, func(route v1.ManagedRoute) bool { return route.Key == key })
}

// manage fixes the managed set; where nothing routes to the host it is a VirtualService of our own.
func (d *draft) manage() *Problem {
	s := d.selectRoutes()
	for _, name := range s.without {
		named := slices.ContainsFunc(d.rollout.Spec.VirtualServices, func(vs v1.VirtualService) bool { return vs.Name == name })
		if named || len(s.managed) == 0 {
			return &Problem{v1.ReasonRouteNotFound, fmt.Sprintf(
				"VirtualService %s has no route to manage: none sends all of %s to %s; name the routes to manage in spec.virtualServices",
				name, d.rollout.Spec.Host, d.status.Stable)}
		}
	}
	if size := len(v1.CanonicalJSON(s.managed)); size > managedLimit {
		return &Problem{v1.ReasonInvalidSpec, fmt.Sprintf(
			"the routes to %s that would be managed need %d bytes of status, which has %d for them: name fewer in spec.virtualServices",
			d.rollout.Spec.Host, size, managedLimit)}
	}
	s.managed = d.orMade(s.managed)
	d.status.VirtualServices, d.status.SkippedRoutes = s.managed, s.skipped
	d.status.DestinationRule = d.managedRule()
	return nil
}

// widen adds to the managed set what came to the host since it was fixed, and takes nothing away: a return takes that along, and
// waits for nothing.
func (d *draft) widen() {
	if d.in.Mesh.SurveyProblem != nil {
		return
	}
	s := d.selectRoutes()
	for _, found := range s.managed {
		at := slices.IndexFunc(d.status.VirtualServices, func(vs v1.ManagedVirtualService) bool { return vs.Name == found.Name })
		if at < 0 {
			d.status.VirtualServices = append(d.status.VirtualServices, found)
			continue
		}
		driven := &d.status.VirtualServices[at]
		for _, route := range found.Routes {
			if !driven.Created && !drivesRoute(*driven, route.Key) {
				driven.Routes = append(driven.Routes, route)
			}
		}
	}
}

// reselect fixes the managed set anew at rest, when something that was driven is gone and spec.virtualServices names what is to
// be managed without it. Where that is left to the default nothing takes its place: who renamed a route may have pinned it anew.
func (d *draft) reselect() bool {
	p := d.in.Mesh.WriteProblem
	gone := p != nil && (p.Reason == v1.ReasonRouteNotFound || p.Reason == v1.ReasonVirtualServiceNotFound)
	if !gone || d.in.Mesh.SurveyProblem != nil || !d.namesWithout() {
		return false
	}
	before := hash(d.status.VirtualServices)
	return d.manage() == nil && hash(d.status.VirtualServices) != before
}

// namesWithout tells whether the spec accounts for everything that is driven: its VirtualService is named no more, or its routes
// are named one by one, or are all there.
func (d *draft) namesWithout() bool {
	for _, driven := range d.status.VirtualServices {
		named, managed := d.rollout.Manages(driven.Name)
		if !managed || len(named) > 0 {
			continue
		}
		found, _ := managedByName(d.in.Mesh.VirtualServices, driven.Name)
		for _, route := range driven.Routes {
			if !drivesRoute(found, route.Key) {
				return false
			}
		}
	}
	return true
}

// noteSkipped keeps the list of what is left alone current at rest, where routes are as status says.
func (d *draft) noteSkipped() {
	if d.in.Written != nil && d.in.Mesh.SurveyProblem == nil {
		d.tellKept()
		d.status.SkippedRoutes = d.selectRoutes().skipped
	}
}

func (d *draft) createdName() string {
	if vs := d.rollout.Spec.VirtualServices; len(vs) > 0 && vs[0].Name != "" {
		return vs[0].Name
	}
	return d.rollout.Name
}

func (d *draft) managedRule() *v1.ManagedDestinationRule {
	if before := d.status.DestinationRule; before != nil {
		return before
	}
	if found := d.in.Mesh.DestinationRule; found != nil {
		return found
	}
	name := d.rollout.Name
	if dr := d.rollout.Spec.DestinationRule; dr != nil && dr.Name != "" {
		name = dr.Name
	}
	return &v1.ManagedDestinationRule{Name: name, Created: true}
}

func managedByName(list []v1.ManagedVirtualService, name string) (v1.ManagedVirtualService, bool) {
	i := slices.IndexFunc(list, func(vs v1.ManagedVirtualService) bool { return vs.Name == name })
	if i < 0 {
		return v1.ManagedVirtualService{}, false
	}
	return list[i], true
}
