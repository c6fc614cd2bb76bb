package lint

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
)

// checkCreated looks at the VirtualServices that the spec describes, which a run makes.
func (s *subject) checkCreated() {
	entries := s.rollout.Spec.VirtualServices
	inMesh := s.routedInMesh()
	for i := range entries {
		if entries[i].Describes() && bindsMesh(entries[i].Gateways) {
			inMesh = true
			s.checkHosts(entries[i].Hosts, at("spec.virtualServices", i))
		}
	}
	for i := range entries {
		if !inMesh && entries[i].Describes() {
			s.find(ruleIgnoredMesh, s.object, at("spec.virtualServices", i)+".gateways", "%s: the sidecars of callers inside the mesh ignore a VirtualService for gateways alone; add mesh, if they call %s",
				strings.Join(entries[i].Gateways, ", "), s.rollout.Spec.Host)
		}
	}
}

// bindsMesh tells whether sidecars look at a VirtualService with such gateways.
func bindsMesh(gateways []string) bool {
	return len(gateways) == 0 || slices.Contains(gateways, "mesh")
}

// routedInMesh tells whether a VirtualService that is there routes calls to the host inside the mesh.
func (s *subject) routedInMesh() bool {
	return slices.ContainsFunc(s.ofKind("VirtualService"), func(vs *unstructured.Unstructured) bool {
		gateways, _, err := unstructured.NestedStringSlice(vs.Object, "spec", "gateways")
		routes := slices.ContainsFunc(s.surveyed.VirtualServices, func(found v1.ManagedVirtualService) bool { return found.Name == vs.GetName() })
		return err == nil && routes && bindsMesh(gateways)
	})
}

// checkHosts finds an entry for sidecars that leaves out the Rollout's host.
func (s *subject) checkHosts(hosts []string, path string) {
	namespace, host := s.object.GetNamespace(), s.rollout.Spec.Host
	ours := func(h string) bool { return h == "*" || mesh.HostKey(h, namespace) == mesh.HostKey(host, namespace) }
	if len(hosts) > 0 && !slices.ContainsFunc(hosts, ours) {
		s.find(ruleIgnoredHosts, s.object, path+".hosts", "%s: sidecars obey it for these hosts alone, so that no call to %s is routed by it; add %s",
			strings.Join(hosts, ", "), host, host)
	}
}

// blocks of a TrafficPolicy without which a signal can not occur.
var signalBlock = map[v1.BreakerSignal]string{v1.SignalOverflow: "connectionPool", v1.SignalEjection: "outlierDetection"}

// checkBreaker finds signals that nothing in the mesh gives. Without a DestinationRule among the files it can not be told.
func (s *subject) checkBreaker() {
	breaker := s.rollout.Spec.Breaker
	if breaker == nil || s.surveyed.DestinationRule == nil {
		return
	}
	for i, signal := range breaker.Signals {
		if block := signalBlock[signal]; block != "" && !s.hasBlock(block) {
			s.find(ruleBreakerSignal, s.object, at("spec.breaker.signals", i), "%s can not occur: neither DestinationRule %s nor the Rollout gives %s a %s",
				signal, s.surveyed.DestinationRule.Name, s.rollout.Spec.Host, block)
		}
	}
}

// hasBlock tells whether any policy for the host, found or given by the Rollout, has a block.
func (s *subject) hasBlock(block string) bool {
	places := []any{s.object.Object["spec"]}
	for _, rule := range s.ofKind("DestinationRule") {
		if rule.GetName() == s.surveyed.DestinationRule.Name {
			places = append(places, rule.Object["spec"])
		}
	}
	return slices.ContainsFunc(places, func(place any) bool { return holds(place, block) })
}

// holds tells whether a field of a name is anywhere below a value.
func holds(value any, name string) bool {
	switch v := value.(type) {
	case map[string]any:
		for key, item := range v {
			if key == name || holds(item, name) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, func(item any) bool { return holds(item, name) })
	}
	return false
}
