package simulation

import (
	"fmt"
	"maps"

	istio "istio.io/api/networking/v1alpha3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// The trafficPolicies that the spec may give; the first is none.
var policies = []string{
	"", `{connectionPool: {http: {http1MaxPendingRequests: 5}}}`, `{loadBalancer: {simple: ROUND_ROBIN}}`,
	`{connectionPool: {tcp: {maxConnections: 9}}, loadBalancer: {simple: RANDOM}}`,
}

func init() {
	deeds = append(deeds,
		deed{"edit the host's policy", 2, func(w *world) {
			policy := w.anyPolicy()
			w.editSpec(func(s *v1.RolloutSpec) { s.DestinationRule = policy })
		}},
		deed{"edit a version's policy", 2, func(w *world) {
			policy, at := w.anyPolicy(), w.rng.IntN(len(versions))
			w.editSpec(func(s *v1.RolloutSpec) {
				if w.setting.elsewhere {
					return
				}
				s.Versions = nil
				if policy != nil {
					s.Versions = []v1.Version{{Name: versions[at], TrafficPolicy: policy.TrafficPolicy}}
				}
			})
		}},
	)
	interesting = append(interesting, "a policy stands at rest", "a found policy is back")
}

// anyPolicy is one of them, for the host; nil: none.
func (w *world) anyPolicy() *v1.DestinationRule {
	text := policies[w.rng.IntN(len(policies))]
	if text == "" {
		return nil
	}
	return parseSpec("host: reviews\ndestinationRule: {trafficPolicy: " + text + "}").DestinationRule
}

// foundPolicy is what the host's rule had of its own.
func (w *world) foundPolicy() map[string]any {
	if len(w.setting.foundSubsets) == 0 {
		return map[string]any{}
	}
	return map[string]any{"loadBalancer": map[string]any{"simple": "LEAST_REQUEST"}}
}

// checkPolicies: at rest each policy has the blocks that the spec gives, and all others as they were found.
func (o *oracle) checkPolicies(r *v1.Rollout) {
	w := o.world
	rule := w.store.live(ruleKey)
	if rule == nil || r.Status.DestinationRule == nil || w.ruleDeleted() { // what stood in a rule that people deleted may come back, or not
		return
	}
	var given *istio.TrafficPolicy
	if d := r.Spec.DestinationRule; d != nil {
		given = d.TrafficPolicy
	}
	o.checkPolicy("the host", w.foundPolicy(), given, rule.Object["spec"])
	subsets, _, _ := unstructured.NestedSlice(rule.Object, "spec", "subsets")
	for _, s := range subsets {
		var given *istio.TrafficPolicy
		entry := s.(map[string]any)
		for _, known := range r.Status.Subsets {
			for i := range r.Spec.Versions {
				if known.Name == entry["name"] && !known.Leaving && r.Spec.Versions[i].Name == known.Policy {
					given = r.Spec.Versions[i].TrafficPolicy
				}
			}
		}
		o.checkPolicy(fmt.Sprint("subset ", entry["name"]), map[string]any{}, given, s)
	}
}

func (o *oracle) checkPolicy(of string, found map[string]any, given *istio.TrafficPolicy, holder any) {
	want := maps.Clone(found)
	if given != nil {
		maps.Copy(want, toJSON(given))
		o.world.sometimes["a policy stands at rest"]++
	} else if len(found) > 0 {
		o.world.sometimes["a found policy is back"]++
	}
	got, _ := holder.(map[string]any)["trafficPolicy"].(map[string]any)
	if string(v1.CanonicalJSON(want)) != string(v1.CanonicalJSON(got)) && len(want)+len(got) > 0 {
		o.world.violated(14, "the policy of %s is %v, want %v", of, got, want)
	}
}

// withoutPolicies leaves out of a rule the blocks that the spec may give.
func withoutPolicies(rule *unstructured.Unstructured) {
	unstructured.RemoveNestedField(rule.Object, "spec", "trafficPolicy")
	subsets, _, _ := unstructured.NestedSlice(rule.Object, "spec", "subsets")
	for _, s := range subsets {
		delete(s.(map[string]any), "trafficPolicy")
	}
	if len(subsets) > 0 {
		_ = unstructured.SetNestedSlice(rule.Object, subsets, "spec", "subsets")
	}
}
