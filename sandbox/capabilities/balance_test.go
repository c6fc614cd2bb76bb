package capabilities

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/bookinfo"
)

// pods asks n times, one after the other, and tells which pods answered.
func (s *stage) pods(t *testing.T, n int) []string {
	t.Helper()
	names := make([]string, n)
	for i := range names {
		names[i] = podOf(s.get(t, reviewsURL))
	}
	return names
}

func podOf(a answer) string {
	var said struct {
		Pod string `json:"podname"`
	}
	if err := json.Unmarshal([]byte(a.body), &said); err != nil {
		return fmt.Sprintf("status %d", a.status)
	}
	return said.Pod
}

// inTurn tells whether a number of pods answered, each as often as the others and always in the same order.
func inTurn(names []string, pods int) bool {
	different := map[string]bool{}
	for i, name := range names {
		different[name] = true
		if i >= pods && name != names[i-pods] {
			return false
		}
	}
	return len(different) == pods
}

// waitKept waits until each user has a pod of its own, and not all have the same.
func (s *stage) waitKept(t *testing.T) {
	t.Helper()
	s.eventually(t, "each user keeps a pod of v1", func() (bool, string) {
		pods := map[string]bool{}
		for user := range 20 {
			header := fmt.Sprintf("end-user: user-%d", user)
			kept := podOf(s.get(t, reviewsURL, header))
			for range 4 {
				if other := podOf(s.get(t, reviewsURL, header)); other != kept {
					return false, fmt.Sprintf("%s met %s and %s", header, kept, other)
				}
			}
			pods[kept] = true
		}
		return len(pods) > 1, fmt.Sprint(pods)
	})
}

// Test16LoadBalancing: at random for the host and then by a header, in turn for v2, and v3's slow pod is spared.
func Test16LoadBalancing(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "16-load-balancing", apps: []string{"bookinfo.yaml"}})
	const replicas = 3
	s.waitServed(t, "v1", reviewsURL)
	s.eventually(t, "v1 at random", func() (bool, string) {
		names := s.pods(t, 60)
		different := map[string]bool{}
		for _, name := range names {
			different[name] = true
		}
		return len(different) == replicas && !inTurn(names, replicas), fmt.Sprint(names)
	})
	s.pushEdit(t, "rollout.yaml", "{simple: RANDOM}", "{consistentHash: {httpHeaderName: end-user}}")
	s.waitKept(t)
	s.pushVersion(t, "rollout.yaml", "v2")
	s.waitHealthy(t, "reviews", "v2")
	s.eventually(t, "v2 in turn", func() (bool, string) {
		names := s.pods(t, 60)
		return inTurn(names, replicas), fmt.Sprint(names)
	})
	s.pushVersion(t, "rollout.yaml", "v3")
	s.waitHealthy(t, "reviews", "v3")
	s.waitServed(t, "v3", reviewsURL)
	var slow string
	s.Misbehave("reviews-v3", bookinfo.Misbehaviour{Latency: 300 * time.Millisecond})
	s.eventually(t, "the slow pod is found", func() (bool, string) {
		a := s.get(t, reviewsURL)
		slow = podOf(a)
		return a.took >= 300*time.Millisecond && a.version == "v3", a.body
	})
	s.eventually(t, "the slow pod of v3 is spared", func() (bool, string) {
		counts := s.crowdOfPods(t, 6, 40)
		return len(counts) == replicas && counts[slow] < 240/6, fmt.Sprintf("%s of %v", slow, counts) // half of what chance gives
	})
}

// crowdOfPods has users ask n times each, all at the same time, and counts the pods that answered.
func (s *stage) crowdOfPods(t *testing.T, users, n int) map[string]int {
	t.Helper()
	var lock sync.Mutex
	var all sync.WaitGroup
	counts := map[string]int{}
	for range users {
		all.Go(func() {
			for range n {
				a, err := s.try(t.Context(), reviewsURL)
				if err != nil {
					t.Error(err)
					return
				}
				lock.Lock()
				counts[podOf(a)]++
				lock.Unlock()
			}
		})
	}
	all.Wait()
	return counts
}
