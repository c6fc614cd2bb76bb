package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
	"sluice.dev/sluice/internal/pipeline"
)

// place is what a host of a namespace is: a Service, or else what ServiceEntries say of it, and what serves there.
type place struct {
	// service of that name, nil when there is none.
	service *corev1.Service
	// entries are the ServiceEntries that name the host, looked for where there is no such Service.
	entries   []*unstructured.Unstructured
	workloads []workload
	endpoints []endpoint
}

// exists tells whether the namespace knows the host.
func (p *place) exists() bool { return p.service != nil || len(p.entries) > 0 }

// selectors find the pods and WorkloadEntries that serve the host; none: it does not choose them by labels.
func (p *place) selectors() []labels.Selector {
	var selectors []labels.Selector
	if p.service != nil && len(p.service.Spec.Selector) > 0 {
		selectors = append(selectors, labels.SelectorFromSet(p.service.Spec.Selector))
	}
	for _, entry := range p.entries {
		set, _, err := unstructured.NestedStringMap(entry.Object, "spec", "workloadSelector", "labels")
		if err == nil && len(set) > 0 {
			selectors = append(selectors, labels.SelectorFromSet(set))
		}
	}
	return selectors
}

// selector finds the pods that serve the host; without one nothing does.
func (p *place) selector() labels.Selector {
	if selectors := p.selectors(); len(selectors) > 0 {
		return selectors[0]
	}
	return labels.Nothing()
}

// selects tells whether the host finds its endpoints by labels; else nobody tells which of the workloads serve it.
func (p *place) selects() bool { return len(p.selectors()) > 0 }

// unlisted: the host's addresses are left to DNS, or to who calls it, so that nobody here can tell whether anything is ready.
func (p *place) unlisted() bool {
	return p.service == nil && len(p.entries) > 0 && !p.selects() && len(p.endpoints) == 0
}

// place looks up the host of a namespace.
func (r *RolloutReconciler) place(ctx context.Context, host, namespace string) (*place, error) {
	p := &place{}
	name, in, ok := mesh.ServiceOf(host, namespace)
	if ok && in != namespace {
		return p, nil
	}
	if ok {
		var err error
		if p.service, err = r.service(ctx, namespace, name); err != nil || p.service != nil {
			return p, err
		}
	}
	entries, err := r.serviceEntries(ctx, host, namespace)
	if ok {
		// A host that can be a Service's lacks nothing else where there are no ServiceEntries, or none may be read.
		if problem, other := unreadable(err); problem != nil {
			entries, err = nil, other
		}
	}
	p.entries = entries
	return p, err
}

// serviceEntries are those of a namespace that name a host, by name.
func (r *RolloutReconciler) serviceEntries(ctx context.Context, host, namespace string) ([]*unstructured.Unstructured, error) {
	key := mesh.HostKey(host, namespace)
	found, err := r.listRaw(ctx, r.Client, kindServiceEntry, namespace, []string{hostToken(key)})
	if err != nil {
		return nil, fmt.Errorf("looking for a ServiceEntry for %s: %w", host, err)
	}
	entries := slices.DeleteFunc(found, func(entry *unstructured.Unstructured) bool {
		return entry.GetDeletionTimestamp() != nil || !slices.Contains(entryHosts(entry), key)
	})
	slices.SortFunc(entries, func(a, b *unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	return entries, nil
}

// entryHosts are a ServiceEntry's hosts. Istio takes them as they stand: a short one is no Service's name there.
func entryHosts(entry *unstructured.Unstructured) []string {
	hosts, _, err := unstructured.NestedStringSlice(entry.Object, "spec", "hosts")
	if err != nil {
		return nil
	}
	for i := range hosts {
		hosts[i] = strings.ToLower(hosts[i])
	}
	return hosts
}

// listedEndpoints are those that ServiceEntries hold themselves. Nothing tells whether they are ready, so they are.
func (p *place) listedEndpoints() []endpoint {
	var found []endpoint
	for _, entry := range p.entries {
		raw, _, err := unstructured.NestedSlice(entry.Object, "spec", "endpoints")
		if err != nil {
			continue
		}
		for i, one := range raw {
			fields, ok := one.(map[string]any)
			set, _, err := unstructured.NestedStringMap(fields, "labels")
			if ok && err == nil {
				found = append(found, endpoint{fmt.Sprintf("serviceentry %s endpoint %d", entry.GetName(), i), set, true})
			}
		}
	}
	return found
}

// checkHost tells whether a field names something else than a host of the namespace: a Service or ServiceEntry of it.
func (r *RolloutReconciler) checkHost(ctx context.Context, field, host, namespace string) (*pipeline.Problem, error) {
	found, err := r.place(ctx, host, namespace)
	if problem, err := unreadable(err); err != nil || problem != nil {
		return problem, err
	}
	return foreignHost(field, host, namespace, found.exists()), nil
}

// foreignHost is why a field does not name a host of the namespace; nil when it exists there.
func foreignHost(field, host, namespace string, exists bool) *pipeline.Problem {
	name, in, ok := mesh.ServiceOf(host, namespace)
	var message string
	switch {
	case ok && in != namespace:
		message = fmt.Sprintf("%s %s is a Service of namespace %s: a Rollout drives hosts of its own namespace %s only", field, host, in, namespace)
	case exists:
		return nil
	case ok:
		message = fmt.Sprintf("%s %s: there is no Service %s in namespace %s: create it or correct the host", field, host, name, namespace)
	default:
		message = fmt.Sprintf("%s %s: no ServiceEntry of namespace %s names it among its hosts, and Istio takes a name with dots for a full one: create a ServiceEntry, or use the name of a Service",
			field, host, namespace)
	}
	return &pipeline.Problem{Reason: v1.ReasonForeignHost, Message: message}
}

// service returns a Service, nil when there is none.
func (r *RolloutReconciler) service(ctx context.Context, namespace, name string) (*corev1.Service, error) {
	if err := r.readable(schema.GroupKind{Kind: "Service"}); err != nil {
		return nil, err
	}
	service := &corev1.Service{}
	err := r.Client.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, service, client.UnsafeDisableDeepCopy)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading Service %s/%s: %w", namespace, name, err)
	}
	return service, nil
}
