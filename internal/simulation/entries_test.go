package simulation

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSeedsOfEntries has the team describe other VirtualServices, or fewer, every now and then, among everything else that goes wrong.
func TestSeedsOfEntries(t *testing.T) {
	t.Parallel()
	left := 0
	seeds := uint64(40)
	if raceDetector {
		seeds = 5
	}
	for seed := range seeds {
		w := newWorld(seed)
		synctest.Test(t, func(*testing.T) {
			s := w.drawSetting()
			if s.connections() || s.elsewhere {
				return // descriptions are of HTTP
			}
			s.described = true
			s.mesh, s.edge, s.late, s.foundSubsets, s.spec.VirtualServices = "none", false, false, nil, nil
			w.build(s)
			w.trouble(epoch.Add(time.Minute), epoch.Add(time.Minute+troubled))
			for at := 90 * time.Second; at < troubled; at += 35 * time.Second {
				w.at(epoch.Add(at), func() { w.ifAlive(w.describeRoutes) })
			}
			w.run(epoch.Add(time.Minute + troubled))
			w.settle()
		})
		if w.violation != nil {
			t.Fatalf("seed %d: %v", seed, w.violation)
		}
		left += w.sometimes["a VirtualService left"]
	}
	if left == 0 && !raceDetector {
		t.Errorf("in %d seeds no VirtualService left", seeds)
	}
	t.Logf("%d VirtualServices left", left)
}
