package plan

import (
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/analysis"
	"sluice.dev/sluice/internal/pipeline"
)

// optimist is an analysis in which every gate and probe passes as soon as it can.
type optimist struct {
	clock  *jumpingClock
	config pipeline.Config
	watch  *pipeline.Watch
	// set is told of each watch.
	set func(*pipeline.Watch)
}

// Set implements controllers.Analyst.
func (o *optimist) Set(_ types.NamespacedName, watch *pipeline.Watch) {
	o.watch = watch
	if watch != nil {
		o.set(watch)
	}
}

// Samples implements controllers.Analyst: as many of each gate's latest as it needs.
func (o *optimist) Samples(types.NamespacedName) map[string]pipeline.GateSamples {
	if o.watch == nil {
		return nil
	}
	known := map[string]pipeline.GateSamples{}
	due := o.clock.Now().Add(-o.config.Settle)
	for _, gate := range o.watch.Gates {
		samples := pipeline.GateSamples{For: o.watch.ID}
		for _, at := range latestDue(gate, due) {
			samples.Samples = append(samples.Samples, pipeline.Sample{Time: at, Verdict: pipeline.Pass})
		}
		known[gate.Name] = samples
	}
	return known
}

// latestDue are the times of a gate's newest samples up to a time: the first one, and then multiples of its interval since
// the epoch.
func latestDue(gate pipeline.GateWatch, due time.Time) []time.Time {
	if due.Before(gate.First) {
		return nil
	}
	last := onGrid(due, gate.Interval)
	var times []time.Time
	for at := last; at.After(gate.First) && len(times) < gate.Samples; at = at.Add(-gate.Interval) {
		times = append([]time.Time{at}, times...)
	}
	if len(times) < gate.Samples {
		times = append([]time.Time{gate.First}, times...)
	}
	return times
}

func onGrid(t time.Time, interval time.Duration) time.Time {
	return time.Unix(0, t.UnixNano()-t.UnixNano()%int64(interval)).UTC()
}

// Probe implements controllers.Analyst.
func (o *optimist) Probe(types.NamespacedName) *pipeline.ProbeResult {
	if o.watch == nil || o.watch.Probe == nil {
		return nil
	}
	return &pipeline.ProbeResult{For: o.watch.ID, Finished: !o.clock.Now().Before(lastProbe(*o.watch.Probe))}
}

// lastProbe is when a probe's last request is made, and answered at once.
func lastProbe(watch pipeline.ProbeWatch) time.Time {
	requests, interval := analysis.PlannedProbes(watch)
	return watch.Start.Add(time.Duration(requests-1) * interval)
}

// Breaker implements controllers.Analyst: nothing trips.
func (o *optimist) Breaker(types.NamespacedName) *pipeline.BreakerState { return nil }

// next is how long until there is news of the gates or the probe; 0: there will be none.
func (o *optimist) next() time.Duration {
	if o.watch == nil {
		return 0
	}
	now := o.clock.Now()
	soonest := time.Duration(0)
	consider := func(at time.Time) {
		if d := at.Sub(now); d > 0 && (soonest == 0 || d < soonest) {
			soonest = d
		}
	}
	for _, gate := range o.watch.Gates {
		consider(gate.First.Add(time.Duration(gate.Samples-1)*gate.Interval + o.config.Settle))
	}
	if o.watch.Probe != nil {
		consider(lastProbe(*o.watch.Probe))
	}
	return soonest
}

// silence is a recorder of events that nobody reads: what matters of them stands in status.
type silence struct{}

// Eventf implements events.EventRecorder.
func (silence) Eventf(runtime.Object, runtime.Object, string, string, string, string, ...any) {}
