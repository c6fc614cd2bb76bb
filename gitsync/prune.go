package gitsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/pkg/ssa"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
)

// Pruner deletes what left a repository, as far as nothing needs it.
type Pruner struct {
	// Client reads and deletes, as the service account.
	Client client.Client
	// Live reads Rollouts and their Services from the API server, with the operator's own rights.
	Live client.Reader
	// Elsewhere tells whether another GitSync applies an object as well: by a cache, which costs little, or as it is now.
	Elsewhere func(entry v1.InventoryEntry, now bool) (bool, error)
	// Namespace of the GitSync: Rollouts of other ones are not named.
	Namespace string
	// Now is when the pass began.
	Now time.Time

	// kept are the workloads that were kept so far.
	kept []keptWorkload
}

// Pruned is what a prune did.
type Pruned struct {
	// Deleted objects, and those Released: they stay and are the GitSync's no more, for a reason that stands beside them.
	Deleted, Released []string
	// Kept are to be pruned later. Pending says which and why; Until is when the first of them may go, zero: not by time.
	Kept    []v1.InventoryEntry
	Pending []string
	Until   time.Time
	// Leaving: a Rollout puts its traffic back before it goes, and all else waits for it.
	Leaving bool
}

// Prune deletes Rollouts first; while one of them is there, nothing else is touched. The rest goes in the opposite of the order
// in which it was applied. One that can not be deleted keeps none of the others; the error names them all.
func (p *Pruner) Prune(ctx context.Context, stale []v1.InventoryEntry) (Pruned, error) {
	var done Pruned
	var failures []error
	rollouts, others := split(stale)
	for _, entry := range rollouts {
		if err := p.one(ctx, entry, &done); err != nil {
			failures = append(failures, err)
		}
	}
	if done.Leaving || len(failures) > 0 {
		done.Kept = append(done.Kept, others...)
		return done, errors.Join(failures...)
	}
	for _, entry := range others {
		if err := p.one(ctx, entry, &done); err != nil {
			failures = append(failures, err)
		}
	}
	return done, errors.Join(failures...)
}

// split gives the Rollouts, and the others with what refers to others first.
func split(stale []v1.InventoryEntry) (rollouts, others []v1.InventoryEntry) {
	for _, entry := range stale {
		if isRolloutEntry(entry) {
			rollouts = append(rollouts, entry)
		} else {
			others = append(others, entry)
		}
	}
	slices.SortStableFunc(others, func(x, y v1.InventoryEntry) int {
		pair := ssa.SortableUnstructureds{placed(x), placed(y)}
		switch {
		case pair.Less(0, 1):
			return 1
		case pair.Less(1, 0):
			return -1
		default:
			return 0
		}
	})
	return rollouts, others
}

// placed is what an object is sorted by. What workloads need comes after them, since it goes only where they go.
func placed(entry v1.InventoryEntry) *unstructured.Unstructured {
	object := stub(entry)
	switch entry.Kind {
	case "HorizontalPodAutoscaler", "PodDisruptionBudget", "PersistentVolumeClaim":
		object.SetKind("LimitRange") // applied right before workloads
	}
	return object
}

func isRolloutEntry(entry v1.InventoryEntry) bool {
	return entry.Kind == "Rollout" && entry.Group == v1.GroupVersion.Group
}

// stub is an object that is nothing but its name.
func stub(entry v1.InventoryEntry) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(schema.GroupVersionKind{Group: entry.Group, Version: entry.Version, Kind: entry.Kind})
	object.SetNamespace(entry.Namespace)
	object.SetName(entry.Name)
	return object
}

// one deletes, releases or keeps an object.
func (p *Pruner) one(ctx context.Context, entry v1.InventoryEntry, done *Pruned) error {
	live, err := p.read(ctx, entry)
	if err == nil && live != nil {
		err = p.decide(ctx, entry, live, done)
	}
	if err != nil {
		done.Kept = append(done.Kept, entry)
		return fmt.Errorf("prune %s: %w", describeEntry(entry), err)
	}
	return nil
}

// read returns an object as it is, nil when it is gone, or its kind is.
func (p *Pruner) read(ctx context.Context, entry v1.InventoryEntry) (*unstructured.Unstructured, error) {
	kind := schema.GroupKind{Group: entry.Group, Kind: entry.Kind}
	mapping, err := p.Client.RESTMapper().RESTMapping(kind, entry.Version)
	if meta.IsNoMatchError(err) {
		mapping, err = p.Client.RESTMapper().RESTMapping(kind) // another version of it is served
	}
	if meta.IsNoMatchError(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up kind %s: %w", entry.Kind, err)
	}
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(mapping.GroupVersionKind)
	err = p.Client.Get(ctx, types.NamespacedName{Namespace: entry.Namespace, Name: entry.Name}, live)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return live, err
}

func (p *Pruner) decide(ctx context.Context, entry v1.InventoryEntry, live *unstructured.Unstructured, done *Pruned) error {
	switch {
	case entry.Pending && !wasApplied(live):
		return nil // never came to it: it is somebody else's
	case live.GetAnnotations()[v1.PruneAnnotation] == v1.PruneDisabled:
		done.release(entry, "annotated "+v1.PruneAnnotation+": "+v1.PruneDisabled)
		return nil
	}
	if released, err := p.leave(entry, false, done); released || err != nil {
		return err
	}
	using, err := p.using(ctx, live)
	if err != nil || p.spare(entry, live, using, done) {
		return err
	}
	if kept, err := p.routed(ctx, entry, live, using, done); kept || err != nil {
		return err
	}
	if released, err := p.leave(entry, true, done); released || err != nil {
		return err
	}
	return p.remove(ctx, entry, live, done)
}

// leave releases what another GitSync applies.
func (p *Pruner) leave(entry v1.InventoryEntry, now bool, done *Pruned) (released bool, err error) {
	if p.Elsewhere == nil {
		return false, nil
	}
	if released, err = p.Elsewhere(entry, now); released {
		done.release(entry, "another GitSync applies it")
	}
	return released, err
}

// spare releases what a Rollout drives, and keeps what one needs, or what is kept needs.
func (p *Pruner) spare(entry v1.InventoryEntry, live *unstructured.Unstructured, using []traffic, done *Pruned) bool {
	for _, t := range using {
		if IsRouting(live) && mesh.Drives(t.rollout, live.GetKind(), live.GetName()) {
			done.release(entry, p.nameOf(t.rollout)+" drives it")
			return true
		}
	}
	for _, t := range using {
		if why, until := t.keeps(live, p.Now); why != "" {
			done.keep(entry, fmt.Sprintf("%s: %s of %s", describeEntry(entry), why, p.nameOf(t.rollout)), until)
			if workload, ok := newKeptWorkload(live, until); ok {
				p.kept = append(p.kept, workload)
			}
			return true
		}
	}
	why, until := keepsNeeded(p.kept, live)
	if why != "" {
		done.keep(entry, describeEntry(entry)+": "+why, until)
	}
	return why != ""
}

// wasApplied tells whether a GitSync has ever written an object.
func wasApplied(object *unstructured.Unstructured) bool {
	return slices.ContainsFunc(object.GetManagedFields(), func(e metav1.ManagedFieldsEntry) bool { return e.Manager == FieldManager })
}

// release notes an object that stays and is the GitSync's no more.
func (d *Pruned) release(entry v1.InventoryEntry, why string) {
	d.Released = append(d.Released, describeEntry(entry)+" ("+why+")")
}

// keep notes an object for later.
func (d *Pruned) keep(entry v1.InventoryEntry, why string, until time.Time) {
	d.Kept, d.Pending = append(d.Kept, entry), append(d.Pending, why)
	if !until.IsZero() && (d.Until.IsZero() || until.Before(d.Until)) {
		d.Until = until
	}
}

// using lists the Rollouts that may need an object, read after it.
func (p *Pruner) using(ctx context.Context, live *unstructured.Unstructured) ([]traffic, error) {
	namespace := live.GetNamespace()
	if isNamespace(live) {
		namespace = live.GetName()
	}
	_, isWorkload := podLabels(live)
	if !isWorkload && !isNamespace(live) && !IsRouting(live) && len(hostsOf(live)) == 0 {
		return nil, nil
	}
	rollouts := &v1.RolloutList{}
	if err := p.Live.List(ctx, rollouts, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("list Rollouts of %s: %w", namespace, err)
	}
	var using []traffic
	for i := range rollouts.Items {
		t := traffic{rollout: &rollouts.Items[i]}
		if isWorkload {
			var err error
			if t.services, err = p.servicesOf(ctx, t.rollout); err != nil {
				return nil, err
			}
		}
		using = append(using, t)
	}
	return using, nil
}

// servicesOf reads the Services of a Rollout's hosts, those of its namespace that are there.
func (p *Pruner) servicesOf(ctx context.Context, r *v1.Rollout) (map[string]*corev1.Service, error) {
	services := map[string]*corev1.Service{}
	for _, host := range r.HostKeys() {
		name, in, ok := mesh.ServiceOf(host, r.Namespace)
		if !ok || in != r.Namespace {
			continue
		}
		service := &corev1.Service{}
		switch err := p.Live.Get(ctx, types.NamespacedName{Namespace: in, Name: name}, service); {
		case err == nil:
			services[host] = service
		case !apierrors.IsNotFound(err):
			return nil, fmt.Errorf("read Service %s/%s: %w", in, name, err)
		}
	}
	return services, nil
}

// remove deletes exactly the object that was looked at.
func (p *Pruner) remove(ctx context.Context, entry v1.InventoryEntry, live *unstructured.Unstructured, done *Pruned) error {
	if live.GetDeletionTimestamp() == nil {
		uid := live.GetUID()
		err := p.Client.Delete(ctx, live, client.Preconditions(metav1.Preconditions{UID: &uid}), client.PropagationPolicy(metav1.DeletePropagationBackground))
		if client.IgnoreNotFound(err) != nil {
			return err
		}
		done.Deleted = append(done.Deleted, describeEntry(entry))
	}
	if !isRolloutEntry(entry) {
		return nil
	}
	switch live, err := p.read(ctx, entry); {
	case err != nil:
		return err
	case live != nil:
		done.Leaving = true
		done.keep(entry, describeEntry(entry)+" takes its traffic back to the stable version first, and all else waits for it", time.Time{})
	}
	return nil
}

// nameOf a Rollout, unless it is none of the tenant's business.
func (p *Pruner) nameOf(r *v1.Rollout) string {
	if r.Namespace != p.Namespace {
		return "a Rollout of namespace " + r.Namespace
	}
	return "Rollout " + r.Name
}

func describeEntry(entry v1.InventoryEntry) string { return describe(stub(entry)) }

// entryKey identifies an object, whatever version of its kind it was applied as.
func entryKey(e v1.InventoryEntry) string {
	return strings.Join([]string{e.Group, e.Kind, e.Namespace, e.Name}, "\x00")
}

// left are the entries of an inventory that manifests do not have any more.
func left(inventory []v1.InventoryEntry, manifests []Manifest) []v1.InventoryEntry {
	there := map[string]bool{}
	for _, manifest := range manifests {
		there[entryKey(entryFor(manifest.Object))] = true
	}
	return slices.DeleteFunc(slices.Clone(inventory), func(e v1.InventoryEntry) bool { return there[entryKey(e)] })
}
