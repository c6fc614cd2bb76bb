package gitsync

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
)

// maxMessage bounds a condition's message in bytes; the API server's limit is 32 KiB.
const maxMessage = 2000

// attempt is what one pass over a GitSync came to.
type attempt struct {
	// reason of the Ready condition.
	reason string
	// message for people, without the revision that stays.
	message string
	// commit that was fetched; empty when that is not known.
	commit string
	// outcome of applying; the zero value when it did not come to that.
	outcome Outcome
	// stalled means that only the user can heal it.
	stalled bool
	// retry soon, rather than at the next interval.
	retry bool
	// wait for a change of the object instead of any time.
	wait bool
}

func (a attempt) applied() bool { return a.reason == v1.ReasonApplied }

// whole tells whether all of the revision is applied, whatever came afterwards.
func (a attempt) whole() bool { return a.applied() || a.reason == v1.ReasonPruneFailed }

// nextStatus is the status after an attempt; changed is false when nothing in it is worth a write.
func nextStatus(sync *v1.GitSync, a attempt, now metav1.MicroTime) (next v1.GitSyncStatus, changed bool) {
	next = *sync.Status.DeepCopy()
	next.ObservedGeneration = sync.Generation
	next.WebhookPath = ""
	if sync.Spec.Webhook != nil {
		next.WebhookPath = v1.WebhookPathOf(sync.Namespace, sync.Name)
	}
	if command := sync.Annotations[v1.CommandAnnotation]; command != "" && a.reason != v1.ReasonFetching {
		next.LastCommand = command
	}
	if a.commit != "" {
		next.AttemptedRevision = a.commit
	}
	if a.whole() {
		next.Revision = a.commit
		next.Inventory = sortedInventory(a.outcome.Applied)
		switch pruned := a.outcome.Pruned; {
		case pruned != nil:
			next.Inventory = sortedInventory(slices.Concat(a.outcome.Applied, pruned.Kept))
		case !a.applied():
			next.Inventory = sortedInventory(slices.Concat(a.outcome.Applied, sync.Status.Inventory))
		}
	} else if len(a.outcome.Applied) > 0 {
		// Cut off in the midst: what was written so far counts, what was there before is still there.
		next.Inventory = sortedInventory(slices.Concat(a.outcome.Applied, next.Inventory))
	}
	setConditions(&next, a, sync.Generation, metav1.NewTime(now.Time))
	if equality.Semantic.DeepEqual(next, sync.Status) {
		return next, false
	}
	failed := !a.applied() && a.reason != v1.ReasonSuspended && a.reason != v1.ReasonFetching
	if failed || next.AttemptedRevision != sync.Status.AttemptedRevision {
		next.LastFetch = &now
	}
	return next, true
}

func setConditions(status *v1.GitSyncStatus, a attempt, generation int64, now metav1.Time) {
	ready := metav1.ConditionFalse
	if a.applied() {
		ready = metav1.ConditionTrue
	}
	if old := meta.FindStatusCondition(status.Conditions, v1.ConditionReady); old != nil && a.reason == v1.ReasonSuspended {
		ready = old.Status // what was applied stays as good as it was
	}
	set := func(kind string, value metav1.ConditionStatus) {
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{
			Type: kind, Status: value, Reason: a.reason, Message: messageOf(status, a), ObservedGeneration: generation, LastTransitionTime: now,
		})
	}
	set(v1.ConditionReady, ready)
	if a.whole() {
		setPending(status, a.outcome.Pruned, generation, now)
	}
	busy := !a.stalled && !a.applied() && a.reason != v1.ReasonSuspended
	for kind, on := range map[string]bool{v1.ConditionReconciling: busy, v1.ConditionStalled: a.stalled} {
		if on {
			set(kind, metav1.ConditionTrue)
		} else {
			meta.RemoveStatusCondition(&status.Conditions, kind)
		}
	}
}

// setPending keeps the condition only while something waits to be pruned.
func setPending(status *v1.GitSyncStatus, pruned *Pruned, generation int64, now metav1.Time) {
	if pruned == nil || len(pruned.Pending) == 0 {
		meta.RemoveStatusCondition(&status.Conditions, v1.ConditionPrunePending)
		return
	}
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: v1.ConditionPrunePending, Status: metav1.ConditionTrue, Reason: v1.ReasonInUse, ObservedGeneration: generation, LastTransitionTime: now,
		Message: oneLine("Not in the repository any more, and kept for now: "+strings.Join(pruned.Pending, "; "), maxMessage),
	})
}

// messageOf adds to what went wrong what is still right.
func messageOf(status *v1.GitSyncStatus, a attempt) string {
	message := oneLine(a.message, maxMessage)
	if !a.applied() && a.reason != v1.ReasonFetching && status.Revision != "" {
		message += fmt.Sprintf("; revision %.7s stays applied", status.Revision)
	}
	return message
}

// announced is an inventory with the objects of a revision that are not in it yet; changed is false when there are none.
func announced(inventory []v1.InventoryEntry, manifests []Manifest) (next []v1.InventoryEntry, changed bool) {
	next = slices.Clone(inventory)
	for _, manifest := range manifests {
		entry := entryFor(manifest.Object)
		entry.Pending = true
		next = append(next, entry)
	}
	next = sortedInventory(next)
	return next, len(next) > len(inventory)
}

// sortedInventory has each object once: the first entry of it.
func sortedInventory(entries []v1.InventoryEntry) []v1.InventoryEntry {
	sorted := slices.Clone(entries)
	slices.SortStableFunc(sorted, func(x, y v1.InventoryEntry) int { return strings.Compare(entryKey(x), entryKey(y)) })
	return slices.CompactFunc(sorted, func(x, y v1.InventoryEntry) bool { return entryKey(x) == entryKey(y) })
}

// transition tells whether an attempt is news to someone who knows the status before it.
func transition(before v1.GitSyncStatus, a attempt) bool {
	ready := meta.FindStatusCondition(before.Conditions, v1.ConditionReady)
	if ready == nil || ready.Reason != a.reason {
		return true
	}
	return a.commit != "" && a.commit != before.AttemptedRevision
}
