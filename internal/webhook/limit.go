package webhook

import (
	"hash/maphash"
	"time"

	"golang.org/x/time/rate"
)

// Requests that a replica looks at: more are answered with 429 before their bodies are read.
const (
	eachPerSecond, eachBurst = 10, 20
	allPerSecond, allBurst   = 200, 400
)

// limits keep a storm at one path from the others, and storms at many from the process. Paths share a fixed number of buckets
// by a seeded hash: so the limits take no memory for paths that strangers make up, and say nothing about which exist.
type limits struct {
	seed maphash.Seed
	each [1024]*rate.Limiter
	all  *rate.Limiter
}

func newLimits() *limits {
	l := &limits{seed: maphash.MakeSeed(), all: rate.NewLimiter(allPerSecond, allBurst)}
	for i := range l.each {
		l.each[i] = rate.NewLimiter(eachPerSecond, eachBurst)
	}
	return l
}

func (l *limits) allow(path string, now time.Time) bool {
	bucket := maphash.String(l.seed, path) % uint64(len(l.each))
	return l.each[bucket].AllowN(now, 1) && l.all.AllowN(now, 1)
}
