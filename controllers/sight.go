package controllers

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// sight is what one reconcile sees of a Rollout's namespace. Objects may be the cache's own and are not changed.
type sight struct {
	// place is the host's own.
	place
	// elsewhere are the hosts that versions have of their own, by their keys.
	elsewhere map[string]*place
	// rollouts of the namespace that share a host or a VirtualService with this one, and itself.
	rollouts []v1.Rollout
	// virtualServices and destinationRules of the namespace that matter to the Rollout, by name, with what this reconcile wrote.
	virtualServices  []*unstructured.Unstructured
	destinationRules []*unstructured.Unstructured
	// meshProblem is why the mesh's objects can not be read; then the lists above are empty.
	meshProblem *pipeline.Problem
	// problem is why workloads, pods or services can not be read.
	problem *pipeline.Problem
}

// look reads a Rollout's namespace, the mesh's objects through reader. What it wants to be woken by is noted before it reads.
func (r *RolloutReconciler) look(ctx context.Context, rollout *v1.Rollout, reader client.Reader) (*sight, error) {
	s := &sight{}
	err := r.lookAtHosts(ctx, rollout, s)
	if err == nil || errors.Is(err, errNotYet) { // it is woken when the kinds are known
		r.interest.note(rollout, s.allSelectors())
	}
	if err != nil {
		return nil, err
	}
	if err := r.lookAtMesh(ctx, rollout, reader, s); err != nil {
		return nil, err
	}
	if err := r.lookAtNeighbours(ctx, rollout, s); err != nil {
		return nil, err
	}
	return s, r.lookAtPods(ctx, rollout, s)
}

// lookAtNeighbours reads the Rollouts that may share a host or a VirtualService with this one.
func (r *RolloutReconciler) lookAtNeighbours(ctx context.Context, rollout *v1.Rollout, s *sight) error {
	if err := r.readable(kindRollout.GroupKind()); err != nil {
		return err
	}
	list, seen := &v1.RolloutList{}, map[string]bool{}
	err := listBy(ctx, r.Client, list, rollout.Namespace, neighbourTokens(rollout, s.virtualServices), func() {
		for i := range list.Items {
			if found := &list.Items[i]; !seen[found.Name] {
				seen[found.Name] = true
				s.rollouts = append(s.rollouts, *found)
			}
		}
	})
	slices.SortFunc(s.rollouts, func(a, b v1.Rollout) int { return strings.Compare(a.Name, b.Name) })
	return err
}

// lookAtHosts looks up the Rollout's host, and those that its versions have of their own, by its spec and by its committed traffic.
func (r *RolloutReconciler) lookAtHosts(ctx context.Context, rollout *v1.Rollout, s *sight) error {
	found, err := r.place(ctx, rollout.Spec.Host, rollout.Namespace)
	if found != nil {
		s.place = *found
	}
	s.elsewhere = map[string]*place{}
	for _, host := range hostsElsewhere(rollout) {
		key := v1.HostKey(host, rollout.Namespace)
		if err == nil && s.elsewhere[key] == nil {
			s.elsewhere[key], err = r.place(ctx, host, rollout.Namespace)
		}
	}
	s.problem, err = unreadable(err)
	return err
}

// hostsElsewhere are those that versions have of their own.
func hostsElsewhere(rollout *v1.Rollout) []string {
	var hosts []string
	for i := range rollout.Spec.Versions {
		if d := rollout.Spec.Versions[i].Destination; d != nil {
			hosts = append(hosts, d.Host)
		}
	}
	for _, t := range committedTargets(rollout) {
		if t.Host != "" {
			hosts = append(hosts, t.Host)
		}
	}
	return hosts
}

// allSelectors are those of all the hosts.
func (s *sight) allSelectors() []labels.Selector {
	selectors := s.selectors()
	for _, key := range slices.Sorted(maps.Keys(s.elsewhere)) {
		if p := s.elsewhere[key]; p != nil {
			selectors = append(selectors, p.selectors()...)
		}
	}
	return selectors
}

// lookAtMesh reads VirtualServices and DestinationRules, none of which may be older than our last write of it.
func (r *RolloutReconciler) lookAtMesh(ctx context.Context, rollout *v1.Rollout, reader client.Reader, s *sight) error {
	var err error
	if s.virtualServices, err = r.meshObjects(ctx, reader, kindVirtualService, rollout); err == nil {
		s.destinationRules, err = r.meshObjects(ctx, reader, kindDestinationRule, rollout)
	}
	s.meshProblem, err = unreadable(err)
	if s.meshProblem != nil {
		s.virtualServices, s.destinationRules = nil, nil
	}
	return err
}

// meshObjects lists what of a kind matters to the Rollout, sorted by name. One of its own that we wrote and the cache does not
// have is asked for live: it is gone, or the cache is behind.
func (r *RolloutReconciler) meshObjects(
	ctx context.Context, reader client.Reader, kind schema.GroupVersionKind, rollout *v1.Rollout,
) ([]*unstructured.Unstructured, error) {
	tokens := routingTokens(rollout)
	if kind == kindDestinationRule {
		tokens = ruleTokens(rollout)
	}
	objects, err := r.listRaw(ctx, reader, kind, rollout.Namespace, tokens)
	if err != nil {
		return nil, err
	}
	driven := drivenNames(kind, &rollout.Status)
	present := map[string]bool{}
	for _, obj := range objects {
		present[obj.GetName()] = true
		switch {
		case reader != r.Live && r.ledger.stale(kind, obj):
			return nil, errStale
		case reader == r.Live && slices.Contains(driven, obj.GetName()):
			r.ledger.saw(kind, obj) // from here on an older cache is known to be older
		}
	}
	for _, name := range r.ledger.known(kind, rollout.Namespace, driven) {
		if present[name] {
			continue
		}
		obj, err := r.liveObject(ctx, kind, types.NamespacedName{Namespace: rollout.Namespace, Name: name})
		if err != nil {
			return nil, err
		}
		if obj != nil {
			return nil, errStale
		}
	}
	slices.SortFunc(objects, func(a, b *unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	return objects, nil
}

// liveObject reads one object of the mesh from the API server, nil when there is none.
func (r *RolloutReconciler) liveObject(ctx context.Context, kind schema.GroupVersionKind, key types.NamespacedName) (*unstructured.Unstructured, error) {
	obj := newObject(kind)
	switch err := r.Live.Get(ctx, key, obj); {
	case apierrors.IsNotFound(err):
		r.ledger.gone(kind, key)
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading %s %s: %w", kind.Kind, key, err)
	}
	return obj, nil
}

// listRaw lists the objects of a kind that have any of the tokens, in no order. The API server knows no tokens: from there all
// of the namespace comes, and is sifted here.
func (r *RolloutReconciler) listRaw(
	ctx context.Context, reader client.Reader, kind schema.GroupVersionKind, namespace string, tokens []string,
) ([]*unstructured.Unstructured, error) {
	if err := r.readable(kind.GroupKind()); err != nil {
		return nil, err
	}
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	if reader == r.Live {
		if err := reader.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return nil, fmt.Errorf("listing %ss of %s: %w", kind.Kind, namespace, err)
		}
		return sift(list.Items, tokens), nil
	}
	var objects []*unstructured.Unstructured
	seen := map[string]bool{}
	err := listBy(ctx, reader, list, namespace, tokens, func() {
		for i := range list.Items {
			if obj := &list.Items[i]; !seen[obj.GetName()] {
				seen[obj.GetName()] = true
				objects = append(objects, obj)
			}
		}
	})
	return objects, err
}

// sift keeps the objects that have any of the tokens.
func sift(items []unstructured.Unstructured, tokens []string) []*unstructured.Unstructured {
	var objects []*unstructured.Unstructured
	for i := range items {
		has := func(token string) bool { return slices.Contains(tokens, token) }
		if obj := &items[i]; slices.ContainsFunc(Tokens(obj), has) {
			objects = append(objects, obj)
		}
	}
	return objects
}

// lookAtPods reads workloads and endpoints.
func (r *RolloutReconciler) lookAtPods(ctx context.Context, rollout *v1.Rollout, s *sight) error {
	if s.problem != nil {
		return nil
	}
	err := r.fill(ctx, rollout, &s.place)
	for _, p := range s.elsewhere {
		if err == nil {
			err = r.fill(ctx, rollout, p)
		}
	}
	s.problem, err = unreadable(err)
	return err
}

// drivenNames are the objects of a kind that a status says are driven.
func drivenNames(kind schema.GroupVersionKind, status *v1.RolloutStatus) []string {
	var names []string
	if kind == kindDestinationRule {
		if status.DestinationRule != nil {
			names = append(names, status.DestinationRule.Name)
		}
		return names
	}
	for _, vs := range status.VirtualServices {
		names = append(names, vs.Name)
	}
	if vs := status.FaultVirtualService; vs != nil && !slices.Contains(names, vs.Name) {
		names = append(names, vs.Name)
	}
	return names
}

// unreadableError says why a kind can not be read.
type unreadableError struct{ problem pipeline.Problem }

func (e *unreadableError) Error() string { return e.problem.Message }

// readable tells from what the watches found whether a kind can be read at all: reading one that can't would block.
func (r *RolloutReconciler) readable(kind schema.GroupKind) error {
	if r.Kinds == nil {
		return nil
	}
	switch problem, known := r.Kinds.Problem(kind); {
	case !known:
		return errNotYet
	case problem != nil:
		return &unreadableError{*problem}
	}
	return nil
}

// unreadable turns the errors that a user must mend into a problem; others stay errors. What is not found is a kind: where an
// object may be missing, that was handled before.
func unreadable(err error) (*pipeline.Problem, error) {
	var known *unreadableError
	switch {
	case err == nil:
		return nil, nil
	case asError(err, &known):
		return &known.problem, nil
	case meta.IsNoMatchError(err), apierrors.IsNotFound(err):
		return &pipeline.Problem{Reason: v1.ReasonIstioNotInstalled, Message: istioMissing}, nil
	case apierrors.IsForbidden(err):
		return &pipeline.Problem{Reason: v1.ReasonForbidden, Message: forbiddenMessage(err)}, nil
	default:
		return nil, err
	}
}

const istioMissing = "the API server does not know networking.istio.io/v1 VirtualService and DestinationRule: install Istio's CRDs; Sluice goes on when they are there"

// forbiddenMessage is the API server's own: it names user, verb and resource.
func forbiddenMessage(err error) string {
	return fmt.Sprintf("the operator's ServiceAccount lacks a permission: %v; grant it (see config/rbac)", rootCause(err))
}

func newObject(kind schema.GroupVersionKind) *unstructured.Unstructured {
	obj := &unstructured.Unstructured{}
	obj.SetGroupVersionKind(kind)
	return obj
}

// find returns the object of a name, nil when there is none.
func find(objects []*unstructured.Unstructured, name string) *unstructured.Unstructured {
	for _, obj := range objects {
		if obj.GetName() == name {
			return obj
		}
	}
	return nil
}

// replace puts what was written in the place of what was seen; a nil object takes it away.
func (s *sight) replace(kind schema.GroupVersionKind, name string, written *unstructured.Unstructured) {
	list := &s.virtualServices
	if kind == kindDestinationRule {
		list = &s.destinationRules
	}
	kept := slices.DeleteFunc(slices.Clone(*list), func(o *unstructured.Unstructured) bool { return o.GetName() == name })
	if written != nil {
		kept = append(kept, written)
	}
	slices.SortFunc(kept, func(a, b *unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	*list = kept
}
