package simulation

import (
	"math/rand/v2"
	"time"
)

// fate is what becomes of one write.
type fate int

const (
	lands fate = iota
	// unavailable and refused: the server says no and nothing landed.
	unavailable
	refused
	// lost: the write landed and the answer did not arrive.
	lost
	crashBefore
	crashAfter
)

// faults draws what goes wrong. Without rates, everything goes right.
type faults struct {
	rng *rand.Rand
	// The rates are chances per call.
	unavailable, lost, crash, refusal, interlude float64
	// refusing tells for how long a kind's writes are refused.
	refusing map[string]bool
	// refusingObjects tells the same of single objects, for scripts.
	refusingObjects map[objectKey]bool
	// lags of the caches, by kind; others are fast.
	lags map[string]time.Duration
	// jitter makes latencies vary; transcripts go without.
	jitter bool
	// forced is the fate of the next write of a kind, for scripts.
	forced map[string]fate
}

func (f *faults) draw(chance float64) bool { return chance > 0 && f.rng.Float64() < chance }

func (f *faults) fate(key objectKey) fate {
	if forced, ok := f.forced[key.kind]; ok {
		delete(f.forced, key.kind)
		return forced
	}
	mesh := key.kind == kindVirtualService || key.kind == kindDestinationRule
	switch {
	case f.refusing[key.kind], f.refusingObjects[key], mesh && f.draw(f.refusal):
		return refused
	case f.draw(f.unavailable):
		return unavailable
	case f.draw(f.lost):
		return lost
	}
	if f.draw(f.crash) {
		return crashBefore
	}
	if f.draw(f.crash) {
		return crashAfter
	}
	return lands
}

// calm ends all faults.
func (f *faults) calm() {
	f.unavailable, f.lost, f.crash, f.refusal, f.interlude = 0, 0, 0, 0, 0
	f.refusing, f.lags = nil, nil
}

func (f *faults) between(low, high time.Duration) time.Duration {
	if !f.jitter {
		return low
	}
	// Status keeps microseconds, and so does this clock.
	return (low + time.Duration(f.rng.Int64N(int64(high-low)))).Truncate(time.Microsecond)
}

func (f *faults) writeLatency() time.Duration {
	return f.between(5*time.Millisecond, 30*time.Millisecond)
}

func (f *faults) downtime() time.Duration { return f.between(3*time.Second, 40*time.Second) }

func (f *faults) lag(kind string) time.Duration {
	if lag, ok := f.lags[kind]; ok {
		return lag
	}
	return f.between(2*time.Millisecond, 40*time.Millisecond)
}
