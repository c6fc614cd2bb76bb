package simulation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// timeline is a value that changes at times.
type timeline[T any] struct {
	times  []time.Time
	values []T
}

func (l *timeline[T]) set(at time.Time, value T) {
	l.times, l.values = append(l.times, at), append(l.values, value)
}

// at returns the value at a time, the zero value before the first.
func (l *timeline[T]) at(t time.Time) T {
	for i := len(l.times) - 1; i >= 0; i-- {
		if !l.times[i].After(t) {
			return l.values[i]
		}
	}
	var zero T
	return zero
}

// cuts are the times within a span at which the value changes.
func (l *timeline[T]) cuts(from, to time.Time) []time.Time {
	var out []time.Time
	for _, t := range l.times {
		if t.After(from) && t.Before(to) {
			out = append(out, t)
		}
	}
	return out
}

// shares are the parts of the requests that reach each version, as answers to users and as copies.
type shares struct{ users, mirrored map[string]float64 }

// matchedShare is the part of the requests that the scenarios' match blocks select.
const matchedShare = 0.02

// prometheus knows the truth: what the mesh did, at what rate, and how each version answered.
type prometheus struct {
	world    *world
	shares   timeline[shares]
	requests timeline[float64]
	down     timeline[bool]
	errors   map[string]*timeline[float64]
	// probes tells whether the probe's requests succeed.
	probes timeline[bool]
	// storms tells when a version's pool overflows.
	storms map[string]*timeline[bool]
}

func newPrometheus(w *world) *prometheus {
	p := &prometheus{world: w, errors: map[string]*timeline[float64]{}}
	p.requests.set(epoch.Add(-time.Hour), 50)
	p.probes.set(epoch.Add(-time.Hour), true)
	return p
}

// setErrors makes a version fail a part of its requests from now on.
func (p *prometheus) setErrors(version string, rate float64) {
	if p.errors[version] == nil {
		p.errors[version] = &timeline[float64]{}
	}
	p.errors[version].set(p.world.clock.now, rate)
}

func (p *prometheus) errorsAt(version string, t time.Time) float64 {
	if l := p.errors[version]; l != nil {
		return l.at(t)
	}
	return 0
}

// observe follows the mesh: who gets which part of the requests.
func (p *prometheus) observe(c change) {
	if c.key.kind == kindVirtualService || c.key.kind == kindDestinationRule {
		p.shares.set(c.at, p.world.currentShares())
	}
}

func (w *world) currentShares() shares {
	out := shares{users: map[string]float64{}, mirrored: map[string]float64{}}
	rule, counted := w.ruleSubsets(), false
	version := func(place string) string {
		if name, elsewhere := strings.CutPrefix(place, elsewherePrefix); elsewhere {
			return name
		}
		return rule[place]["version"]
	}
	for _, r := range slices.Concat(viewOf(w.store.live(mainKey)), viewOf(w.store.live(edgeKey))) {
		switch {
		case r.ours && r.kind() == "mirror":
			for subset, percentage := range r.mirrors {
				out.mirrored[version(subset)] += percentage / 100
			}
		case r.ours && len(r.weights) == 1:
			for subset := range r.weights {
				out.users[version(subset)] += matchedShare
			}
		case r.managed() && !counted:
			counted = true
			for subset, weight := range r.weights {
				out.users[version(subset)] += float64(weight) / 100
			}
			for subset, percentage := range r.mirrors {
				out.mirrored[version(subset)] += percentage / 100
			}
		}
	}
	return out
}

// truth is what a Prometheus that is up answers to a gate at a time.
func (p *prometheus) truth(gate pipeline.GateWatch, t time.Time) pipeline.Sample {
	count, failed := p.measure(gate, t)
	sample := pipeline.Sample{Time: t}
	if gate.Metric != "" && (count < float64(gate.MinRequests) || count == 0) {
		sample.Verdict, sample.Message = pipeline.NoData, fmt.Sprintf("%.0f requests", count)
		return sample
	}
	value := failed / max(count, 1e-9)
	switch {
	case gate.Query != "":
		value = p.errorsAt(gate.Canary.Version, t)
	case gate.Metric == v1.MetricSuccessRate:
		value = 1 - value
	case gate.Metric == v1.MetricLatency:
		value = 0.1 + 5*value
	}
	sample.Verdict, sample.Value = pipeline.Pass, fmt.Sprintf("%.3g", value)
	if (gate.Max != "" && value > limit(gate.Max)) || (gate.Min != "" && value < limit(gate.Min)) {
		sample.Verdict = pipeline.Fail
	}
	return sample
}

// measure counts the canary's requests in the gate's window and those that failed. Copies are seen by the destination's proxy only.
func (p *prometheus) measure(gate pipeline.GateWatch, t time.Time) (count, failed float64) {
	from := t.Add(-gate.Window)
	marks := append([]time.Time{from}, p.shares.cuts(from, t)...)
	marks = append(marks, p.requests.cuts(from, t)...)
	if l := p.errors[gate.Canary.Version]; l != nil {
		marks = append(marks, l.cuts(from, t)...)
	}
	sortTimes(marks)
	marks = append(marks, t)
	for i := range len(marks) - 1 {
		at := marks[i]
		s := p.shares.at(at)
		share := s.users[gate.Canary.Version]
		if gate.Exposure == pipeline.ExposureMirror {
			share += s.mirrored[gate.Canary.Version]
		}
		n := share * p.requests.at(at) * marks[i+1].Sub(at).Seconds()
		count += n
		failed += n * p.errorsAt(gate.Canary.Version, at)
	}
	return count, failed
}

func sortTimes(times []time.Time) {
	for i := 1; i < len(times); i++ {
		for j := i; j > 0 && times[j].Before(times[j-1]); j-- {
			times[j], times[j-1] = times[j-1], times[j]
		}
	}
}

// limit reads "1%", "500ms" and "0.5".
func limit(text string) float64 {
	if share, ok := strings.CutSuffix(text, "%"); ok {
		value, _ := strconv.ParseFloat(share, 64)
		return value / 100
	}
	if d, err := time.ParseDuration(text); err == nil {
		return d.Seconds()
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic("simulation: limit " + text)
	}
	return value
}
