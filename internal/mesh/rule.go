package mesh

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
)

// managedBy marks what Sluice made.
var managedBy = map[string]string{"app.kubernetes.io/managed-by": "sluice"}

// DestinationRule renders the rule that holds status.subsets: those that stay keep their place and everything but their labels and
// the blocks of trafficPolicy that status lists, new ones follow in order of name, and those to remove go. found nil: it is made, unless
// there is nothing that it would hold: then it is nil.
func DestinationRule(r *v1.Rollout, found *unstructured.Unstructured, remove []string) (*unstructured.Unstructured, *Problem) {
	if holdsNothing(r) {
		return found, nil
	}
	rule := createdRule(r)
	if found != nil {
		rule = found.DeepCopy()
		if HostKey(text(specOf(rule), "host"), r.Namespace) != HostKey(r.Spec.Host, r.Namespace) {
			return nil, &Problem{v1.ReasonHostConflict, "DestinationRule " + found.GetName() + " is for host " +
				text(specOf(rule), "host") + ", not for " + r.Spec.Host + ": give spec.destinationRule another name"}
		}
	}
	spec := specOf(rule)
	var subsets []any
	present := map[string]bool{}
	for _, entry := range objects(spec["subsets"]) {
		name := text(entry, "name")
		if slices.Contains(remove, name) {
			continue
		}
		if i := slices.IndexFunc(r.Status.Subsets, func(s v1.Subset) bool { return s.Name == name }); i >= 0 && !present[name] && len(r.Status.Subsets[i].Labels) > 0 {
			entry["labels"] = rawLabels(r.Status.Subsets[i].Labels)
		}
		present[name] = true
		subsets = append(subsets, entry)
	}
	for _, s := range r.Status.Subsets {
		if !s.Leaving && !present[s.Name] {
			subsets = append(subsets, object{"name": s.Name, "labels": rawLabels(s.Labels)})
		}
	}
	if len(subsets) > 0 {
		spec["subsets"] = subsets
	} else {
		delete(spec, "subsets")
	}
	renderPolicies(r, rule)
	return rule, policyProblem(r, found)
}

// holdsNothing: every version has a host of its own, and the spec gives no policy.
func holdsNothing(r *v1.Rollout) bool {
	given := r.Spec.DestinationRule != nil && r.Spec.DestinationRule.TrafficPolicy != nil
	written := r.Status.DestinationRule != nil && len(r.Status.DestinationRule.Policies) > 0
	return len(r.Status.Subsets) == 0 && !given && !written
}

// MadeRule tells whether Sluice made a rule for a Rollout's host. Where no version is a subset it makes none, and the name that it
// would have is free for anybody's.
func MadeRule(r *v1.Rollout, rule *unstructured.Unstructured) bool {
	host := text(child(rule.Object, "spec"), "host")
	return isOurs(rule) && HostKey(host, r.Namespace) == HostKey(r.Spec.Host, r.Namespace)
}

// needsRule tells whether the rule of the host will hold anything.
func needsRule(r *v1.Rollout) bool {
	if r.Spec.DestinationRule != nil || len(r.Status.Subsets) > 0 {
		return true
	}
	for _, v := range r.Spec.Versions {
		if v.Destination == nil {
			return true
		}
	}
	return slices.ContainsFunc([]string{r.Spec.Version, r.Spec.InitialVersion, r.Status.Stable}, func(version string) bool {
		return version != "" && r.Spec.DestinationOf(version) == nil
	})
}

func rawLabels(labels map[string]string) object {
	raw := object{}
	for k, v := range labels {
		raw[k] = v
	}
	return raw
}

func createdRule(r *v1.Rollout) *unstructured.Unstructured {
	name := r.Name
	if ref := r.Status.DestinationRule; ref != nil {
		name = ref.Name
	}
	return created(&networking.DestinationRule{
		TypeMeta:   metav1.TypeMeta{APIVersion: networking.SchemeGroupVersion.String(), Kind: "DestinationRule"},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: r.Namespace, Labels: managedBy},
		Spec:       istio.DestinationRule{Host: r.Spec.Host},
	})
}

// created turns a typed object into the raw form in which everything is merged and written.
func created(typed any) *unstructured.Unstructured {
	raw, ok := toRaw(typed).(object)
	if !ok {
		raw = object{}
	}
	delete(raw, "status")
	unstructured.RemoveNestedField(raw, "metadata", "creationTimestamp")
	return &unstructured.Unstructured{Object: raw}
}
