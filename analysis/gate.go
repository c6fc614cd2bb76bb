package analysis

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/internal/pipeline"
)

// gate is a gate under watch. What stands above samples never changes; the rest is guarded by the Analyst's mutex.
type gate struct {
	key   types.NamespacedName
	watch pipeline.GateWatch
	grid  grid
	query gateQuery
	rule  rule
	// broken is why the gate can not be asked for at all, in words for the user.
	broken string

	// samples in order of time, the newest maxSamples (more where the gate needs more to decide).
	samples []judged
	// refused is Prometheus' message when it last refused the query.
	refused string
	// forgotten gates are no longer watched; what still comes in about them is dropped.
	forgotten bool
}

func newGate(key types.NamespacedName, watch pipeline.GateWatch) *gate {
	g := &gate{key: key, watch: watch}
	query, err := makeQuery(watch)
	var lim limits
	if err == nil {
		lim, err = makeLimits(watch)
	}
	if err != nil {
		g.broken = tidy(err.Error())
		return g
	}
	if watch.Interval <= 0 {
		g.broken = "gate " + watch.Name + ": interval: " + watch.Interval.String() + "; a positive one is needed"
		return g
	}
	g.query, g.grid = query, makeGrid(watch)
	g.rule = rule{limits: lim, window: watch.Window}
	if query.count != "" {
		g.rule.minRequests = watch.MinRequests
	}
	return g
}

// missing lists the times up to until whose samples are not known, or may still change.
func (g *gate) missing(until time.Time) []time.Time {
	known := map[int64]bool{}
	for _, s := range g.samples {
		known[s.Time.UnixNano()] = !s.provisional
	}
	return slices.DeleteFunc(g.grid.until(until), func(t time.Time) bool { return known[t.UnixNano()] })
}

// outcome is what came of asking for some samples.
type outcome struct {
	samples []judged
	refused string
}

// evaluate judges the readings for times. The first refused query spoils all of them.
func (g *gate) evaluate(times []time.Time, values, counts []reading) outcome {
	for _, r := range slices.Concat(values, counts) {
		if r.invalid != "" {
			return outcome{refused: r.invalid}
		}
	}
	out := outcome{}
	for i, t := range times {
		count := reading{}
		if counts != nil {
			count = counts[i]
		}
		out.samples = append(out.samples, g.rule.judge(t, values[i], count))
	}
	return out
}

// apply takes in an outcome and returns the samples that are new or changed; changed also tells of a query newly refused or accepted.
func (g *gate) apply(out outcome) (news []pipeline.Sample, changed bool) {
	changed = g.refused != out.refused
	g.refused = out.refused
	for _, s := range out.samples {
		i, found := slices.BinarySearchFunc(g.samples, s.Time, func(have judged, t time.Time) int { return have.Time.Compare(t) })
		switch {
		case !found:
			g.samples = slices.Insert(g.samples, i, s)
		case g.samples[i].provisional && g.samples[i] != s:
			g.samples[i] = s
		default:
			continue
		}
		news = append(news, s.Sample)
	}
	keep := max(maxSamples, g.watch.Samples, g.watch.Failures)
	g.samples = slices.Clone(g.samples[max(0, len(g.samples)-keep):])
	return news, changed || len(news) > 0
}

// snapshot is what the pipeline sees of the gate.
func (g *gate) snapshot(watch string) pipeline.GateSamples {
	out := pipeline.GateSamples{For: watch, InvalidQuery: g.refused, Query: g.query.value}
	if g.broken != "" {
		out.InvalidQuery, out.Query = g.broken, g.watch.Query
	}
	for _, s := range g.samples {
		out.Samples = append(out.Samples, s.Sample)
	}
	return out
}
