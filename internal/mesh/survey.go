package mesh

import (
	"fmt"
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
	// DestinationRule for the host; nil: none.
	DestinationRule *v1.ManagedDestinationRule
	// Subsets of that rule.
	Subsets []v1.Subset
	// SkippedRoutes route to the host but can not be driven, as "VirtualService/key: why".
	SkippedRoutes []string
	// SplitRoutes: a route to the host alone has several destinations.
	SplitRoutes bool
	// Problem forbids driving the host.
	Problem *Problem
}

// Survey looks for what routes to the Rollout's host. In mid-run it holds as well: what the Rollout drives already is no
// obstacle to it, however its routes split or whether they are gone at the moment, but a second object for the host is.
func Survey(r *v1.Rollout, virtualServices, destinationRules []*unstructured.Unstructured) Surveyed {
	s := surveyor{rollout: r, host: HostKey(r.Spec.Host, r.Namespace)}
	for _, vs := range byName(virtualServices) {
		s.virtualService(vs)
	}
	s.checkVirtualServices(virtualServices)
	s.rules(byName(destinationRules))
	return s.found
}

type surveyor struct {
	rollout *v1.Rollout
	host    string
	found   Surveyed
	// claimants are VirtualServices that bind the host's name for sidecars, whether they route to it or not.
	claimants []string
}

func byName(list []*unstructured.Unstructured) []*unstructured.Unstructured {
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b *unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	return sorted
}

func (s *surveyor) problem(format string, args ...any) {
	if s.found.Problem == nil {
		s.found.Problem = &Problem{v1.ReasonHostConflict, fmt.Sprintf(format, args...)}
	}
}

// virtualService notes one VirtualService if any of its HTTP routes goes to the host.
func (s *surveyor) virtualService(vs *unstructured.Unstructured) {
	if owner := madeForFault(vs, s.rollout.Spec.Host, s.rollout.Namespace); owner != "" {
		s.problem("VirtualService %s was made for the fault of Rollout %s on %s and goes with it: wait until that is over", vs.GetName(), owner, s.rollout.Spec.Host)
	}
	managed := v1.ManagedVirtualService{Name: vs.GetName()}
	routesHere := false
	seen := map[string]bool{}
	for _, route := range httpRoutes(vs) {
		own, all := s.destinations(route)
		if own == 0 {
			continue
		}
		if kind, _ := inserted(route); kind != "" {
			continue
		}
		routesHere = true
		key := routeKey(route)
		switch {
		case seen[key]:
			s.skip(vs, key, "another route of this name or match comes before it")
		case own < all:
			s.skip(vs, key, "has destinations on several hosts")
		case own > 1:
			s.found.SplitRoutes = true
			s.skip(vs, key, "splits already")
		default:
			managed.Routes = append(managed.Routes, candidate(route, key))
		}
		seen[key] = true
	}
	if routesHere {
		s.found.VirtualServices = append(s.found.VirtualServices, managed)
	}
	if s.claims(vs) {
		s.claimants = append(s.claimants, vs.GetName())
	}
}

func (s *surveyor) skip(vs *unstructured.Unstructured, key, why string) {
	s.found.SkippedRoutes = append(s.found.SkippedRoutes, fmt.Sprintf("%s/%s: %s", vs.GetName(), key, why))
}

// destinations counts those on the host and all of a route.
func (s *surveyor) destinations(route object) (own, all int) {
	for _, d := range objects(route["route"]) {
		all++
		if HostKey(text(child(d, "destination"), "host"), s.rollout.Namespace) == s.host {
			own++
		}
	}
	return own, all
}

func candidate(route object, key string) v1.ManagedRoute {
	only := objects(route["route"])[0]
	_, weighted := only["weight"]
	return v1.ManagedRoute{Key: key, Subset: text(child(only, "destination"), "subset"), Weighted: weighted}
}

// claims tells whether a VirtualService binds the host's own name for sidecars.
func (s *surveyor) claims(vs *unstructured.Unstructured) bool {
	hosts, _, err := unstructured.NestedStringSlice(vs.Object, "spec", "hosts")
	if err != nil {
		return false
	}
	gateways, given, err := unstructured.NestedStringSlice(vs.Object, "spec", "gateways")
	if err != nil || (given && len(gateways) > 0 && !slices.Contains(gateways, meshGateway)) {
		return false
	}
	return slices.ContainsFunc(hosts, func(h string) bool { return HostKey(h, s.rollout.Namespace) == s.host })
}

// checkVirtualServices finds what stands in the way of driving exactly one VirtualService.
func (s *surveyor) checkVirtualServices(all []*unstructured.Unstructured) {
	names := map[string]bool{}
	for _, vs := range s.found.VirtualServices {
		names[vs.Name] = true
	}
	for _, name := range s.claimants {
		names[name] = true
	}
	if len(names) > 1 {
		s.problem("VirtualServices %s all concern host %s: several do not work yet, keep one", strings.Join(sortedKeys(names), ", "), s.rollout.Spec.Host)
		return
	}
	driven := s.rollout.Status.VirtualServices
	drives := func(name string) bool {
		return slices.ContainsFunc(driven, func(vs v1.ManagedVirtualService) bool { return vs.Name == name })
	}
	if len(s.found.VirtualServices) == 0 && len(s.claimants) == 1 && !drives(s.claimants[0]) {
		s.problem("VirtualService %s binds host %s but has no HTTP route to it: add one, or remove it", s.claimants[0], s.rollout.Spec.Host)
		return
	}
	wanted := s.rollout.Name
	if named := s.rollout.Spec.VirtualServices; len(named) > 0 && named[0].Name != "" {
		wanted = named[0].Name
		if len(names) == 1 && !names[wanted] {
			s.problem("VirtualService %s routes to %s, but spec.virtualServices names %s: name the one that is there", sortedKeys(names)[0], s.rollout.Spec.Host, wanted)
			return
		}
	}
	taken := slices.ContainsFunc(all, func(vs *unstructured.Unstructured) bool { return vs.GetName() == wanted })
	if len(names) == 0 && taken && len(driven) == 0 {
		s.problem("VirtualService %s is there already, for another host: give spec.virtualServices another name", wanted)
	}
}

// rules finds the one DestinationRule of the host.
func (s *surveyor) rules(all []*unstructured.Unstructured) {
	var names []string
	taken := map[string]bool{}
	for _, rule := range all {
		taken[rule.GetName()] = true
		if HostKey(text(child(rule.Object, "spec"), "host"), s.rollout.Namespace) != s.host {
			continue
		}
		names = append(names, rule.GetName())
		s.found.DestinationRule = &v1.ManagedDestinationRule{Name: rule.GetName()}
		s.found.Subsets = subsetsOf(rule)
	}
	wanted := s.rollout.Name
	named := s.rollout.Spec.DestinationRule != nil && s.rollout.Spec.DestinationRule.Name != ""
	if named {
		wanted = s.rollout.Spec.DestinationRule.Name
	}
	if driven := s.rollout.Status.DestinationRule; driven != nil && !named {
		wanted = driven.Name // the one that would be made again
	}
	switch {
	case len(names) > 1:
		s.problem("DestinationRules %s are all for host %s: keep one", strings.Join(names, ", "), s.rollout.Spec.Host)
	case len(names) == 1 && named && names[0] != wanted:
		s.problem("DestinationRule %s is for host %s, but spec.destinationRule names %s: name the one that is there", names[0], s.rollout.Spec.Host, wanted)
	case len(names) == 0 && taken[wanted]:
		s.problem("DestinationRule %s is there already, for another host: give spec.destinationRule another name", wanted)
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
		for _, kind := range []string{"http", "tcp", "tls"} {
			for _, route := range objects(spec[kind]) {
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
