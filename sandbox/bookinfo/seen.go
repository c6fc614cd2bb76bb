package bookinfo

import (
	"maps"
	"net/http"
	"sync"
)

// sightings are the requests that came, by method and host: "GET reviews:9080". In life one reads that in an app's log; a mirrored
// request, whose answer nobody sees, has no other witness.
type sightings struct {
	mu     sync.Mutex
	counts map[string]int
}

func (s *sightings) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts == nil {
		s.counts = map[string]int{}
	}
	s.counts[r.Method+" "+r.Host]++
}

// serve tells of them: /seen. It is not counted itself.
func (s *sightings) serve(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	counts := maps.Clone(s.counts)
	s.mu.Unlock()
	answer(w, http.StatusOK, counts)
}
