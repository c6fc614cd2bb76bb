package mesh

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// candidate is a route of a VirtualService that may be driven.
type candidate struct {
	vs, key string
	route   object
	// own and all count the destinations on the host, and all of them.
	own, all int
	// explicit: spec.virtualServices names the routes of this VirtualService. chosen: it names this one.
	explicit, chosen bool
	// hidden by another route of the same name, or without names of the same match, that comes before it.
	hidden bool
}

// managed is the route in the form in which it was found.
func (c *candidate) managed(r *v1.Rollout) v1.ManagedRoute {
	only := objects(c.route["route"])[0]
	_, weighted := only["weight"]
	route := v1.ManagedRoute{Key: c.key, Subset: text(child(only, "destination"), "subset"), Weighted: weighted}
	key := hostOf(only, r.Namespace)
	route.Port = versionsPort(r, only)
	if key != HostKey(r.Spec.Host, r.Namespace) || (route.Port != 0 && route.Subset == "") {
		route.Host = key
	}
	return route
}

// fits tells whether a route can be driven. One that can not is skipped, unless the spec asks for it: then that is a problem.
func (s *surveyor) fits(c candidate) bool {
	const hidden = "another route of this name or match comes before it"
	host := s.rollout.Spec.Host
	switch {
	case c.explicit && !c.chosen:
		s.skip(c, "spec.virtualServices does not name it")
	case c.own == 0:
		s.misses("route %s of VirtualService %s, which spec.virtualServices names, does not send to %s: name one that does", c.key, c.vs, host)
	case c.hidden && c.chosen:
		s.misses("route %s of VirtualService %s can not be told apart: %s; give it a name of its own", c.key, c.vs, hidden)
	case c.hidden:
		s.skip(c, hidden)
	case c.own < c.all && c.chosen:
		if !s.inMidRun() {
			s.fail(v1.ReasonMixedRoute, "route %s of VirtualService %s, which spec.virtualServices names, has destinations on several hosts: "+
				"give %s a route of its own, or do not name this one", c.key, c.vs, host)
		}
	case c.own < c.all:
		s.skip(c, "has destinations on several hosts")
	case c.own > 1:
		s.found.SplitRoutes = true
		if c.chosen {
			return true
		}
		s.skip(c, "splits already")
	default:
		return true
	}
	return false
}

// skipPinned notes a route that is not managed and yet names a subset of the host: it is led nowhere else when that leaves.
func (s *surveyor) skipPinned(c candidate) {
	for _, d := range objects(c.route["route"]) {
		subset := text(child(d, "destination"), "subset")
		if subset != "" && hostOf(d, s.rollout.Namespace) == s.host && !s.leaves(c.vs) {
			s.skip(c, fmt.Sprintf("pins subset %s, and spec.virtualServices does not name it", subset))
			return
		}
	}
}

func (s *surveyor) skip(c candidate, why string) {
	s.found.SkippedRoutes = append(s.found.SkippedRoutes, fmt.Sprintf("%s/%s: %s", c.vs, c.key, why))
}

// misses notes a route that the spec asks for in vain.
func (s *surveyor) misses(format string, args ...any) {
	if !s.inMidRun() {
		s.fail(v1.ReasonRouteNotFound, format, args...)
	}
}

// pick tells whether any of the selectors picks a route, and notes which do.
func (s *surveyor) pick(selectors []v1.RouteSelector, c candidate) bool {
	any := false
	for i := range selectors {
		if picks(&selectors[i], c) {
			s.picked[&selectors[i]], any = true, true
		}
	}
	return any
}

func picks(selector *v1.RouteSelector, c candidate) bool {
	blocks := objects(c.route["match"])
	switch {
	case selector.Name != "":
		return text(c.route, "name") == selector.Name
	case len(selector.Match) > 0:
		return sameBlocks(rawMatches(selector.Match), blocks)
	case selector.Port != 0:
		return c.own > 0 && len(blocks) > 0 && !slices.ContainsFunc(blocks, func(block object) bool {
			port, given := number(block["port"])
			return !given || port != int64(selector.Port)
		})
	}
	return false
}

// sameBlocks tells whether two lists hold the same match blocks, in any order.
func sameBlocks(asked, found []object) bool {
	rest := slices.Clone(found)
	for _, a := range asked {
		at := slices.IndexFunc(rest, func(b object) bool { return sameJSON(plainBlock(a), plainBlock(b)) })
		if at < 0 {
			return false
		}
		rest = slices.Delete(rest, at, at+1)
	}
	return len(rest) == 0
}

// plainBlock leaves out what says no more than its absence does.
func plainBlock(block object) object {
	block = normal(block)
	if !isSet(block, "ignoreUriCase") {
		delete(block, "ignoreUriCase")
	}
	return block
}

// describe a selector as it stands in the spec.
func describe(selector *v1.RouteSelector) string {
	switch {
	case selector.Name != "":
		return "name " + selector.Name
	case selector.Port != 0:
		return fmt.Sprintf("port %d", selector.Port)
	}
	return "match " + string(v1.CanonicalJSON(selector.Match))
}

// checkSelection: what spec.virtualServices names is there, or is to be made. What is driven already and gone is the
// rendering's to tell.
func (s *surveyor) checkSelection(all []*unstructured.Unstructured) {
	if s.inMidRun() {
		return
	}
	entries := s.rollout.Spec.VirtualServices
	found := func(name string) *unstructured.Unstructured {
		if i := slices.IndexFunc(all, func(vs *unstructured.Unstructured) bool { return vs.GetName() == name }); i >= 0 {
			return all[i]
		}
		return nil
	}
	var missing []string
	for i := range entries {
		name := entries[i].Name
		switch {
		case name == "" || s.drives(name) || entries[i].Describes():
		case found(name) == nil:
			missing = append(missing, name)
		case len(entries[i].Routes) == 0 && !slices.Contains(s.routing, name):
			s.taken(found(name))
		}
	}
	switch {
	case s.makesFirst() && len(entries) < 2:
		s.checkShadow(all)
		s.checkCreation(found)
		return
	case len(missing) > 0:
		s.fail(v1.ReasonVirtualServiceNotFound, "%s", s.describeMissing(missing))
	}
	s.checkSelectors()
}

// makesFirst tells whether nothing routes to the host, or is to, but what leaves.
func (s *surveyor) makesFirst() bool {
	remains := func(name string) bool { return !s.leaves(name) }
	driven := slices.ContainsFunc(s.rollout.Status.VirtualServices, func(vs v1.ManagedVirtualService) bool { return remains(vs.Name) })
	return !driven && len(s.found.Described) == 0 && !slices.ContainsFunc(s.routing, remains)
}

func (s *surveyor) describeMissing(missing []string) string {
	message := fmt.Sprintf("spec.virtualServices names %s, which is not there", strings.Join(missing, ", "))
	if len(s.routing) == 0 {
		return message + ": create it, or name one only, which Sluice then makes, or describe it (gateways: [mesh])"
	}
	return fmt.Sprintf("%s, and %s routes to %s: create it, or name what is there", message, strings.Join(s.routing, ", "), s.rollout.Spec.Host)
}

// checkShadow: a VirtualService for the host alone would take the place of one for a wildcard, whose routes may send elsewhere.
func (s *surveyor) checkShadow(all []*unstructured.Unstructured) {
	if message := hides(all, s.rollout.Spec.Host, s.rollout.Namespace); message != "" {
		s.conflict("%s", message)
	}
}

// hides says what a VirtualService for a host alone would take the place of in the mesh; empty: of nothing.
func hides(all []*unstructured.Unstructured, host, namespace string) string {
	key := HostKey(host, namespace)
	for _, vs := range all {
		at := slices.IndexFunc(boundHosts(vs, namespace), func(bound string) bool { return covers(bound, key) })
		if at >= 0 && carriesMesh(vs, namespace) {
			return fmt.Sprintf("VirtualService %s binds %s for the mesh: one for %s alone, which Sluice would make, would take its place; write one for %s with the routes that it is to have",
				vs.GetName(), boundHosts(vs, namespace)[at], host, host)
		}
	}
	return ""
}

// taken says that the name of a VirtualService to be made is another one's, and whose.
func (s *surveyor) taken(vs *unstructured.Unstructured) {
	const shown = 3
	hosts := boundHosts(vs, s.rollout.Namespace)
	s.conflict("VirtualService %s is there already, for another host (%s, not %s): give spec.virtualServices another name",
		vs.GetName(), strings.Join(hosts[:min(len(hosts), shown)], ", "), HostKey(s.rollout.Spec.Host, s.rollout.Namespace))
}

// checkCreation: a VirtualService is to be made, whose name is free, and which has the route that the spec names.
func (s *surveyor) checkCreation(found func(string) *unstructured.Unstructured) {
	name := s.rollout.Name
	var selectors []v1.RouteSelector
	if entries := s.rollout.Spec.VirtualServices; len(entries) > 0 {
		selectors = entries[0].Routes
		if entries[0].Name != "" {
			name = entries[0].Name
		}
	}
	if vs := found(name); vs != nil {
		s.taken(vs)
	}
	made := s.list.routes(createdVirtualService(s.rollout, name))[0]
	for i := range selectors {
		if !picks(&selectors[i], candidate{route: made, own: 1}) {
			s.misses("there is no VirtualService %s, and the one that Sluice would make has the route %s only, none of %s: create it, or leave out routes",
				name, routeKey(made), describe(&selectors[i]))
		}
	}
}

// checkSelectors: each of them picks a route.
func (s *surveyor) checkSelectors() {
	entries := s.rollout.Spec.VirtualServices
	for i := range entries {
		where := "VirtualService " + entries[i].Name
		if entries[i].Name == "" {
			where = "no VirtualService that routes to " + s.rollout.Spec.Host
		}
		for j := range entries[i].Routes {
			selector := &entries[i].Routes[j]
			switch {
			case s.picked[selector]:
			case entries[i].Name == "":
				s.misses("%s has a route of %s, which spec.virtualServices names: correct one of the two", where, describe(selector))
			default:
				s.misses("%s has no route to %s of %s, which spec.virtualServices names: correct one of the two", where, s.rollout.Spec.Host, describe(selector))
			}
		}
	}
}
