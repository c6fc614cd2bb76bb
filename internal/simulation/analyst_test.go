package simulation

import (
	"reflect"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/internal/pipeline"
)

// evidence names a delivered sample: the oracle asks whether it was a Pass.
type evidence struct {
	gate   string
	window time.Duration
	at     int64
}

// analyst is the simulated analysis of one process: it takes samples on the grid, late, and not at all while Prometheus is down.
type analyst struct {
	world     *world
	process   *process
	watches   map[types.NamespacedName]*watched
	delivered map[evidence]pipeline.Verdict
	guards    map[types.NamespacedName]*guard
}

// watched is one Rollout's watch with what is known so far.
type watched struct {
	watch   *pipeline.Watch
	since   time.Time
	samples map[string][]pipeline.Sample
	probe   *pipeline.ProbeResult
}

func newAnalyst(w *world, p *process) *analyst {
	return &analyst{world: w, process: p, watches: map[types.NamespacedName]*watched{}, delivered: map[evidence]pipeline.Verdict{}, guards: map[types.NamespacedName]*guard{}}
}

// Set implements controllers.Analyst.
func (a *analyst) Set(key types.NamespacedName, watch *pipeline.Watch) {
	a.setBreaker(key, watch)
	known := a.watches[key]
	if watch != nil && watch.ID != "" {
		watch = &pipeline.Watch{ID: watch.ID, Gates: watch.Gates, Probe: watch.Probe}
	} else {
		watch = nil
	}
	if watch == nil {
		delete(a.watches, key)
		return
	}
	if known != nil && known.watch.ID == watch.ID && reflect.DeepEqual(known.watch, watch) {
		return
	}
	next := &watched{watch: watch, since: a.world.clock.now, samples: map[string][]pipeline.Sample{}}
	a.watches[key] = next
	a.world.after(a.delay(), func() { a.tick(key, next) })
}

func (a *analyst) delay() time.Duration {
	return a.world.faults.between(10*time.Millisecond, 900*time.Millisecond)
}

// tick takes the samples that are due, wakes the Rollout when there is something new, and comes back for the next.
func (a *analyst) tick(key types.NamespacedName, known *watched) {
	if a.process.dead || a.watches[key] != known {
		return
	}
	now := a.world.clock.now
	news := slices.ContainsFunc(known.watch.Gates, func(g pipeline.GateWatch) bool { return g.Query == "bad(" })
	var next time.Time
	for _, gate := range known.watch.Gates {
		if gate.Query == "bad(" {
			continue
		}
		fresh, due := a.sample(known, gate, now)
		news = news || fresh
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	if known.watch.Probe != nil {
		due, more := a.advanceProbe(known, now)
		if !more {
			news = true
		} else if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	if news {
		a.process.enqueue(key, 0)
	}
	if !next.IsZero() {
		a.world.at(next.Add(a.delay()), func() { a.tick(key, known) })
	}
}

// sample takes every sample of a gate that is due and not known yet. It returns when the next one will be.
func (a *analyst) sample(known *watched, gate pipeline.GateWatch, now time.Time) (bool, time.Time) {
	samples, news := known.samples[gate.Name], false
	at := gate.First
	var taken []pipeline.Sample
	for ; !at.Add(config.Settle).After(now); at = nextOnGrid(at, gate.Interval) {
		i := len(taken)
		if i < len(samples) && samples[i].Verdict != pipeline.Error {
			taken = append(taken, samples[i])
			continue
		}
		s := pipeline.Sample{Time: at, Verdict: pipeline.Error, Message: "simulated: Prometheus is down"}
		if !a.world.prometheus.down.at(now) {
			s = a.world.prometheus.truth(gate, at)
		}
		if i >= len(samples) || samples[i].Verdict != s.Verdict {
			news = true
			a.note(gate, s, taken)
		}
		taken = append(taken, s)
	}
	known.samples[gate.Name] = taken
	return news, at.Add(config.Settle)
}

func (a *analyst) note(gate pipeline.GateWatch, s pipeline.Sample, before []pipeline.Sample) {
	a.delivered[evidence{gate.Name, gate.Window, s.Time.UnixNano()}] = s.Verdict
	a.world.sometimes["sample "+string(s.Verdict)]++
	if n := len(before); n == 0 || before[n-1].Verdict != s.Verdict {
		a.world.transcript.line("prometheus", "%s %s %s%s", gate.Name, s.Verdict, s.Value, s.Message)
	}
}

func nextOnGrid(t time.Time, interval time.Duration) time.Time {
	n := t.UnixNano()
	return time.Unix(0, n-n%int64(interval)+int64(interval)).UTC()
}

// advanceProbe makes the probe's requests up to now. It returns when the next one is due, or false when the probe has ended.
func (a *analyst) advanceProbe(known *watched, now time.Time) (time.Time, bool) {
	spec := known.watch.Probe
	interval := time.Second
	if spec.Spec.Interval != nil {
		interval = spec.Spec.Interval.Duration
	}
	begin := spec.Start
	if known.since.After(begin) {
		begin = known.since
	}
	planned := max(3, int(spec.End.Sub(begin)/interval))
	if known.probe == nil {
		known.probe = &pipeline.ProbeResult{For: known.watch.ID}
	}
	result := known.probe
	for !result.Finished && !result.Failed {
		at := begin.Add(time.Duration(result.Total) * interval)
		if at.After(now) {
			return at, true
		}
		result.Total++
		if a.world.prometheus.probes.at(at) {
			result.Succeeded++
		} else {
			result.LastFailure = "status 503, expected 200"
			result.Failed = true
		}
		result.Finished = result.Total == planned && !result.Failed
	}
	a.world.sometimes["probe ended"]++
	return time.Time{}, false
}

// Samples implements controllers.Analyst.
func (a *analyst) Samples(key types.NamespacedName) map[string]pipeline.GateSamples {
	known := a.watches[key]
	if known == nil {
		return nil
	}
	out := map[string]pipeline.GateSamples{}
	for name, samples := range known.samples {
		out[name] = pipeline.GateSamples{For: known.watch.ID, Samples: samples, Query: "simulated"}
	}
	for _, gate := range known.watch.Gates {
		if gate.Query == "bad(" {
			out[gate.Name] = pipeline.GateSamples{For: known.watch.ID, InvalidQuery: "simulated parse error"}
		}
	}
	return out
}

// Probe implements controllers.Analyst.
func (a *analyst) Probe(key types.NamespacedName) *pipeline.ProbeResult {
	if known := a.watches[key]; known != nil && known.probe != nil {
		result := *known.probe
		return &result
	}
	return nil
}
