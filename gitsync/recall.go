package gitsync

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	v1 "sluice.dev/sluice/api/v1"
)

// recall holds, per GitSync, what need not be fetched again. Losing it costs a download each.
type recall struct {
	mu      sync.Mutex
	entries map[types.NamespacedName]*remembered
	// passed is when the last pass began that went through and was recorded.
	passed map[types.NamespacedName]time.Time
}

// remembered belongs to the one worker that reconciles its GitSync.
type remembered struct {
	uid types.UID
	// revision that was decoded, and of what.
	url, path string
	ref       v1.GitRef
	commit    string
	manifests []Manifest
	// problem is why commit has no manifests.
	problem error
	// failures in a row.
	failures int
	// left is since when objects of the inventory are not in the repository any more.
	left leftAt
}

func (m *recall) of(key types.NamespacedName, uid types.UID) *remembered {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries == nil {
		m.entries = map[types.NamespacedName]*remembered{}
	}
	if entry := m.entries[key]; entry != nil && entry.uid == uid {
		return entry
	}
	m.entries[key] = &remembered{uid: uid}
	return m.entries[key]
}

func (m *recall) forget(key types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, key)
	delete(m.passed, key)
}

func (m *recall) pass(key types.NamespacedName, began time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.passed == nil {
		m.passed = map[types.NamespacedName]time.Time{}
	}
	m.passed[key] = began
}

func (m *recall) passedSince(key types.NamespacedName, since time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.passed[key].After(since)
}

// knownCommit is the commit whose manifests are remembered for a source, or none.
func (r *remembered) knownCommit(source Source) string {
	if r.url == source.URL.String() && r.path == source.Path && r.ref == source.Ref {
		return r.commit
	}
	return ""
}

func (r *remembered) keep(source Source, commit string, manifests []Manifest, problem error) {
	r.url, r.path, r.ref = source.URL.String(), source.Path, source.Ref
	r.commit, r.manifests, r.problem = commit, manifests, problem
}

// backoff doubles from a second up to the interval.
func backoff(failures int, interval time.Duration) time.Duration {
	const longestShift = 16
	return min(interval, time.Second<<min(max(failures-1, 0), longestShift))
}

// slots keep one namespace, whose servers may all hang, from taking every worker.
type slots struct {
	mu    sync.Mutex
	limit int
	taken map[string]int
}

// take returns false when the namespace has its share already.
func (s *slots) take(namespace string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken == nil {
		s.taken = map[string]int{}
	}
	if s.taken[namespace] >= s.limit {
		return false
	}
	s.taken[namespace]++
	return true
}

func (s *slots) free(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[namespace]--; s.taken[namespace] == 0 {
		delete(s.taken, namespace)
	}
}
