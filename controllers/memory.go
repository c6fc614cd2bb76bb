package controllers

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// memory holds what this process knows of each Rollout's mesh and status does not: it is begun afresh by a restart, and
// nothing but delays and clocks depends on it.
type memory struct {
	mu    sync.Mutex
	notes map[types.NamespacedName]*notes
}

// notes of one Rollout. Only its own reconcile uses them, one at a time.
type notes struct {
	uid types.UID
	// seen tells since when the rule is known to hold a subset, by its name and labels; nil before the rule was looked at.
	seen map[string]sighting
	// unnamed tells since when no route of the namespace names a subset that leaves.
	unnamed map[string]time.Time
	// traffic is the hash of the traffic that written is about; acked is the time of its last acknowledged write.
	traffic string
	acked   time.Time
	// touched is true when the mesh was not as that traffic says, or a write of it was tried.
	touched bool
	written *pipeline.Written
	// unsure: the mesh has to be read live before it is believed: the outcome of a write is not known, or the way back was
	// planned on a cache.
	unsure bool
	// grounded: what a cache said of the mesh when it had just begun was compared with the API server.
	grounded bool
	// refusal is why the API server refused the last write.
	refusal *pipeline.Problem
	// toldOfDeletion: an event told that the deletion waits.
	toldOfDeletion bool
	// conflicts in a row, by which retries back off.
	conflicts int
	// owners are, of the VirtualServices that could be deleted, the field managers that have some of their spec; empty: none.
	owners map[string]string
	// contests for objects that others write as well.
	contests map[objectRef]*contest
}

// sighting of a subset in the rule. came: it was not there before.
type sighting struct {
	since time.Time
	came  bool
}

func newMemory() *memory {
	return &memory{notes: map[types.NamespacedName]*notes{}}
}

// of returns the notes of a Rollout; those of an earlier one of the same name are dropped.
func (m *memory) of(rollout *v1.Rollout) *notes {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := types.NamespacedName{Namespace: rollout.Namespace, Name: rollout.Name}
	n := m.notes[key]
	if n == nil || n.uid != rollout.UID {
		n = &notes{uid: rollout.UID, unnamed: map[string]time.Time{}}
		m.notes[key] = n
	}
	return n
}

func (m *memory) forget(key types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.notes, key)
}

// about turns to another traffic: what was known of the former one says nothing.
func (n *notes) about(traffic *v1.Traffic) {
	if h := hashOf(traffic); h != n.traffic {
		n.traffic, n.acked, n.touched, n.written = h, time.Time{}, false, nil
	}
}

// settle notes whether the mesh is as the traffic says, and returns since when that is known; nil when it is not so.
func (n *notes) settle(settled bool, now time.Time) *pipeline.Written {
	switch {
	case !settled:
		n.written, n.acked, n.touched = nil, time.Time{}, true
	case n.written != nil:
	case !n.acked.IsZero():
		n.written = &pipeline.Written{At: n.acked, Wrote: true}
	default:
		n.written = &pipeline.Written{At: now, Wrote: n.touched}
	}
	return n.written
}

// observeSubsets notes which subsets the rule holds; one that changed or went away is waited for anew.
func (n *notes) observeSubsets(found []v1.Subset, now time.Time) {
	came := n.seen != nil
	present := map[string]sighting{}
	for _, subset := range found {
		key := subsetKey(subset.Name, subset.Labels)
		known, ok := n.seen[key]
		if !ok {
			known = sighting{since: now, came: came}
		}
		present[key] = known
	}
	n.seen = present
}

// untilKnown is how much longer the mesh is given to learn of a subset. On the way back to stable only one that came lately
// is waited for, not one that was there when this process began.
func (n *notes) untilKnown(name string, labels map[string]string, wayBack bool, delay time.Duration, now time.Time) time.Duration {
	known, ok := n.seen[subsetKey(name, labels)]
	switch {
	case !ok:
		return delay
	case wayBack && !known.came:
		return 0
	}
	return max(0, delay-now.Sub(known.since))
}

// needed: a subset does not leave any more; if it does so again, its time is counted afresh.
func (n *notes) needed(name string) { delete(n.unnamed, name) }

// untilReleased is how much longer a subset stays that no route names any more; named ones stay.
func (n *notes) untilReleased(name string, named bool, delay time.Duration, now time.Time) (time.Duration, bool) {
	if named {
		delete(n.unnamed, name)
		return 0, false
	}
	since, ok := n.unnamed[name]
	if !ok {
		n.unnamed[name], since = now, now
	}
	return max(0, delay-now.Sub(since)), true
}

func subsetKey(name string, labels map[string]string) string {
	key := name
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		key += "\x00" + k + "=" + labels[k]
	}
	return key
}

// hashOf the value's JSON. It goes through a tree, since Istio's messages marshal with varying white space.
func hashOf(value any) string {
	sum := sha256.Sum256(v1.CanonicalJSON(value))
	return hex.EncodeToString(sum[:8])
}
