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
// the blocks of trafficPolicy that status lists, new ones follow in order of name, and those to remove go. found nil: it is made.
func DestinationRule(r *v1.Rollout, found *unstructured.Unstructured, remove []string) (*unstructured.Unstructured, *Problem) {
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
