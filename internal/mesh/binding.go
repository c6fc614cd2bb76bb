package mesh

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// checkBindings: no VirtualService that is not managed binds the host's name on a gateway on which a managed one does: of two
// for the same host, sidecars obey one. Different gateways are no conflict.
func (s *surveyor) checkBindings(all []*unstructured.Unstructured) {
	managed := s.managedNames()
	var ours, others []*unstructured.Unstructured
	for _, vs := range all {
		if slices.Contains(managed, vs.GetName()) {
			ours = append(ours, vs)
		} else {
			others = append(others, vs)
		}
	}
	for _, other := range others {
		if !slices.Contains(boundHosts(other, s.rollout.Namespace), s.host) {
			continue
		}
		for _, gateway := range gatewaysOf(other, s.rollout.Namespace) {
			switch first := s.boundOn(gateway, ours); {
			case first != "":
				s.conflict("VirtualServices %s and %s both bind host %s on gateway %s, and %s is not managed: keep one of them, or manage both",
					first, other.GetName(), s.rollout.Spec.Host, gateway, other.GetName())
			case len(managed)+len(s.routing)+len(s.found.Described) == 0 && gateway == meshGateway: // where one is to be made
				s.conflict("VirtualService %s binds host %s but has no %s route to it: add one, or remove it", other.GetName(), s.rollout.Spec.Host, s.list.protocol())
			}
		}
	}
}

// managedNames are the VirtualServices that are driven; outside of a run also those that the next one would drive.
func (s *surveyor) managedNames() []string {
	var names []string
	for _, vs := range s.rollout.Status.VirtualServices {
		if _, named := s.rollout.Manages(vs.Name); named || vs.Created || s.inMidRun() {
			names = append(names, vs.Name)
		}
	}
	if s.inMidRun() {
		return names
	}
	for _, vs := range s.found.Described {
		names = append(names, vs.Name)
	}
	for _, vs := range s.found.VirtualServices {
		if s.manageable(vs) {
			names = append(names, vs.Name)
		}
	}
	return names
}

// manageable tells whether any route of a VirtualService would be managed: one that the spec names, or that sends to stable or
// names nothing but the host.
func (s *surveyor) manageable(vs v1.ManagedVirtualService) bool {
	selectors, _ := s.rollout.Manages(vs.Name)
	traffic := s.rollout.Status.Traffic
	return slices.ContainsFunc(vs.Routes, func(route v1.ManagedRoute) bool {
		plain := route.Subset == "" && route.Host == ""
		return len(selectors) > 0 || traffic == nil || plain || route.SendsTo(traffic.Stable, s.rollout.Namespace)
	})
}

// boundOn names the first of the VirtualServices that binds the host on a gateway, by its name or by a wildcard.
func (s *surveyor) boundOn(gateway string, services []*unstructured.Unstructured) string {
	for _, vs := range services {
		binds := slices.ContainsFunc(boundHosts(vs, s.rollout.Namespace), func(host string) bool {
			suffix, wild := strings.CutPrefix(host, "*")
			return host == s.host || (wild && strings.HasSuffix(s.host, suffix))
		})
		if binds && slices.Contains(gatewaysOf(vs, s.rollout.Namespace), gateway) {
			return vs.GetName()
		}
	}
	return ""
}

// boundHosts are a VirtualService's hosts in their full form; none for a delegate.
func boundHosts(vs *unstructured.Unstructured, namespace string) []string {
	hosts, _, err := unstructured.NestedStringSlice(vs.Object, "spec", "hosts")
	if err != nil {
		return nil
	}
	for i := range hosts {
		hosts[i] = HostKey(hosts[i], namespace)
	}
	return hosts
}

// gatewaysOf are a VirtualService's gateways in their full form: the mesh unless it names others; none if they can not be read.
func gatewaysOf(vs *unstructured.Unstructured, namespace string) []string {
	gateways, _, err := unstructured.NestedStringSlice(vs.Object, "spec", "gateways")
	if err != nil {
		return nil
	}
	if len(gateways) == 0 {
		return []string{meshGateway}
	}
	for i := range gateways {
		gateways[i] = gatewayKey(gateways[i], namespace)
	}
	return gateways
}

// servedGateways are those by which requests reach a VirtualService; nil for a delegate, which does not tell.
func servedGateways(vs *unstructured.Unstructured, namespace string) []string {
	if len(boundHosts(vs, namespace)) == 0 {
		return nil
	}
	return gatewaysOf(vs, namespace)
}

// here is what of a match is for requests by the VirtualService's gateways. A block that names others is about another VirtualService
// of the host, and no reason why the step could not be written.
func (c *copier) here(match v1.HTTPMatches) v1.HTTPMatches {
	var here v1.HTTPMatches
	for _, block := range match {
		serves := func(gateway string) bool {
			return slices.Contains(c.gateways, gatewayKey(gateway, c.rollout.Namespace))
		}
		if c.gateways == nil || len(block.Gateways) == 0 || slices.ContainsFunc(block.Gateways, serves) {
			here = append(here, block)
		}
	}
	return here
}
