package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// meshGateway stands for all sidecars.
const meshGateway = "mesh"

// Surveyed is what of a namespace concerns a Rollout's host.
type Surveyed struct {
	// VirtualServices that route to the host, with the routes that could be driven: every destination is this host, and there is one.
	VirtualServices []v1.ManagedVirtualService
	// Described are the VirtualServices that spec.virtualServices describes, which Sluice makes.
	Described []v1.ManagedVirtualService
	// DestinationRule for the host; nil: none.
	DestinationRule *v1.ManagedDestinationRule
	// Subsets of that rule.
	Subsets []v1.Subset
	// SkippedRoutes route to the host but can not be driven, as "VirtualService/key: why".
	SkippedRoutes []string
	// SplitRoutes: a route to the host alone has several destinations.
	SplitRoutes bool
	// PinnedSubsets are named by routes or mirrors that the Rollout does not drive, in order of their names.
	PinnedSubsets []string
	// Leaving are the driven VirtualServices of Sluice's making that the spec names no more, with the reason for which one has to stay,
	// empty: none. Left are those that are not there any more.
	Leaving map[string]string
	Left    []string
	// Dropped are the driven routes of adopted VirtualServices that the spec names no more, as "VirtualService/key".
	Dropped []string
	// Problem forbids driving the host.
	Problem *Problem
}

// Survey looks for what routes to the Rollout's host, and for what stands in the way of driving it. In mid-run the managed set is
// fixed: what the Rollout drives already is no obstacle to it, however its routes split or whether they are gone at the moment,
// but a second object for the host is.
func Survey(r *v1.Rollout, virtualServices, destinationRules []*unstructured.Unstructured) Surveyed {
	s := surveyor{rollout: r, host: HostKey(r.Spec.Host, r.Namespace), keys: r.HostKeys(), list: drivenList(r), picked: map[*v1.RouteSelector]bool{}}
	s.found.Described = described(r)
	services := byName(virtualServices)
	for _, vs := range services {
		s.virtualService(vs)
	}
	s.checkDescribed(services)
	s.noteLeaving(services)
	s.checkSelection(services)
	s.checkBindings(services)
	s.found.PinnedSubsets = pinnedSubsets(r, services)
	s.rules(byName(destinationRules))
	return s.found
}

type surveyor struct {
	rollout *v1.Rollout
	host    string
	// keys are that host's, and those of the hosts that versions have of their own.
	keys  []string
	found Surveyed
	// list is where the Rollout drives routes.
	list routeList
	// routing are the VirtualServices with a route of that list to the host, to be managed or not.
	routing []string
	// picked are the selectors of spec.virtualServices that picked a route.
	picked map[*v1.RouteSelector]bool
}

func byName(list []*unstructured.Unstructured) []*unstructured.Unstructured {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b *unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	return sorted
}

func (s *surveyor) conflict(format string, args ...any) {
	s.fail(v1.ReasonHostConflict, format, args...)
}

// fail notes the first problem.
func (s *surveyor) fail(reason, format string, args ...any) {
	if s.found.Problem == nil {
		s.found.Problem = &Problem{reason, fmt.Sprintf(format, args...)}
	}
}

// inMidRun: the managed set is fixed then, and what the spec selects matters to the next run.
func (s *surveyor) inMidRun() bool { return s.rollout.Status.Run != nil }

// drives tells whether the Rollout drives a VirtualService of a name already.
func (s *surveyor) drives(name string) bool {
	return slices.ContainsFunc(s.rollout.Status.VirtualServices, func(vs v1.ManagedVirtualService) bool { return vs.Name == name })
}

// virtualService notes one VirtualService if any of its routes that speak the Rollout's protocol goes to the host.
func (s *surveyor) virtualService(vs *unstructured.Unstructured) {
	if owner := madeForFault(vs, s.rollout.Spec.Host, s.rollout.Namespace); owner != "" {
		s.conflict("VirtualService %s was made for the fault of Rollout %s on %s and goes with it: wait until that is over", vs.GetName(), owner, s.rollout.Spec.Host)
	}
	selectors, wanted := s.rollout.Manages(vs.GetName())
	routesHere := false
	seen := map[string]bool{}
	managed := v1.ManagedVirtualService{Name: vs.GetName()}
	for _, route := range s.list.routes(vs) {
		if kind, _ := inserted(route); kind != "" {
			continue
		}
		c := candidate{vs: vs.GetName(), key: routeKey(route), route: route, explicit: len(selectors) > 0}
		c.own, c.all = s.destinations(vs, route)
		c.chosen, c.hidden = s.pick(selectors, c), seen[c.key]
		seen[c.key] = true
		routesHere = routesHere || c.own > 0
		s.noteDropped(c, wanted)
		switch {
		case !wanted:
			s.skipPinned(c)
		case (c.own > 0 || c.chosen) && s.fits(c):
			route := c.managed(s.rollout)
			route.Namesakes = int32(max(0, namesakes(s.list.of(vs), c.key)-1))
			managed.Routes = append(managed.Routes, route)
		}
	}
	if routesHere {
		s.routing = append(s.routing, vs.GetName())
	}
	if routesHere && wanted {
		s.found.VirtualServices = append(s.found.VirtualServices, managed)
	}
	if wanted {
		s.skipOtherLists(vs)
	}
}

// skipOtherLists notes the routes to the host that speak another protocol than the Rollout.
func (s *surveyor) skipOtherLists(vs *unstructured.Unstructured) {
	for _, list := range routeLists {
		if list == s.list {
			continue
		}
		for _, route := range list.routes(vs) {
			kind, _ := inserted(route)
			if own, _ := s.destinations(vs, route); own > 0 && kind == "" {
				s.skip(candidate{vs: vs.GetName(), key: routeKey(route)}, fmt.Sprintf("stands under %s, protocol %s drives routes under %s", list, s.list.protocol(), s.list))
			}
		}
	}
}

// destinations counts those on the Rollout's hosts and all of a route. In a VirtualService that binds a version's own host and not
// the Rollout's the routes to that host are not the Rollout's: they are for who asks for that version by its name.
func (s *surveyor) destinations(vs *unstructured.Unstructured, route object) (own, all int) {
	bound := boundHosts(vs, s.rollout.Namespace)
	for _, d := range objects(route["route"]) {
		all++
		key := hostOf(d, s.rollout.Namespace)
		if key == s.host || (slices.Contains(s.keys, key) && (slices.Contains(bound, s.host) || !slices.Contains(bound, key))) {
			own++
		}
	}
	return own, all
}

// rules finds the one DestinationRule of the host, and looks for what is in the way of one that is to be made.
func (s *surveyor) rules(all []*unstructured.Unstructured) {
	var names []string
	for _, rule := range all {
		if s.ruleHost(rule) == s.host {
			names = append(names, rule.GetName())
			s.found.DestinationRule = &v1.ManagedDestinationRule{Name: rule.GetName()}
			s.found.Subsets = subsetsOf(rule)
		}
	}
	wanted, named := s.wantedRule()
	switch {
	case len(names) > 1:
		s.conflict("DestinationRules %s are all for host %s: keep one", strings.Join(names, ", "), s.rollout.Spec.Host)
	case len(names) == 1 && named && names[0] != wanted:
		s.conflict("DestinationRule %s is for host %s, but spec.destinationRule names %s: name the one that is there", names[0], s.rollout.Spec.Host, wanted)
	case len(names) == 0 && needsRule(s.rollout):
		s.checkMadeRule(all, wanted)
	}
}

// ruleHost is the key of the host that a DestinationRule is for.
func (s *surveyor) ruleHost(rule *unstructured.Unstructured) string {
	return HostKey(text(child(rule.Object, "spec"), "host"), s.rollout.Namespace)
}

// wantedRule is the name of a rule that would be made, and whether the spec gives it.
func (s *surveyor) wantedRule() (name string, named bool) {
	if rule := s.rollout.Spec.DestinationRule; rule != nil && rule.Name != "" {
		return rule.Name, true
	}
	if driven := s.rollout.Status.DestinationRule; driven != nil {
		return driven.Name, false // the one that would be made again
	}
	return s.rollout.Name, false
}

// checkMadeRule: a rule of this name can be made, and takes no other's place.
func (s *surveyor) checkMadeRule(all []*unstructured.Unstructured, wanted string) {
	for _, rule := range all {
		if covers(s.ruleHost(rule), s.host) && !s.inMidRun() {
			s.conflict("DestinationRule %s is for %s: one for %s alone, which Sluice would make for its subsets, would take its place and lose its policy; write one for %s with the policy that it is to have",
				rule.GetName(), text(child(rule.Object, "spec"), "host"), s.rollout.Spec.Host, s.rollout.Spec.Host)
			return
		}
	}
	if slices.ContainsFunc(all, func(rule *unstructured.Unstructured) bool { return rule.GetName() == wanted }) {
		s.conflict("DestinationRule %s is there already, for another host: give spec.destinationRule another name", wanted)
	}
}

func subsetsOf(rule *unstructured.Unstructured) []v1.Subset {
	var subsets []v1.Subset
	for _, entry := range objects(child(rule.Object, "spec")["subsets"]) {
		subset := v1.Subset{Name: text(entry, "name")}
		for key, value := range child(entry, "labels") {
			if s, ok := value.(string); ok {
				if subset.Labels == nil {
					subset.Labels = map[string]string{}
				}
				subset.Labels[key] = s
			}
		}
		subsets = append(subsets, subset)
	}
	return subsets
}

func sortedKeys(set map[string]bool) []string {
	keys := make([]string, 0, len(set))
	for k := range set {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// pinnedSubsets are the host's subsets that routes name which the Rollout neither drives nor inserted.
func pinnedSubsets(r *v1.Rollout, services []*unstructured.Unstructured) []string {
	var rest []*unstructured.Unstructured
	for _, vs := range services {
		at := slices.IndexFunc(r.Status.VirtualServices, func(m v1.ManagedVirtualService) bool { return m.Name == vs.GetName() })
		if at < 0 {
			rest = append(rest, vs)
			continue
		}
		spec := maps.Clone(child(vs.Object, "spec"))
		if spec == nil {
			continue
		}
		spec["http"] = withoutCopies(routesOf(vs), r.Name)
		driven := string(drivenList(r))
		entries, _ := spec[driven].([]any)
		spec[driven] = slices.DeleteFunc(slices.Clone(entries), func(entry any) bool {
			return drivesRoute(r, r.Status.VirtualServices[at], routeKey(asObject(entry)))
		})
		rest = append(rest, &unstructured.Unstructured{Object: object{"spec": spec}})
	}
	return slices.Sorted(maps.Keys(References(rest, r.Namespace, r.Spec.Host)))
}

func drivesRoute(r *v1.Rollout, vs v1.ManagedVirtualService, key string) bool {
	return slices.ContainsFunc(drivenRoutes(r, &vs), func(route v1.ManagedRoute) bool { return route.Key == key })
}

// References are the subsets of a host that any route or mirror of the VirtualServices names.
func References(virtualServices []*unstructured.Unstructured, namespace, host string) map[string]bool {
	named := map[string]bool{}
	key := HostKey(host, namespace)
	note := func(destination object) {
		if subset := text(destination, "subset"); subset != "" && HostKey(text(destination, "host"), namespace) == key {
			named[subset] = true
		}
	}
	for _, vs := range virtualServices {
		spec := child(vs.Object, "spec")
		for _, kind := range routeLists {
			for _, route := range objects(spec[string(kind)]) {
				for _, list := range []string{"route", "mirrors"} {
					for _, d := range objects(route[list]) {
						note(child(d, "destination"))
					}
				}
				note(child(route, "mirror"))
			}
		}
	}
	return named
}
