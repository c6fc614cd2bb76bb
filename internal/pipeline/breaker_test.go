package pipeline

import (
	"strings"
	"testing"
	"time"

	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
)

// guarded is reviews whose rule has a pool for the host.
func guarded(t *testing.T) *world {
	w := reviews(t)
	w.in.Mesh.Breakers = map[string]bool{"": true}
	return w
}

// breaker is the watch of the last decision.
func (w *world) breaker() *BreakerWatch {
	if w.last.Watch == nil {
		return nil
	}
	return w.last.Watch.Breaker
}

// trips lets the analysis see something.
func (w *world) trips(trips ...Trip) *world {
	w.t.Helper()
	if w.breaker() == nil {
		w.t.Fatal("no breaker is watched")
	}
	w.in.Breaker = &BreakerState{For: w.breaker().ID, Trips: trips}
	return w.settle()
}

var overflow = Trip{Signal: v1.SignalOverflow, Count: 12, Time: time.Date(2026, 3, 2, 10, 5, 0, 0, time.UTC), Query: "q(UO)"}

func TestTripRollsBackWhateverTheGatesSay(t *testing.T) {
	w := guarded(t).ask("v3").untilStep("half").trips(overflow)
	w.want(v1.PhaseRolledBack, v1.ReasonTrip, "v1", 0).wantNoRun()
	w.wantEvent("Trip: breaker tripped: Overflow 12 > 0 in 30s at step 3/4 half; 100% on v1; v3 is rejected")
	f := w.status().LastFailure
	if f.Gate != "breaker Overflow" || f.Value != "12 in 30s" || f.Limit != "0" || f.Query != "q(UO)" || f.Step != "3/4 half" || !f.Time.Time.Equal(overflow.Time) {
		t.Errorf("evidence %+v", f)
	}
	if w.breaker() != nil {
		t.Error("the breaker is watched although no run is in flight")
	}
	w.pass(10*time.Minute).want(v1.PhaseRolledBack, v1.ReasonTrip, "v1", 0)
}

func TestTripActsInEveryPhase(t *testing.T) {
	for name, during := range map[string]func(*world){
		"suspended":   func(w *world) { w.edit(func(s *v1.RolloutSpec) { s.Suspend = true }) },
		"stalled":     func(w *world) { w.in.Mesh.SurveyProblem = &Problem{v1.ReasonHostConflict, "two"} },
		"not written": func(w *world) { w.meshOff, w.in.Written = true, nil },
		"no evidence": func(w *world) {
			w.verdict = func(string, time.Time) Sample { return Sample{Verdict: NoData} }
			w.pass(45 * time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := guarded(t).ask("v3").untilStep("half")
			during(w)
			w.settle().trips(overflow).want(v1.PhaseRolledBack, v1.ReasonTrip, "v1", 0)
		})
	}
	t.Run("before the first step", func(t *testing.T) {
		w := guarded(t).see("v3", func(v *Version) { v.Available, v.Ready = false, 0 }).ask("v3").settle()
		w.want(v1.PhaseProgressing, v1.ReasonAvailability, "v1", 0)
		w.trips(overflow).want(v1.PhaseRolledBack, v1.ReasonTrip, "v1", 0).wantEvent("before its first step")
	})
	t.Run("stable is dead", func(t *testing.T) {
		w := guarded(t).ask("v3").untilStep("half").see("v1", func(v *Version) { v.Ready = 0 })
		w.trips(overflow).want(v1.PhaseStalled, v1.ReasonStableUnavailable, "v1", 50)
		w.see("v1", func(v *Version) { v.Ready = 1 }).settle().want(v1.PhaseRolledBack, v1.ReasonTrip, "v1", 0)
	})
}

func TestOrderOfCauses(t *testing.T) {
	w := guarded(t).ask("v3").untilStep("half")
	w.verdict = func(string, time.Time) Sample { return Sample{Verdict: Fail, Value: "50%"} }
	w.trips(overflow).want(v1.PhaseRolledBack, v1.ReasonTrip, "v1", 0)

	w = guarded(t).ask("v3").untilStep("half").see("v3", func(v *Version) { v.Ready = 0 })
	w.trips(overflow).want(v1.PhaseRolledBack, v1.ReasonUnavailable, "v1", 0)
}

func TestWhatIsNoTrip(t *testing.T) {
	for name, state := range map[string]func(*BreakerWatch) BreakerState{
		"of another watch": func(*BreakerWatch) BreakerState { return BreakerState{For: "old", Trips: []Trip{overflow}} },
		"not more than maxTrips": func(w *BreakerWatch) BreakerState {
			return BreakerState{For: w.ID, Trips: []Trip{{Signal: v1.SignalOverflow, Count: 3}}}
		},
		"blind": func(w *BreakerWatch) BreakerState {
			return BreakerState{For: w.ID, BlindSince: w.Since, Blind: "Prometheus did not answer in time"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := guarded(t).edit(func(s *v1.RolloutSpec) { s.Breaker = &v1.Breaker{MaxTrips: ptr(int32(3))} }).ask("v3").untilStep("half")
			known := state(w.breaker())
			w.in.Breaker = &known
			w.settle().want(v1.PhaseProgressing, v1.ReasonStep, "v1", 50)
			w.until("promoted", func() bool { return w.status().Stable == "v3" })
		})
	}
}

func TestAttributedByHost(t *testing.T) {
	ejection := Trip{Signal: v1.SignalEjection, Count: 5, ByHost: true}
	w := guarded(t).ask("v3").untilStep("shadow")
	if since := w.breaker().HostSince; !since.IsZero() {
		t.Errorf("in a mirror step the host's lost requests count since %s", since)
	}
	w.trips(ejection).want(v1.PhaseProgressing, v1.ReasonStep, "v1", 0)

	w = guarded(t).ask("v3").untilStep("half")
	id := w.breaker().ID
	w.see("v1", func(v *Version) { v.Ready = 0 })
	w.trips(ejection).want(v1.PhaseProgressing, v1.ReasonStep, "v1", 50) // it may be stable that has none
	if b := w.breaker(); b.ID != id || !b.HostSince.IsZero() {
		t.Errorf("watches %+v, want the same without HostSince", b)
	}
	w.trips().see("v1", func(v *Version) { v.Ready = 1 }).settle()
	ejection.Within = 90 * time.Second
	w.trips(ejection).want(v1.PhaseRolledBack, v1.ReasonTrip, "v1", 0)
	w.wantEvent("Ejection 5 > 0 in 1m30s (attributed by host) at step 3/4 half")
}

func TestExposedSinceTheFirstOfTheStepsInARow(t *testing.T) {
	w := guarded(t).edit(func(s *v1.RolloutSpec) {
		s.Steps = []v1.Step{shadow(), weight("half", 50, 30), weight("full", 100, 30)}
	})
	w.ask("v3").untilStep("half")
	began := w.status().Step.StartedAt.Time
	if got := w.breaker().HostSince; !got.Equal(began) {
		t.Errorf("exposed since %s, want %s", got, began)
	}
	if got := w.untilStep("full").breaker().HostSince; !got.Equal(began) {
		t.Errorf("in the next step: exposed since %s, want %s", got, began)
	}
}

func TestFaultStepsDoNotCount(t *testing.T) {
	w := guarded(t).ask("v3").untilStep("shadow")
	if got, want := w.breaker().Since, w.status().Run.StartedAt.Time; !got.Equal(want) || w.breaker().Aftermath {
		t.Errorf("counts since %s, the run began %s", got, want)
	}
	if w.untilStep("ratings-slow"); w.breaker() != nil {
		t.Error("the breaker is watched in a fault step")
	}
	w.meshOff = true
	if w.untilStep("half"); w.breaker() != nil {
		t.Error("the breaker is watched while the fault may still stand")
	}
	w.meshOff = false
	w.settle()
	ended := w.status().Run.Steps[1].FinishedAt.Time
	if got := w.breaker(); got == nil || !got.Aftermath || got.Since.Before(ended.Add(2*propagation)) {
		t.Fatalf("after the fault, which ended at %s: %+v", ended, got)
	}
	if got := w.untilStep("full").breaker(); !got.Aftermath || !got.Since.Equal(ended.Add(2*propagation)) {
		t.Errorf("a step later: %+v", got)
	}
	w = guarded(t).edit(func(s *v1.RolloutSpec) { s.Breaker = &v1.Breaker{Scope: v1.BreakerHost} }).ask("v3").untilStep("ratings-slow")
	w.trips(overflow).want(v1.PhaseRolledBack, v1.ReasonTrip, "v1", 0).wantEvent("Overflow 12 > 0 in 30s on the whole host at step 2/4")
}

// Where both versions' pods bear the same label version, stable's overflows and errors are told apart by the workload.
func TestVersionsOfTheSameLabel(t *testing.T) {
	w := guarded(t).see("v3", func(v *Version) { v.Labels = map[string]string{"version": "v1", "track": "new"} }).ask("v3").untilStep("half")
	for who, canary := range map[string]GateTarget{"breaker": w.breaker().Canary, "gate": w.last.Watch.Gates[0].Canary} {
		if canary.Labels["version"] != "" || canary.Labels["track"] != "new" || canary.Workload != "reviews-v3" {
			t.Errorf("%s: the canary's are those of %+v", who, canary)
		}
	}
}

// What a run did to a version is not held against the next one, which may begin at once.
func TestAfterAnotherRunOfTheVersion(t *testing.T) {
	rerun := func(edit func(*v1.RolloutSpec), revert time.Duration) (*world, *BreakerWatch) {
		w := guarded(t).ask("v3").untilStep("half")
		if revert > 0 {
			w.ask("v1").settle().pass(revert).ask("v3")
		} else {
			w.edit(edit)
		}
		w.until("another run", func() bool { return w.status().Run != nil && w.status().Run.Number == 2 })
		return w, w.breaker()
	}
	changed := func(s *v1.RolloutSpec) {
		s.Versions = []v1.Version{{Name: "v3", TrafficPolicy: &istio.TrafficPolicy{}}}
	}
	w, b := rerun(changed, 0)
	if ended := w.status().History[0].FinishedAt; !b.Aftermath || !b.Since.Equal(ended.Add(2*propagation)) {
		t.Errorf("after a run that ended at %s: %+v", ended, b)
	}
	w, b = rerun(changed, 20*time.Second)
	if began := w.status().Run.StartedAt; !b.Aftermath || !b.Since.Equal(began.Time) {
		t.Errorf("20s later, at %s: %+v", began, b)
	}
	w, b = rerun(changed, 2*time.Minute)
	if began := w.status().Run.StartedAt; b.Aftermath || !b.Since.Equal(began.Time) {
		t.Errorf("long after, at %s: %+v", began, b)
	}
}

func TestWhenTheBreakerIsOn(t *testing.T) {
	for name, test := range map[string]struct {
		breaker *v1.Breaker
		rule    map[string]bool
		want    string
	}{
		"nothing said, no pool":         {rule: map[string]bool{"": false, "v1": true}},
		"a pool of the host":            {rule: map[string]bool{"": true}, want: "Overflow Ejection"},
		"a pool of the canary's subset": {rule: map[string]bool{"v3": true}, want: "Overflow Ejection"},
		"asked for":                     {breaker: &v1.Breaker{}, want: "Overflow Ejection"},
		"off":                           {breaker: &v1.Breaker{Signals: []v1.BreakerSignal{}}, rule: map[string]bool{"": true}},
		"one signal":                    {breaker: &v1.Breaker{Signals: []v1.BreakerSignal{v1.SignalRetryLimit}}, want: "RetryLimit"},
	} {
		t.Run(name, func(t *testing.T) {
			w := reviews(t).edit(func(s *v1.RolloutSpec) { s.Breaker = test.breaker })
			w.in.Mesh.Breakers = test.rule
			w.ask("v3").untilStep("half")
			var got []string
			if b := w.breaker(); b != nil {
				for _, s := range b.Signals {
					got = append(got, string(s))
				}
				if b.Window != 30*time.Second || b.MaxTrips != 0 || b.Scope != v1.BreakerCanary || b.Subset != "v3" || b.Canary.Workload != "reviews-v3" {
					t.Errorf("%+v", b)
				}
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("watches %q, want %q", got, test.want)
			}
		})
	}
}

// What is watched of TCP are connections, and there is no gate unless the spec gives one: nothing counts errors there.
func TestWatchOfTCP(t *testing.T) {
	w := guarded(t).edit(func(s *v1.RolloutSpec) {
		s.Protocol, s.Gates = v1.ProtocolTCP, nil
		s.Steps = []v1.Step{{Name: "fifth", Weight: new(int32(20)), Hold: &metav1.Duration{Duration: time.Minute}}}
	})
	w.ask("v3").untilStep("fifth")
	if b := w.breaker(); b == nil || b.Protocol != v1.ProtocolTCP {
		t.Errorf("watches %+v, want connections", b)
	}
	if watch := w.last.Watch; len(watch.Gates) > 0 {
		t.Errorf("gates %+v without any in the spec", watch.Gates)
	}
}

func TestBlindnessIsToldOnce(t *testing.T) {
	w := guarded(t).ask("v3").untilStep("shadow")
	w.in.Breaker = &BreakerState{For: w.breaker().ID, BlindSince: w.in.Now, Blind: "Prometheus did not answer in time"}
	w.settle()
	if w.status().Run.BreakerBlind {
		t.Error("told at once")
	}
	w.pass(50 * time.Second)
	w.in.Breaker.For = w.breaker().ID
	w.pass(11 * time.Second).wantEvent("BreakerBlind: the breaker has seen nothing of v3 for 1m0s: Prometheus did not answer in time")
	w.pass(5 * time.Second)
	if n := strings.Count(strings.Join(w.events, "\n"), "BreakerBlind"); n != 1 || !w.status().Run.BreakerBlind {
		t.Errorf("told %d times", n)
	}
	w.trips().wantEvent("BreakerSees")
	if w.status().Run.BreakerBlind {
		t.Error("still blind")
	}
}

func TestPolicies(t *testing.T) {
	small := &istio.TrafficPolicy{ConnectionPool: &istio.ConnectionPoolSettings{Tcp: &istio.ConnectionPoolSettings_TCPSettings{MaxConnections: 1}}}
	large := &istio.TrafficPolicy{ConnectionPool: &istio.ConnectionPoolSettings{Tcp: &istio.ConnectionPoolSettings_TCPSettings{MaxConnections: 9}}}
	give := func(w *world, version string, policy *istio.TrafficPolicy) *world {
		return w.edit(func(s *v1.RolloutSpec) { s.Versions = []v1.Version{{Name: version, TrafficPolicy: policy}} }).settle()
	}
	t.Run("subsets name the version that gives theirs", func(t *testing.T) {
		w := give(reviews(t), "v3", small)
		for _, s := range w.status().Subsets {
			if want := map[string]string{"v3": "v3"}[s.Name]; s.Policy != want {
				t.Errorf("subset %s has the policy of %q, want %q", s.Name, s.Policy, want)
			}
		}
		for _, s := range give(w, "v3", nil).status().Subsets {
			if s.Policy != "" {
				t.Errorf("subset %s still has the policy of %s", s.Name, s.Policy)
			}
		}
	})
	t.Run("the canary's changed in mid-run: a new run", func(t *testing.T) {
		w := give(reviews(t), "v3", small).ask("v3").untilStep("half")
		give(w, "v3", large).wantEvent("PlanChanged: the traffic of a step that was taken, or the canary's labels or trafficPolicy, changed")
		w.until("promoted", func() bool { return w.status().Stable == "v3" })
	})
	t.Run("stable's and the host's: the clock starts afresh", func(t *testing.T) {
		for _, edit := range []func(*v1.RolloutSpec){
			func(s *v1.RolloutSpec) { s.Versions = []v1.Version{{Name: "v1", TrafficPolicy: small}} },
			func(s *v1.RolloutSpec) { s.DestinationRule = &v1.DestinationRule{TrafficPolicy: small} },
		} {
			w := reviews(t).ask("v3").untilStep("half").pass(20 * time.Second)
			before := *w.status().Step
			w.edit(edit).settle().want(v1.PhaseProgressing, v1.ReasonStep, "v1", 50)
			if after := w.status().Step; after.Index != before.Index || !after.StartedAt.After(before.StartedAt.Time) {
				t.Errorf("step %+v became %+v", before, after)
			}
		}
	})
}
