package mesh

import (
	"fmt"
	"slices"
	"strconv"

	istio "istio.io/api/networking/v1alpha3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"

	v1 "sluice.dev/sluice/api/v1"
)

const (
	policyField = "trafficPolicy"
	// maxFoundPolicies bounds, in bytes, what status keeps of found policies: it has 16 KiB for everything.
	maxFoundPolicies = 4096
)

// breakerBlocks are the blocks of a policy that make a circuit breaker.
var breakerBlocks = []string{"connectionPool", "outlierDetection"}

// SavePolicies returns what status must keep of the rule's policies before the Rollout's own are written: which blocks the Rollout
// writes, and what stood in their place when it began to. A block that it gives no longer leaves the list once what stood there
// is back. found nil: there is no rule. Where status has no room for all that stood there, nothing changes.
func SavePolicies(r *v1.Rollout, found *unstructured.Unstructured) []v1.ManagedPolicy {
	saved := savePolicies(r, found)
	if sizeOf(saved) > maxFoundPolicies {
		return r.Status.DestinationRule.Policies
	}
	return saved
}

func savePolicies(r *v1.Rollout, found *unstructured.Unstructured) []v1.ManagedPolicy {
	if r.Status.DestinationRule == nil {
		return nil
	}
	given := givenPolicies(r)
	subsets := keysOf(given)
	for _, p := range r.Status.DestinationRule.Policies {
		subsets[p.Subset] = true
	}
	var out []v1.ManagedPolicy
	for _, subset := range sortedKeys(subsets) {
		saved := savePolicy(managedPolicy(r, subset), given[subset], policyHolder(found, subset))
		if saved.Subset = subset; len(saved.Blocks) > 0 {
			out = append(out, saved)
		}
	}
	return out
}

// savePolicy is about one policy; holder is what bears it, nil when that is not there.
func savePolicy(before v1.ManagedPolicy, given, holder object) v1.ManagedPolicy {
	policy, had := holder[policyField].(object)
	saved, kept := foundBlocks(before), object{}
	after := v1.ManagedPolicy{}
	for _, block := range before.Blocks {
		value, was := saved[block]
		now, is := policy[block]
		_, wanted := given[block]
		if putBack := was == is && (!was || sameJSON(value, now)); !wanted && (putBack || holder == nil) {
			continue
		}
		after.Blocks = append(after.Blocks, block)
		if was {
			kept[block] = value
		}
	}
	for _, block := range sortedKeys(keysOf(given)) {
		if slices.Contains(before.Blocks, block) {
			continue
		}
		after.Blocks = append(after.Blocks, block)
		if value, is := policy[block]; is {
			kept[block] = value
		}
	}
	slices.Sort(after.Blocks)
	if had = had && len(before.Blocks) == 0; had || before.Found != "" {
		after.Found = string(v1.CanonicalJSON(kept))
	}
	return after
}

// givenPolicies are the policies that the spec gives, by subset; the host's is under "".
func givenPolicies(r *v1.Rollout) map[string]object {
	given := map[string]object{}
	if dr := r.Spec.DestinationRule; dr != nil && dr.TrafficPolicy != nil {
		given[""] = rawPolicy(dr.TrafficPolicy)
	}
	for _, subset := range r.Status.Subsets {
		at := slices.IndexFunc(r.Spec.Versions, func(v v1.Version) bool { return v.Name == subset.Policy })
		if at >= 0 && !subset.Leaving && r.Spec.Versions[at].TrafficPolicy != nil {
			given[subset.Name] = rawPolicy(r.Spec.Versions[at].TrafficPolicy)
		}
	}
	return given
}

// rawPolicy is a policy's JSON, with the 64-bit numbers as numbers, which is how Istio's CRDs want them.
func rawPolicy(policy *istio.TrafficPolicy) object {
	raw, ok := toRaw(policy).(object)
	if !ok {
		return object{}
	}
	balancers := []object{child(raw, "loadBalancer")}
	for _, port := range objects(raw["portLevelSettings"]) {
		balancers = append(balancers, child(port, "loadBalancer"))
	}
	for _, balancer := range balancers {
		hash := child(balancer, "consistentHash")
		for holder, field := range map[string]string{"": "minimumRingSize", "ringHash": "minimumRingSize", "maglev": "tableSize"} {
			at := hash
			if holder != "" {
				at = child(hash, holder)
			}
			if n, err := strconv.ParseInt(text(at, field), 10, 64); err == nil {
				at[field] = n
			}
		}
	}
	return raw
}

func managedPolicy(r *v1.Rollout, subset string) v1.ManagedPolicy {
	for _, p := range r.Status.DestinationRule.Policies {
		if p.Subset == subset {
			return p
		}
	}
	return v1.ManagedPolicy{}
}

// foundBlocks are the blocks that were found, by name.
func foundBlocks(p v1.ManagedPolicy) object {
	var found object
	if err := json.Unmarshal([]byte(p.Found), &found); err != nil {
		return nil
	}
	return found
}

// policyHolder is what of a rule bears the policy of a subset, or for "" of the host; nil when it is not there.
func policyHolder(rule *unstructured.Unstructured, subset string) object {
	switch {
	case rule == nil:
		return nil
	case subset == "":
		return child(rule.Object, "spec")
	}
	for _, entry := range objects(child(rule.Object, "spec")["subsets"]) {
		if text(entry, "name") == subset {
			return entry
		}
	}
	return nil
}

func sizeOf(policies []v1.ManagedPolicy) int {
	size := 0
	for _, p := range policies {
		size += len(p.Found)
	}
	return size
}

// policyProblem tells that status has no room for what the Rollout's policies would replace in the found rule.
func policyProblem(r *v1.Rollout, found *unstructured.Unstructured) *Problem {
	size := sizeOf(savePolicies(r, found))
	if size <= maxFoundPolicies {
		return nil
	}
	return &Problem{v1.ReasonInvalidSpec, fmt.Sprintf(
		"spec.destinationRule and spec.versions give blocks of trafficPolicy in whose place DestinationRule %s has %d bytes; status can keep %d of them to put them back: take these blocks out of the rule, or out of the Rollout",
		found.GetName(), size, maxFoundPolicies)}
}

// renderPolicies writes the blocks that the spec gives and status lists into the rule, which it may change, and puts back what
// was found in the place of those that status lists and the spec gives no longer.
func renderPolicies(r *v1.Rollout, rule *unstructured.Unstructured) {
	if r.Status.DestinationRule == nil {
		return
	}
	given := givenPolicies(r)
	for _, managed := range r.Status.DestinationRule.Policies {
		if holder := policyHolder(rule, managed.Subset); holder != nil {
			renderPolicy(managed, given[managed.Subset], holder)
		}
	}
}

func renderPolicy(managed v1.ManagedPolicy, given, holder object) {
	policy, found := child(holder, policyField), foundBlocks(managed)
	if policy == nil {
		policy = object{}
	}
	for _, block := range managed.Blocks {
		value, wanted := given[block]
		if !wanted {
			value, wanted = found[block]
		}
		if wanted {
			policy[block] = value
		} else {
			delete(policy, block)
		}
	}
	holder[policyField] = policy
	if len(policy) == 0 && managed.Found == "" {
		delete(holder, policyField)
	}
}

// RestorePolicies puts back what was found in the place of all that the Rollout wrote into the rule's policies.
func RestorePolicies(r *v1.Rollout, found *unstructured.Unstructured) *unstructured.Unstructured {
	out := found.DeepCopy()
	if r.Status.DestinationRule == nil {
		return out
	}
	for _, managed := range r.Status.DestinationRule.Policies {
		if holder := policyHolder(out, managed.Subset); holder != nil {
			renderPolicy(managed, nil, holder)
		}
	}
	return out
}

// SamePolicies tells whether two forms of a rule have the same policy for the host and for each of the subsets.
func SamePolicies(a, b *unstructured.Unstructured, subsets ...string) bool {
	for _, subset := range append(subsets, "") {
		if !sameJSON(policyHolder(a, subset)[policyField], policyHolder(b, subset)[policyField]) {
			return false
		}
	}
	return true
}

// CircuitBreakers are the subsets of a rule, "" for the host, whose policy has a connectionPool or an outlierDetection, be it for
// one port.
func CircuitBreakers(rule *unstructured.Unstructured) map[string]bool {
	breakers := map[string]bool{}
	if rule == nil {
		return breakers
	}
	spec := child(rule.Object, "spec")
	breakers[""] = breaks(child(spec, policyField))
	for _, entry := range objects(spec["subsets"]) {
		breakers[text(entry, "name")] = breaks(child(entry, policyField))
	}
	return breakers
}

func breaks(policy object) bool {
	has := func(o object) bool {
		return slices.ContainsFunc(breakerBlocks, func(block string) bool { return child(o, block) != nil })
	}
	return has(policy) || slices.ContainsFunc(objects(policy["portLevelSettings"]), has)
}

func keysOf[T any](m map[string]T) map[string]bool {
	keys := make(map[string]bool, len(m))
	for k := range m {
		keys[k] = true
	}
	return keys
}
