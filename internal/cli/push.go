package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/manifest"
	"sluice.dev/sluice/internal/mesh"
)

// push tells what objects of files come to in a namespace, as far as that can be told without asking the API server to try.
type push struct {
	notes io.Writer
	// rollouts of the namespace drive routes, whatever a file says of those.
	rollouts []v1.Rollout
	services []*unstructured.Unstructured
	// replaced select the pods of workloads that the files change.
	replaced []labels.Selector
}

func (t *tool) push(live []manifest.Object) (overlay, error) {
	p := &push{notes: t.ErrOut}
	var err error
	if p.rollouts, err = decodeRollouts(live); err != nil {
		return overlay{}, err
	}
	for _, o := range live {
		if o.GetKind() == "VirtualService" {
			p.services = append(p.services, o.Unstructured)
		}
	}
	return overlay{each: p.onto, stays: p.stays}, nil
}

func decodeRollouts(objects []manifest.Object) ([]v1.Rollout, error) {
	var rollouts []v1.Rollout
	for _, o := range objects {
		if !isRollout(o) {
			continue
		}
		var r v1.Rollout
		raw, err := o.MarshalJSON()
		if err == nil {
			err = json.Unmarshal(raw, &r)
		}
		if err != nil {
			return nil, fmt.Errorf("%s of namespace %s: %w", o.Ref(), o.GetNamespace(), err)
		}
		rollouts = append(rollouts, r)
	}
	return rollouts, nil
}

// onto makes an object of a file what it comes to on the live one.
func (p *push) onto(own, live manifest.Object) {
	switch {
	case isRollout(own):
		adopt(own, live)
	case isRouting(own.Unstructured):
		wanted, problem := driven(p.rollouts, p.services, live.Unstructured, own.Unstructured)
		if problem != nil {
			fmt.Fprintf(p.notes, "%s: %s stays as it is, since a Rollout drives what the file takes away: %s\n", own.At(""), own.Ref(), problem.Message)
			wanted = live.Unstructured
		}
		own.Object = wanted.Object
	case isWorkload(own.Unstructured):
		p.workload(own, live)
	}
}

// adopt gives a Rollout of a file what only the cluster knows of it: it goes on from its live status.
func adopt(own, live manifest.Object) {
	if status, ok := live.Object["status"]; ok {
		own.Object["status"] = status
	}
	annotations := live.GetAnnotations() // such as sluice.dev/reconcile: applying takes none away
	for key, value := range own.GetAnnotations() {
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[key] = value
	}
	own.SetAnnotations(annotations)
	own.SetUID(live.GetUID())
	own.SetCreationTimestamp(live.GetCreationTimestamp())
	own.SetGeneration(live.GetGeneration() + 1)
}

// workload leaves one that the file does not change as it is live, with its defaults, by which its revision is known. A changed one is
// taken to run in the place of its pods of before.
func (p *push) workload(own, live manifest.Object) {
	merged, _ := onto(live.Object, own.Object).(map[string]any)
	changed := !reflect.DeepEqual(merged["spec"], live.Object["spec"])
	own.Object = merged
	if changed {
		p.replace(own.Unstructured, live.Unstructured)
	}
}

// replace takes a workload that is made or changed to run in the place of the one of before, which may be nil, and of its pods.
func (p *push) replace(own, live *unstructured.Unstructured) {
	unstructured.RemoveNestedField(own.Object, "status")
	if live == nil {
		return
	}
	var before struct {
		Spec struct {
			Selector *metav1.LabelSelector `json:"selector"`
		} `json:"spec"`
	}
	raw, err := live.MarshalJSON()
	if err != nil || json.Unmarshal(raw, &before) != nil {
		return
	}
	if selector, err := metav1.LabelSelectorAsSelector(before.Spec.Selector); err == nil {
		p.replaced = append(p.replaced, selector)
	}
}

// stays is false for a pod whose workload the files change.
func (p *push) stays(live manifest.Object) bool {
	if live.GetKind() != "Pod" {
		return true
	}
	for _, selector := range p.replaced {
		if selector.Matches(labels.Set(live.GetLabels())) {
			return false
		}
	}
	return true
}

// onto is a live value with the fields that a file gives: those that the file does not name stay, as the API server's defaults do.
// Lists of one length are taken item by item, any other one as the file has it.
func onto(live, own any) any {
	switch value := own.(type) {
	case map[string]any:
		before, ok := live.(map[string]any)
		if !ok {
			return own
		}
		out := map[string]any{}
		for key, item := range before {
			out[key] = item
		}
		for key, item := range value {
			out[key] = onto(before[key], item)
		}
		return out
	case []any:
		before, ok := live.([]any)
		if !ok || len(before) != len(value) {
			return own
		}
		out := make([]any, len(value))
		for i := range value {
			out[i] = onto(before[i], value[i])
		}
		return out
	}
	return own
}

// isWorkload tells whether an object makes pods.
func isWorkload(o *unstructured.Unstructured) bool { return o.GroupVersionKind().Group == "apps" }

// isRouting tells whether a Rollout may drive an object.
func isRouting(o *unstructured.Unstructured) bool {
	kind := o.GroupVersionKind()
	return kind.Group == "networking.istio.io" && (kind.Kind == "VirtualService" || kind.Kind == "DestinationRule")
}

// driven is what GitSync makes of an object that is wanted in the place of a live one: what Rollouts drive in it stays, and so do a rule's
// subsets that routes still name. A problem: the wanted one would take something away that a Rollout drives.
func driven(rollouts []v1.Rollout, services []*unstructured.Unstructured, live, wanted *unstructured.Unstructured) (*unstructured.Unstructured, *mesh.Problem) {
	rebased, problem := mesh.Rebase(rollouts, live, wanted)
	if problem == nil && rebased.GetKind() == "DestinationRule" {
		mesh.KeepNamed(live, rebased, services)
	}
	return rebased, problem
}
