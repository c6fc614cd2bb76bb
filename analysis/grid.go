package analysis

import (
	"slices"
	"time"

	"sluice.dev/sluice/internal/pipeline"
)

// maxSamples is how many samples of a gate are asked for at once, and kept: the newest ones.
const maxSamples = 200

// grid is when the samples of a gate are: at first, then at each multiple of interval since the epoch.
type grid struct {
	first    time.Time
	interval time.Duration
	// offGrid: first need not be a multiple.
	offGrid bool
}

func makeGrid(g pipeline.GateWatch) grid {
	out := grid{first: g.First, interval: g.Interval, offGrid: g.OffGrid}
	if floor := out.floor(g.First); !g.OffGrid && !floor.Equal(g.First) {
		out.first = floor.Add(g.Interval)
	}
	return out
}

func (g grid) floor(t time.Time) time.Time {
	n := t.UnixNano()
	return time.Unix(0, n-n%int64(g.interval)).UTC()
}

// after is the time of the first sample after t.
func (g grid) after(t time.Time) time.Time {
	if t.Before(g.first) {
		return g.first
	}
	return g.floor(t).Add(g.interval)
}

// until lists the times of the newest maxSamples samples up to and including t, in order.
func (g grid) until(t time.Time) []time.Time {
	var times []time.Time
	for at := g.floor(t); at.After(g.first) && len(times) < maxSamples; at = at.Add(-g.interval) {
		times = append(times, at)
	}
	if !t.Before(g.first) && len(times) < maxSamples {
		times = append(times, g.first)
	}
	slices.Reverse(times)
	return times
}

// ask is one request to Prometheus. Equal asks have equal answers, so that they are shared.
type ask struct {
	query string
	// start and end in nanoseconds since the epoch, both included; an instant query has step 0 and start = end.
	start, end int64
	step       time.Duration
}

// asks covers the given times of the grid, which are in order, with as few requests as can be: an instant query for
// a sample off the grid, a range query for all the others. Each ask comes with the times that it answers for.
func (g grid) asks(query string, times []time.Time) []planned {
	var plan []planned
	if g.offGrid && len(times) > 0 && times[0].Equal(g.first) {
		at := times[0].UnixNano()
		plan = append(plan, planned{ask{query, at, at, 0}, times[:1]})
		times = times[1:]
	}
	if n := len(times); n > 0 {
		plan = append(plan, planned{ask{query, times[0].UnixNano(), times[n-1].UnixNano(), g.interval}, times})
	}
	return plan
}

// planned is an ask and what it is for.
type planned struct {
	ask   ask
	times []time.Time
}
