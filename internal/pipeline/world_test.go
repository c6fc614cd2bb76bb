package pipeline

import (
	"fmt"
	"strings"
	"testing"
	"time"

	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
)

// world is the least surrounding in which decisions can follow each other: commits always succeed, the mesh obeys at once.
type world struct {
	t       *testing.T
	in      Input
	verdict func(gate string, at time.Time) Sample
	probe   func(p *ProbeWatch, now time.Time) *ProbeResult
	events  []string
	last    Decision
	meshOff bool
	weights []int32
}

const propagation = 2 * time.Second

func seconds(n int) *metav1.Duration {
	return &metav1.Duration{Duration: time.Duration(n) * time.Second}
}

func ptr[T any](v T) *T { return &v }

func pass(string, time.Time) Sample { return Sample{Verdict: Pass, Value: "0%"} }

// newWorld is reviews with v1 serving and v3 deployed, asked for v1.
func newWorld(t *testing.T, steps ...v1.Step) *world {
	t.Helper()
	version := func(name string) Version {
		return Version{
			Found: true, Available: true, Ready: 1, Revision: "rev-" + name, Workload: "reviews-" + name,
			Labels: map[string]string{"version": name}, Subset: name,
		}
	}
	r := &v1.Rollout{
		ObjectMeta: metav1.ObjectMeta{Name: "reviews", Namespace: "bookinfo", Generation: 1},
		Spec:       v1.RolloutSpec{Host: "reviews", Version: "v1", Steps: steps},
	}
	return &world{
		t: t, verdict: pass,
		in: Input{
			Config:  Config{PropagationDelay: propagation, Settle: time.Second},
			Rollout: r, Now: time.Date(2026, 3, 2, 10, 0, 3, 0, time.UTC), Serving: []string{"v1"},
			Versions: map[string]Version{"v1": version("v1"), "v2": version("v2"), "v3": version("v3")},
		},
	}
}

func (w *world) status() *v1.RolloutStatus { return &w.in.Rollout.Status }

// decide makes one decision, commits it, and lets the mesh obey.
func (w *world) decide() Decision {
	w.t.Helper()
	before := w.status().Traffic
	w.last = Next(w.in)
	w.in.Rollout = w.in.Rollout.DeepCopy()
	w.in.Rollout.Status = w.last.Status
	for _, e := range w.last.Events {
		w.events = append(w.events, e.Reason+": "+e.Message)
	}
	after := w.status().Traffic
	if after == nil {
		return w.last
	}
	if changed := string(v1.CanonicalJSON(before)) != string(v1.CanonicalJSON(after)); changed {
		w.weights = append(w.weights, after.Weight)
		w.in.Written = nil
	}
	if w.in.Written == nil && !w.meshOff {
		w.in.Written = &Written{At: w.in.Now, Wrote: true}
	}
	for _, s := range w.status().Subsets {
		if !s.Leaving && !draftHolds(w.in.Mesh.Subsets, s.Name) {
			w.in.Mesh.Subsets = append(w.in.Mesh.Subsets, s)
		}
	}
	return w.last
}

func draftHolds(subsets []v1.Subset, name string) bool {
	for _, s := range subsets {
		if s.Name == name {
			return true
		}
	}
	return false
}

// settle decides until nothing changes any more at this instant.
func (w *world) settle() *world {
	w.t.Helper()
	for range 20 {
		w.measure()
		written := w.in.Written
		if d := w.decide(); !d.Changed && written == w.in.Written {
			return w
		}
	}
	w.t.Fatalf("does not settle: %s %s %s", w.status().Phase, w.status().Reason, w.status().Message)
	return w
}

// tick lets time go by until something may happen: a wake-up, a sample, at most ten seconds.
func (w *world) tick(most time.Duration) time.Duration {
	next := min(most, 10*time.Second)
	if after := w.last.RequeueAfter; after > 0 {
		next = min(next, after)
	}
	if watch := w.last.Watch; watch != nil {
		for _, g := range watch.Gates {
			due := g.First
			if latest, any := g.latestDue(w.in.Now, w.in.Settle); any {
				due = floorTo(latest, g.Interval).Add(g.Interval)
			}
			next = min(next, due.Add(w.in.Settle).Sub(w.in.Now))
		}
		if watch.Probe != nil {
			next = min(next, time.Second)
		}
	}
	next = max(next, time.Millisecond)
	w.in.Now = w.in.Now.Add(next)
	return next
}

// pass lets time go by.
func (w *world) pass(d time.Duration) *world {
	w.t.Helper()
	for d > 0 {
		d -= w.tick(d)
		w.settle()
	}
	return w
}

// until lets time go by until the condition holds, an hour at most.
func (w *world) until(what string, condition func() bool) *world {
	w.t.Helper()
	for end := w.in.Now.Add(time.Hour); w.in.Now.Before(end); w.tick(time.Hour) {
		if w.settle(); condition() {
			return w
		}
	}
	w.t.Fatalf("never: %s; %s %s %q\n%s", what, w.status().Phase, w.status().Reason, w.status().Message, strings.Join(w.events, "\n"))
	return w
}

func (w *world) untilPhase(phase v1.Phase) *world {
	w.t.Helper()
	return w.until(string(phase), func() bool { return w.status().Phase == phase })
}

func (w *world) untilStep(name string) *world {
	w.t.Helper()
	return w.until("step "+name, func() bool { return w.status().Step != nil && w.status().Step.Name == name })
}

// measure fills in the samples that are due for the current watch.
func (w *world) measure() {
	watch := w.last.Watch
	w.in.Samples, w.in.Probe = map[string]GateSamples{}, nil
	if watch == nil {
		return
	}
	for _, g := range watch.Gates {
		known := GateSamples{For: watch.ID, Query: "q(" + g.Name + ")"}
		due, any := g.latestDue(w.in.Now, w.in.Settle)
		for at := g.First; any && !at.After(due); at = floorTo(at, g.Interval).Add(g.Interval) {
			s := w.verdict(g.Name, at)
			s.Time = at
			known.Samples = append(known.Samples, s)
		}
		w.in.Samples[g.Name] = known
	}
	if watch.Probe != nil && w.probe != nil {
		if w.in.Probe = w.probe(watch.Probe, w.in.Now); w.in.Probe != nil {
			w.in.Probe.For = watch.ID
		}
	}
}

// edit changes the spec as a push does.
func (w *world) edit(change func(*v1.RolloutSpec)) *world {
	w.in.Rollout = w.in.Rollout.DeepCopy()
	change(&w.in.Rollout.Spec)
	w.in.Rollout.Generation++
	return w
}

func (w *world) ask(version string) *world {
	return w.edit(func(s *v1.RolloutSpec) { s.Version = version })
}

func (w *world) see(version string, change func(*Version)) *world {
	v := w.in.Versions[version]
	change(&v)
	w.in.Versions[version] = v
	return w
}

func (w *world) want(phase v1.Phase, reason, stable string, weight int32) *world {
	w.t.Helper()
	s := w.status()
	got := fmt.Sprintf("%s %s stable=%s weight=%d", s.Phase, s.Reason, s.Stable, s.Traffic.Weight)
	if want := fmt.Sprintf("%s %s stable=%s weight=%d", phase, reason, stable, weight); got != want {
		w.t.Fatalf("got  %s (%s)\nwant %s\nevents:\n%s", got, s.Message, want, strings.Join(w.events, "\n"))
	}
	return w
}

func (w *world) wantEvent(fragment string) *world {
	w.t.Helper()
	if !strings.Contains(strings.Join(w.events, "\n"), fragment) {
		w.t.Fatalf("no event with %q in:\n%s", fragment, strings.Join(w.events, "\n"))
	}
	return w
}

func (w *world) wantNoRun() *world {
	w.t.Helper()
	s := w.status()
	if s.Run != nil || s.Step != nil || s.Canary != "" || s.Traffic.Canary != nil || s.Traffic.Mirror != nil || s.Traffic.Fault != nil || len(s.Traffic.Match) > 0 {
		w.t.Fatalf("a run or its traffic is left: %s", v1.CanonicalJSON(s))
	}
	return w
}

// carrier is a VirtualService that can carry the fault on ratings.
var carrier = FaultTarget{VirtualService: v1.ManagedVirtualService{Name: "ratings"}}

func jason() v1.HTTPMatches {
	return v1.HTTPMatches{{Headers: map[string]*istio.StringMatch{"end-user": {MatchType: &istio.StringMatch_Exact{Exact: "jason"}}}}}
}

func shadow() v1.Step {
	return v1.Step{Name: "shadow", Mirror: &v1.Mirror{}, Hold: seconds(60)}
}

func slowRatings() v1.Step {
	return v1.Step{
		Name: "ratings-slow", Hold: seconds(10),
		Fault: &v1.Fault{Host: "ratings", Match: jason(), Abort: &istio.HTTPFaultInjection_Abort{}},
		Probe: &v1.Probe{URL: "http://bookinfo/productpage"},
	}
}

func weight(name string, w int32, hold int) v1.Step {
	return v1.Step{Name: name, Weight: &w, Hold: seconds(hold)}
}

// reviews is the customer's sentence: mirror, fault test, half, full.
func reviews(t *testing.T) *world {
	w := newWorld(t, shadow(), slowRatings(), weight("half", 50, 30), weight("full", 100, 30))
	w.in.Mesh.Faults = map[string]FaultTarget{"ratings": carrier}
	w.probe = func(p *ProbeWatch, now time.Time) *ProbeResult {
		return &ProbeResult{Total: 10, Succeeded: 10, Finished: !now.Before(p.End)}
	}
	return w.settle()
}
