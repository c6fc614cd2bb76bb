package analysis

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice.dev/sluice/internal/pipeline"
)

// at is so many seconds after a round time.
func at(seconds float64) time.Time {
	return time.Unix(1_700_000_000, 0).UTC().Add(time.Duration(seconds * float64(time.Second)))
}

func TestGridUntil(t *testing.T) {
	on := makeGrid(pipeline.GateWatch{First: at(10), Interval: 10 * time.Second})
	off := makeGrid(pipeline.GateWatch{First: at(13.5), Interval: 10 * time.Second, OffGrid: true})
	rounded := makeGrid(pipeline.GateWatch{First: at(3), Interval: 10 * time.Second})
	for name, c := range map[string]struct {
		grid  grid
		until time.Time
		want  []time.Time
	}{
		"before the first":      {on, at(9.999), nil},
		"at the first":          {on, at(10), []time.Time{at(10)}},
		"between":               {on, at(39), []time.Time{at(10), at(20), at(30)}},
		"off grid, before":      {off, at(13.4), nil},
		"off grid":              {off, at(13.5), []time.Time{at(13.5)}},
		"off grid, then on it":  {off, at(31), []time.Time{at(13.5), at(20), at(30)}},
		"first rounded up":      {rounded, at(20), []time.Time{at(10), at(20)}},
		"first not yet reached": {rounded, at(5), nil},
	} {
		if diff := cmp.Diff(c.want, c.grid.until(c.until)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if n := len(on.until(at(100_000))); n != maxSamples {
		t.Errorf("%d samples after a long time; want the newest %d", n, maxSamples)
	}
}

func TestGridAfterIsTheNextOfUntil(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := makeGrid(pipeline.GateWatch{
			First:    at(rapid.Float64Range(0, 100).Draw(t, "first")),
			Interval: time.Duration(rapid.IntRange(1, 30_000).Draw(t, "interval ms")) * time.Millisecond,
			OffGrid:  rapid.Bool().Draw(t, "off grid"),
		})
		now := at(rapid.Float64Range(-10, 200).Draw(t, "now"))
		next := g.after(now)
		if !next.After(now) {
			t.Fatalf("after(%s) = %s", now, next)
		}
		if times := g.until(next); !times[len(times)-1].Equal(next) {
			t.Fatalf("after(%s) = %s, but until ends with %s", now, next, times[len(times)-1])
		}
		if times := g.until(next.Add(-1)); len(times) > 0 && times[len(times)-1].After(now) {
			t.Fatalf("after(%s) = %s skips %s", now, next, times[len(times)-1])
		}
	})
}

func TestAsks(t *testing.T) {
	on := makeGrid(pipeline.GateWatch{First: at(10), Interval: 10 * time.Second})
	off := makeGrid(pipeline.GateWatch{First: at(13.5), Interval: 10 * time.Second, OffGrid: true})
	span := func(from, to float64) ask {
		return ask{"q", at(from).UnixNano(), at(to).UnixNano(), 10 * time.Second}
	}
	instant := ask{"q", at(13.5).UnixNano(), at(13.5).UnixNano(), 0}
	for name, c := range map[string]struct {
		grid  grid
		times []time.Time
		want  []ask
	}{
		"nothing":           {on, nil, nil},
		"one":               {on, []time.Time{at(10)}, []ask{span(10, 10)}},
		"with a gap":        {on, []time.Time{at(10), at(40)}, []ask{span(10, 40)}},
		"off grid":          {off, []time.Time{at(13.5)}, []ask{instant}},
		"off and on":        {off, []time.Time{at(13.5), at(20), at(30)}, []ask{instant, span(20, 30)}},
		"off grid is known": {off, []time.Time{at(20)}, []ask{span(20, 20)}},
	} {
		var got []ask
		for _, p := range c.grid.asks("q", c.times) {
			got = append(got, p.ask)
		}
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(ask{})); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}
