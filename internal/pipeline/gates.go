package pipeline

import (
	"fmt"
	"regexp"
	"slices"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// The defaults of gateDefaults.
const (
	defaultWindow      = time.Minute
	defaultInterval    = 10 * time.Second
	defaultSamples     = 3
	defaultFailures    = 2
	defaultMinRequests = 20
	defaultQuantile    = "0.99"
)

var usesWindow = regexp.MustCompile(`\{\{[^}]*\.Window\b[^}]*\}\}`)

// QueryHasWindow tells whether a gate's query uses {{ .Window }}.
func QueryHasWindow(query string) bool { return usesWindow.MatchString(query) }

// resolveGates lists the gates that decide in a stage, with all defaults filled in. Times are set when the stage's clock starts.
func resolveGates(r *v1.Rollout, step *v1.Step, s *stage) []GateWatch {
	var gates []v1.Gate
	if s.fault == nil {
		gates = specGates(r)
		if step.UseGates != nil {
			gates = slices.DeleteFunc(slices.Clone(gates), func(g v1.Gate) bool { return !slices.Contains(step.UseGates, g.Name) })
		}
	}
	traffic := s.traffic(v1.Target{}, v1.Target{})
	var watches []GateWatch
	for _, g := range slices.Concat(gates, step.Gates) {
		if g.Metric != "" && !traffic.Exposed() {
			continue // NotApplicable: the canary has no requests to judge.
		}
		w := resolveGate(g, valueOr(r.Spec.GateDefaults, v1.GateDefaults{}))
		w.Exposure = ExposureMirror
		if traffic.ExposedToUsers() {
			w.Exposure = ExposureTraffic
		}
		w.Host, w.Namespace = r.Spec.Host, r.Namespace
		watches = append(watches, w)
	}
	return watches
}

func specGates(r *v1.Rollout) []v1.Gate {
	if r.Spec.Gates == nil && (r.Spec.Protocol == "" || r.Spec.Protocol == v1.ProtocolHTTP) {
		return []v1.Gate{{Name: "errors", Metric: v1.MetricErrorRate, Max: "1%"}}
	}
	return r.Spec.Gates
}

func resolveGate(g v1.Gate, defaults v1.GateDefaults) GateWatch {
	w := GateWatch{
		Name: g.Name, Metric: g.Metric, Query: g.Query, Quantile: g.Quantile, Max: g.Max, Min: g.Min,
		Window:      durationOr(g.Window, durationOr(defaults.Window, defaultWindow)),
		Interval:    durationOr(g.Interval, durationOr(defaults.Interval, defaultInterval)),
		Samples:     int(valueOr(g.Samples, valueOr(defaults.Samples, defaultSamples))),
		Failures:    int(valueOr(g.Failures, valueOr(defaults.Failures, defaultFailures))),
		MinRequests: int(valueOr(g.MinRequests, valueOr(defaults.MinRequests, defaultMinRequests))),
		NoData:      g.NoData,
	}
	if w.NoData == "" {
		w.NoData = defaults.NoData
	}
	if w.NoData == "" {
		w.NoData = v1.NoDataHold
	}
	if w.Metric == v1.MetricLatency && w.Quantile == "" {
		w.Quantile = defaultQuantile
	}
	if w.Query != "" && !QueryHasWindow(w.Query) {
		w.Window = 0
	}
	return w
}

// start sets the times of the gate's samples for a stage whose traffic was applied at a time.
func (w *GateWatch) start(applied time.Time, propagation time.Duration) {
	w.SeriesSince = applied
	w.First = applied.Add(propagation + w.Window)
	w.OffGrid = w.Window == 0 && w.Samples == 1
	if !w.OffGrid {
		w.First = ceilTo(w.First, w.Interval)
	}
}

// earliestPass is the first time at which the gate can let the stage end.
func (w *GateWatch) earliestPass(settle time.Duration) time.Time {
	return w.First.Add(time.Duration(w.Samples-1)*w.Interval + settle)
}

// latestDue is the time of the newest sample that should be known at now; false when none is due.
func (w *GateWatch) latestDue(now time.Time, settle time.Duration) (time.Time, bool) {
	due := now.Add(-settle)
	if due.Before(w.First) {
		return time.Time{}, false
	}
	if last := floorTo(due, w.Interval); last.After(w.First) {
		return last, true
	}
	return w.First, true
}

// ceilTo and floorTo lie on the multiples of interval since the epoch.
func ceilTo(t time.Time, interval time.Duration) time.Time {
	floor := floorTo(t, interval)
	if floor.Equal(t) {
		return floor
	}
	return floor.Add(interval)
}

func floorTo(t time.Time, interval time.Duration) time.Time {
	n := t.UnixNano()
	return time.Unix(0, n-n%int64(interval)).UTC()
}

// counted is the verdict that a sample counts as under the gate's noData policy.
func (w *GateWatch) counted(s Sample) Verdict {
	if s.Verdict == NoData && w.NoData == v1.NoDataFail {
		return Fail
	}
	return s.Verdict
}

// failedAt returns the sample that completed the first streak of failures.
func (w *GateWatch) failedAt(samples []Sample) (Sample, bool) {
	streak := 0
	for _, s := range samples {
		if w.counted(s) != Fail {
			streak = 0
			continue
		}
		if streak++; streak >= w.Failures {
			return s, true
		}
	}
	return Sample{}, false
}

// passing tells whether the latest samples, up to the newest that is due, all passed.
func (w *GateWatch) passing(samples []Sample, now time.Time, settle time.Duration) bool {
	due, any := w.latestDue(now, settle)
	if !any || len(samples) < w.Samples {
		return false
	}
	last := samples[len(samples)-w.Samples:]
	if !last[len(last)-1].Time.Equal(due) {
		return false
	}
	for i, s := range last {
		if s.Verdict != Pass {
			return false
		}
		// A gap is a sample that is not known: the streak is broken there.
		if i > 0 && s.Time.Sub(last[i-1].Time) > w.Interval {
			return false
		}
	}
	return true
}

// latest are the newest known samples, as many as must pass.
func (w *GateWatch) latest(samples []Sample) []Sample {
	return samples[max(0, len(samples)-w.Samples):]
}

// awaits tells whether the gate only waits for a sample that is under way: what is known of the latest ones passes, and not more
// than the newest one is missing.
func (w *GateWatch) awaits(samples []Sample, now time.Time, settle time.Duration) bool {
	due, any := w.latestDue(now, settle)
	if !any {
		return true
	}
	latest := w.latest(samples)
	known := w.First.Add(-w.Interval)
	if len(latest) > 0 {
		known = latest[len(latest)-1].Time
	}
	passed := !slices.ContainsFunc(latest, func(s Sample) bool { return s.Verdict != Pass })
	return passed && due.Sub(known) <= w.Interval
}

// blind tells whether it is missing evidence alone that keeps the gate from passing: no sample of the latest ones failed.
func (w *GateWatch) blind(samples []Sample) bool {
	return !slices.ContainsFunc(w.latest(samples), func(s Sample) bool { return w.counted(s) == Fail })
}

// limit is the gate's limit as people write it, after a value: "> 1%".
func (w *GateWatch) breached() string {
	switch {
	case w.Min == "":
		return "> " + w.Max
	case w.Max == "":
		return "< " + w.Min
	default:
		return fmt.Sprintf("outside %s to %s", w.Min, w.Max)
	}
}

func (w *GateWatch) limit() string {
	switch {
	case w.Min == "":
		return w.Max
	case w.Max == "":
		return w.Min
	default:
		return w.Min + " to " + w.Max
	}
}

func (w *GateWatch) held() string {
	switch {
	case w.Min == "":
		return "≤ " + w.Max
	case w.Max == "":
		return "≥ " + w.Min
	default:
		return fmt.Sprintf("within %s to %s", w.Min, w.Max)
	}
}
