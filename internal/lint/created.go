package lint

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
)

// checkCreated looks at the VirtualServices that a run would make, where none routes to the host.
func (s *subject) checkCreated() {
	entries, _, err := unstructured.NestedSlice(s.object.Object, "spec", "virtualServices")
	if err != nil || len(s.surveyed.VirtualServices) > 0 {
		return
	}
	for i, raw := range entries {
		entry, ok := raw.(map[string]any)
		if !ok {
			continue
		}
		path := at("spec.virtualServices", i)
		gateways, _, _ := unstructured.NestedStringSlice(entry, "gateways")
		hosts, _, _ := unstructured.NestedStringSlice(entry, "hosts")
		if len(gateways) > 0 && !slices.Contains(gateways, "mesh") {
			s.find(ruleIgnoredMesh, s.object, path+".gateways", "%s: the sidecars of callers inside the mesh ignore a VirtualService for gateways alone; add mesh, if they call %s",
				strings.Join(gateways, ", "), s.rollout.Spec.Host)
			continue
		}
		ours := func(host string) bool {
			return host == "*" || mesh.HostKey(host, s.object.GetNamespace()) == mesh.HostKey(s.rollout.Spec.Host, s.object.GetNamespace())
		}
		if len(hosts) > 0 && !slices.ContainsFunc(hosts, ours) {
			s.find(ruleIgnoredHosts, s.object, path+".hosts", "%s: sidecars obey it for these hosts alone, so that no call to %s is routed by it; add %s",
				strings.Join(hosts, ", "), s.rollout.Spec.Host, s.rollout.Spec.Host)
		}
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
