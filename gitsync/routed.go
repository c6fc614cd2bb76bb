package gitsync

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// virtualServicesOf lists those of a namespace; none where the cluster serves no such kind.
func virtualServicesOf(ctx context.Context, from client.Reader, namespace string) ([]unstructured.Unstructured, error) {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: "VirtualServiceList"})
	err := from.List(ctx, list, client.InNamespace(namespace))
	if err != nil && !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("list VirtualServices of %s: %w", namespace, err)
	}
	return list.Items, nil
}

// routed keeps a workload to whose pods a route still sends, though no status says so: its Rollout may be kept from writing it.
func (p *Pruner) routed(ctx context.Context, entry v1.InventoryEntry, live *unstructured.Unstructured, using []traffic, done *Pruned) (kept bool, err error) {
	pods, isWorkload := podLabels(live)
	if !isWorkload {
		return false, nil
	}
	for _, t := range using {
		for _, subset := range t.subsetsOf(pods) {
			services, err := virtualServicesOf(ctx, p.Live, live.GetNamespace())
			if err != nil {
				return false, err
			}
			if slices.ContainsFunc(services, func(vs unstructured.Unstructured) bool { return sends(vs, t.rollout.Spec.Host, subset) }) {
				done.keep(entry, fmt.Sprintf("%s: routes still send to subset %s of %s", describeEntry(entry), subset, p.nameOf(t.rollout)), time.Time{})
				return true, nil
			}
		}
	}
	return false, nil
}

// subsetsOf are the subsets of the Rollout's host that pods are in.
func (t traffic) subsetsOf(pods map[string]string) (names []string) {
	if !t.serves(v1.HostKey(t.rollout.Spec.Host, t.rollout.Namespace), pods) {
		return nil
	}
	for _, subset := range t.rollout.Status.Subsets {
		if len(subset.Labels) > 0 && labels.SelectorFromSet(subset.Labels).Matches(labels.Set(pods)) {
			names = append(names, subset.Name)
		}
	}
	return names
}

// sends tells whether a route of a VirtualService sends requests, or copies of them, to a subset of a host.
func sends(service unstructured.Unstructured, host, subset string) bool {
	namespace := service.GetNamespace()
	is := func(destination any) bool {
		return v1.HostKey(textOf(destination, "host"), namespace) == v1.HostKey(host, namespace) && textOf(destination, "subset") == subset
	}
	for _, kind := range []string{"http", "tcp", "tls"} {
		routes, _, _ := unstructured.NestedSlice(service.Object, "spec", kind)
		if slices.ContainsFunc(routes, func(route any) bool { return slices.ContainsFunc(destinationsOf(route), is) }) {
			return true
		}
	}
	return false
}

// destinationsOf are those of a route that get requests or copies.
func destinationsOf(route any) (destinations []any) {
	fields, _ := route.(map[string]any)
	shares, _ := fields["route"].([]any)
	for _, share := range shares {
		s, _ := share.(map[string]any)
		weight, _ := s["weight"].(int64)
		if weight > 0 || len(shares) == 1 { // Istio gives the only one all
			destinations = append(destinations, s["destination"])
		}
	}
	mirrors, _ := fields["mirrors"].([]any)
	for _, mirror := range mirrors {
		m, _ := mirror.(map[string]any)
		destinations = append(destinations, m["destination"])
	}
	return append(destinations, fields["mirror"])
}

func textOf(value any, field string) string {
	fields, _ := value.(map[string]any)
	text, _ := fields[field].(string)
	return text
}
