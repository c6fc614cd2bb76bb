package gitsync

import (
	"context"
	"fmt"
	"slices"
	"strings"
	once "sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// others lists the other GitSyncs. What one has just come to apply, a cache may not know of yet.
func others(ctx context.Context, from client.Reader, sync *v1.GitSync, options ...client.ListOption) ([]v1.GitSync, error) {
	syncs := &v1.GitSyncList{}
	if err := from.List(ctx, syncs, options...); err != nil {
		return nil, fmt.Errorf("list GitSyncs: %w", err)
	}
	return slices.DeleteFunc(syncs.Items, func(other v1.GitSync) bool { return other.UID == sync.UID }), nil
}

// elsewhere tells which objects the GitSyncs of all namespaces apply beside one. They are read when the first is asked for.
func (r *Reconciler) elsewhere(ctx context.Context, sync *v1.GitSync) func(entry v1.InventoryEntry, now bool) (bool, error) {
	applied := func(from client.Reader) func() (map[string]bool, error) {
		return once.OnceValues(func() (map[string]bool, error) {
			all, err := others(ctx, from, sync)
			return appliedBy(all), err
		})
	}
	cached, live := applied(r.Client), applied(r.Live)
	return func(entry v1.InventoryEntry, now bool) (bool, error) {
		read := cached
		if now {
			read = live
		}
		all, err := read()
		return all[entryKey(entry)], err
	}
}

func appliedBy(others []v1.GitSync) map[string]bool {
	applied := map[string]bool{}
	for i := range others {
		if others[i].DeletionTimestamp != nil && prunesAll(&others[i]) {
			continue // of two that go at once, each would leave to the other what both applied
		}
		for _, entry := range others[i].Status.Inventory {
			applied[entryKey(entry)] = true
		}
	}
	return applied
}

// disputed tells which of the objects that had to be put back another GitSync applies as well, which has them flap for ever.
func (r *Reconciler) disputed(ctx context.Context, sync *v1.GitSync, changed []string) string {
	all, err := others(ctx, r.Client, sync)
	if err != nil {
		return "" // if it flaps, the next pass tells
	}
	for i := range all {
		for _, entry := range all[i].Status.Inventory {
			if name := describeEntry(entry); !entry.Pending && slices.Contains(changed, name) {
				return fmt.Sprintf("GitSync %s/%s applies %s as well, and otherwise: leave it out of one of the two", all[i].Namespace, all[i].Name, name)
			}
		}
	}
	return ""
}

// siblings are the GitSyncs of the same namespace that follow the same ref of the same repository: a commit may move an object
// from one's path to another's.
func siblings(sync *v1.GitSync, others []v1.GitSync) (names []types.NamespacedName) {
	for i := range others {
		other := &others[i]
		if other.Namespace == sync.Namespace && other.DeletionTimestamp == nil && !other.Spec.Suspend && follows(&other.Spec) == follows(&sync.Spec) {
			names = append(names, client.ObjectKeyFromObject(other))
		}
	}
	return names
}

// follows is the repository and the ref of a GitSync, to be compared.
func follows(spec *v1.GitSyncSpec) string {
	source, err := ParseSource(spec)
	if err != nil {
		return ""
	}
	address := strings.TrimSuffix(strings.TrimSuffix(source.URL.String(), "/"), ".git")
	return fmt.Sprintf("%s %+v", address, source.Ref)
}

// behind names a GitSync that has not gone through a pass that began after since; empty: all have.
func (r *Reconciler) behind(names []types.NamespacedName, since time.Time) string {
	for _, name := range names {
		if !r.recall.passedSince(name, since) {
			return name.Name
		}
	}
	return ""
}

// leftAt remembers since when which objects are not in the repository any more, by their keys.
type leftAt map[string]time.Time

// note forgets what is back or gone.
func (l leftAt) note(stale []v1.InventoryEntry, now time.Time) leftAt {
	next := leftAt{}
	for _, entry := range stale {
		key := entryKey(entry)
		if since, known := l[key]; known {
			next[key] = since
		} else {
			next[key] = now
		}
	}
	return next
}

// awaitSiblings keeps what left the repository until each sibling has gone through a pass that began since: until then it may be
// what the sibling is about to apply, afterwards it is in its inventory or is not. The others are due.
func (r *Reconciler) awaitSiblings(sync *v1.GitSync, known *remembered, others []v1.GitSync, stale []v1.InventoryEntry) (due []v1.InventoryEntry, waiting Pruned) {
	known.left = known.left.note(stale, r.Clock.Now())
	names := siblings(sync, others)
	for _, entry := range stale {
		behind := r.behind(names, known.left[entryKey(entry)])
		if behind == "" {
			due = append(due, entry)
			continue
		}
		waiting.keep(entry, fmt.Sprintf("%s: GitSync %s of the same repository may have it now, and has not applied this revision yet",
			describeEntry(entry), behind), time.Time{})
	}
	return due, waiting
}
