package gitsync

import (
	"context"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// others lists the other GitSyncs as they are now: what one has just come to apply, a cache may not know of yet.
func (r *Reconciler) others(ctx context.Context, sync *v1.GitSync) ([]v1.GitSync, error) {
	syncs := &v1.GitSyncList{}
	if err := r.Live.List(ctx, syncs); err != nil {
		return nil, fmt.Errorf("list GitSyncs: %w", err)
	}
	var others []v1.GitSync
	for _, other := range syncs.Items {
		if other.UID != sync.UID {
			others = append(others, other)
		}
	}
	return others, nil
}

// elsewhere tells which objects other GitSyncs apply.
func elsewhere(others []v1.GitSync) func(v1.InventoryEntry) bool {
	applied := map[string]bool{}
	for i := range others {
		if others[i].DeletionTimestamp != nil && prunesAll(&others[i]) {
			continue // of two that go at once, each would leave to the other what both applied
		}
		for _, entry := range others[i].Status.Inventory {
			applied[entryKey(entry)] = true
		}
	}
	return func(entry v1.InventoryEntry) bool { return applied[entryKey(entry)] }
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
		behind := ""
		for _, name := range names {
			if !r.recall.passedSince(name, known.left[entryKey(entry)]) {
				behind = name.Name
				break
			}
		}
		if behind == "" {
			due = append(due, entry)
			continue
		}
		waiting.keep(entry, fmt.Sprintf("%s: GitSync %s of the same repository may have it now, and has not applied this revision yet",
			describeEntry(entry), behind), time.Time{})
	}
	return due, waiting
}
