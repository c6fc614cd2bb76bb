package pipeline

import (
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

func TestReviewsFromV1ToV3(t *testing.T) {
	w := reviews(t).want(v1.PhaseHealthy, v1.ReasonServing, "v1", 0)
	w.ask("v3").untilStep("shadow")
	if m := w.status().Traffic.Mirror; m == nil || m.Percentage != 100 {
		t.Fatalf("mirror = %v, want 100", m)
	}
	w.untilStep("ratings-slow")
	if s := w.status(); s.Traffic.Fault == nil || s.Traffic.Mirror != nil || s.FaultVirtualService == nil || s.Mode != "fault, match" {
		t.Fatalf("fault step: %s", v1.CanonicalJSON(s))
	}
	w.untilStep("half").want(v1.PhaseProgressing, v1.ReasonStep, "v1", 50)
	if f := w.status().FaultVirtualService; f != nil {
		t.Fatalf("fault carrier %v is still kept", f)
	}
	w.untilPhase(v1.PhaseHealthy).want(v1.PhaseHealthy, v1.ReasonServing, "v3", 0).wantNoRun()
	if diff := cmp.Diff([]int32{0, 0, 0, 50, 100, 0}, w.weights); diff != "" {
		t.Errorf("weights (-want +got):\n%s", diff)
	}
	s := w.status()
	if s.Previous != "v1" || s.Proven[0].Version != "v3" || s.History[0].Verdict != v1.ReasonPromoted || len(s.History[0].Steps) != 4 {
		t.Errorf("record of the run: %s", v1.CanonicalJSON(s))
	}
	w.wantEvent("StepStarted: step 3/4 half: weight 50; ratings-slow passed: probe 10/10").wantEvent("errors 0% ≤ 1%")
}

func TestStepLastsAsLongAsItsGatesNeed(t *testing.T) {
	w := newWorld(t, weight("half", 50, 0), weight("full", 100, 0)).settle().ask("v3").untilStep("half")
	applied := w.status().Step.Applied.Time
	w.untilStep("full")
	// propagationDelay + window + (samples-1) × interval, rounded up to the grid, and the settle time.
	least := applied.Add(propagation + time.Minute + 20*time.Second)
	if got := w.in.Now; got.Before(least) || got.After(least.Add(11*time.Second)) {
		t.Errorf("half lasted until %s, applied %s, least %s", got, applied, least)
	}
}

func TestGatesThatFail(t *testing.T) {
	w := reviews(t)
	failing := false
	w.verdict = func(string, time.Time) Sample {
		if failing {
			return Sample{Verdict: Fail, Value: "4.2%"}
		}
		return pass("", time.Time{})
	}
	w.ask("v3").untilStep("half")
	failing = true
	w.untilPhase(v1.PhaseRolledBack).want(v1.PhaseRolledBack, v1.ReasonGateFailed, "v1", 0).wantNoRun()
	w.wantEvent("GateFailed: errors 4.2% > 1% at step 3/4 half; 100% on v1; v3 is rejected")
	want := &v1.Failure{Version: "v3", Step: "3/4 half", Gate: "errors", Query: "q(errors)", Value: "4.2%", Limit: "1%", Time: w.status().LastFailure.Time}
	if diff := cmp.Diff(want, w.status().LastFailure); diff != "" {
		t.Errorf("lastFailure (-want +got):\n%s", diff)
	}
	failing = false
	w.pass(2*time.Minute).want(v1.PhaseRolledBack, v1.ReasonGateFailed, "v1", 0)
	w.see("v3", func(v *Version) { v.Revision = "mended" }).untilStep("shadow")
}

func TestSingleFailureDoesNotRollBackAndPassesMustBeInARow(t *testing.T) {
	w := newWorld(t, weight("half", 50, 0)).settle()
	n := 0
	seen := map[int64]Verdict{}
	w.verdict = func(_ string, at time.Time) Sample {
		v, ok := seen[at.Unix()]
		if !ok {
			v = []Verdict{Pass, Pass, Fail, Pass, NoData, Pass, Error, Pass, Pass, Pass}[n%10]
			seen[at.Unix()] = v
			n++
		}
		return Sample{Verdict: v, Value: "x"}
	}
	w.ask("v3").untilStep("half").untilStep("soak")
	if n != 10 {
		t.Errorf("half ended after %d samples, want all 10 of the sequence", n)
	}
}

func TestWaysBackWithoutRejection(t *testing.T) {
	tests := map[string]struct {
		do     func(w *world)
		reason string
		then   func(w *world)
	}{
		"revert": {
			do:     func(w *world) { w.ask("v1") },
			reason: v1.ReasonReverted,
			then:   func(w *world) { w.settle().want(v1.PhaseHealthy, v1.ReasonServing, "v1", 0).wantNoRun() },
		},
		"third version": {
			do:     func(w *world) { w.ask("v2") },
			reason: v1.ReasonVersionChanged,
			then:   func(w *world) { w.untilPhase(v1.PhaseHealthy).want(v1.PhaseHealthy, v1.ReasonServing, "v2", 0) },
		},
		"workload changed": {
			do:     func(w *world) { w.see("v3", func(v *Version) { v.Revision = "next" }) },
			reason: v1.ReasonWorkloadChanged,
			then:   func(w *world) { w.untilStep("shadow") },
		},
		"passed step changed": {
			do:     func(w *world) { w.edit(func(s *v1.RolloutSpec) { s.Steps[0].Mirror.Percentage = ptr[int32](10) }) },
			reason: v1.ReasonPlanChanged,
			then:   func(w *world) { w.untilStep("shadow") },
		},
		"current step changed": {
			do:     func(w *world) { w.edit(func(s *v1.RolloutSpec) { s.Steps[2].Weight = ptr[int32](40) }) },
			reason: v1.ReasonPlanChanged,
			then:   func(w *world) { w.untilStep("shadow") },
		},
		"canary's labels changed": {
			do:     func(w *world) { w.see("v3", func(v *Version) { v.Labels = map[string]string{"track": "canary"} }) },
			reason: v1.ReasonPlanChanged,
			then:   func(w *world) { w.untilStep("shadow") },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := reviews(t).ask("v3").untilStep("half")
			test.do(w)
			w.measure()
			if d := w.decide(); !d.Rollback || d.Status.Traffic.Canary != nil || d.Watch != nil {
				t.Fatalf("first decision: rollback %v, traffic %s", d.Rollback, v1.CanonicalJSON(d.Status.Traffic))
			}
			if got := w.status().History[0].Verdict; got != test.reason {
				t.Errorf("verdict %s, want %s", got, test.reason)
			}
			if w.status().Rejected != nil {
				t.Errorf("rejected: %v", w.status().Rejected)
			}
			test.then(w)
		})
	}
}

func TestEditsThatAreTakenAtOnceRestartTheClock(t *testing.T) {
	w := reviews(t).ask("v3").untilStep("half").pass(20 * time.Second)
	before := w.status().Step.Applied.Time
	w.edit(func(s *v1.RolloutSpec) {
		s.Steps[2].Hold = seconds(60)
		s.Steps[3].Weight = ptr[int32](100)
	}).settle().want(v1.PhaseProgressing, v1.ReasonStep, "v1", 50)
	if got := w.status().Step.Applied.Time; !got.Equal(w.in.Now) || got.Equal(before) {
		t.Errorf("applied %s, want now %s", got, w.in.Now)
	}
	w.see("v1", func(v *Version) { v.Revision = "hotfix" }).pass(time.Second)
	if got := w.status().Step.Applied.Time; !got.Equal(w.in.Now) {
		t.Errorf("stable's change did not restart the clock: applied %s, now %s", got, w.in.Now)
	}
	w.untilPhase(v1.PhaseHealthy).want(v1.PhaseHealthy, v1.ReasonServing, "v3", 0)
}

func TestRepairedTrafficRestartsTheClock(t *testing.T) {
	w := reviews(t).ask("v3").untilStep("half").pass(20 * time.Second)
	w.in.Written, w.meshOff = nil, true
	w.pass(5 * time.Minute).untilStep("half")
	w.meshOff = false
	w.in.Written = &Written{At: w.in.Now, Wrote: true}
	w.settle()
	if got := w.status().Step.Applied.Time; !got.Equal(w.in.Now) {
		t.Errorf("applied %s, want %s", got, w.in.Now)
	}
}

func TestCrashAfterARepairDoesNotHideIt(t *testing.T) {
	w := reviews(t).ask("v3").untilStep("half").pass(20 * time.Second)
	w.in.Written, w.meshOff = nil, true
	w.decide() // commits that the traffic is not as promised; the repair is written, and the process dies
	w.meshOff = false
	w.in.Now = w.in.Now.Add(5 * time.Second)
	w.in.Written = &Written{At: w.in.Now}
	w.settle()
	if got := w.status().Step.Applied.Time; !got.Equal(w.in.Now) || w.status().Step.Interrupted {
		t.Errorf("applied %s, want %s", got, w.in.Now)
	}
}

func TestRestartKeepsTheClock(t *testing.T) {
	w := reviews(t).ask("v3").untilStep("half").pass(10 * time.Second)
	applied := w.status().Step.Applied.Time
	w.in.Now = w.in.Now.Add(5 * time.Second)
	w.in.Written = &Written{At: w.in.Now}
	w.settle()
	if got := w.status().Step.Applied.Time; !got.Equal(applied) {
		t.Errorf("applied moved from %s to %s by a restart", applied, got)
	}
}

func TestInstantReturn(t *testing.T) {
	w := reviews(t).ask("v3").untilPhase(v1.PhaseHealthy).pass(time.Minute)
	w.weights = nil
	w.ask("v1").settle().want(v1.PhaseHealthy, v1.ReasonServing, "v1", 0).wantNoRun()
	if len(w.weights) != 1 || w.status().History[0].Verdict != v1.ReasonReturned {
		t.Errorf("weights %v, history %v", w.weights, w.status().History[0])
	}
	w.ask("v3").untilStep("shadow") // its proof was withdrawn by leaving it
}

func TestInstantReturnNeedsAStandingProof(t *testing.T) {
	tests := map[string]func(w *world){
		"revision changed": func(w *world) { w.see("v1", func(v *Version) { v.Revision = "other" }) },
		"too old":          func(w *world) { w.in.Now = w.in.Now.Add(200 * time.Hour) },
		"no revisions": func(w *world) {
			w.edit(func(s *v1.RolloutSpec) { s.RollbackWindow = &v1.RollbackWindow{Revisions: ptr[int32](0)} })
		},
		"window passed": func(w *world) {
			w.edit(func(s *v1.RolloutSpec) { s.RollbackWindow = &v1.RollbackWindow{Within: seconds(1)} })
		},
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			w := reviews(t).ask("v3").untilPhase(v1.PhaseHealthy).pass(time.Minute)
			change(w)
			w.ask("v1").untilStep("shadow")
		})
	}
	t.Run("unavailable", func(t *testing.T) {
		w := reviews(t).ask("v3").untilPhase(v1.PhaseHealthy)
		w.see("v1", func(v *Version) { v.Available, v.Ready = false, 0 }).ask("v1").settle()
		w.want(v1.PhaseProgressing, v1.ReasonAvailability, "v3", 0)
	})
}

func TestSuspend(t *testing.T) {
	suspend := func(on bool) func(*v1.RolloutSpec) { return func(s *v1.RolloutSpec) { s.Suspend = on } }
	w := reviews(t).edit(suspend(true)).ask("v3").settle().want(v1.PhaseWaiting, v1.ReasonSuspended, "v1", 0)
	w.pass(time.Minute).wantNoRun()
	w.edit(suspend(false)).untilStep("half").edit(suspend(true)).pass(10*time.Minute).want(v1.PhaseWaiting, v1.ReasonSuspended, "v1", 50)
	t.Run("goes on", func(t *testing.T) {
		c := *w
		c.t = t
		c.edit(suspend(false)).untilPhase(v1.PhaseHealthy).want(v1.PhaseHealthy, v1.ReasonServing, "v3", 0)
	})
	t.Run("failing gate still acts", func(t *testing.T) {
		c := *w
		c.t = t
		c.verdict = func(string, time.Time) Sample { return Sample{Verdict: Fail, Value: "9%"} }
		c.untilPhase(v1.PhaseRolledBack).want(v1.PhaseRolledBack, v1.ReasonGateFailed, "v1", 0)
	})
	t.Run("revert still acts", func(t *testing.T) {
		c := *w
		c.t = t
		c.ask("v1").settle().want(v1.PhaseHealthy, v1.ReasonServing, "v1", 0)
	})
}

func TestSoakFollows(t *testing.T) {
	w := newWorld(t, weight("half", 50, 0)).settle()
	w.edit(func(s *v1.RolloutSpec) {
		s.Soak = &v1.Soak{Hold: seconds(300), Gates: []v1.Gate{{Name: "orders", Query: "x", Max: "1"}}}
		s.Gates = []v1.Gate{}
	}).ask("v3").untilPhase(v1.PhaseSoaking).want(v1.PhaseSoaking, v1.ReasonStep, "v1", 100)
	began := w.in.Now
	w.untilPhase(v1.PhaseHealthy)
	if lasted := w.in.Now.Sub(began); lasted < 300*time.Second {
		t.Errorf("soak lasted %s, want at least 5m", lasted)
	}
	if got := w.status().History[0].Steps[1].Gates; len(got) != 1 || got[0].Name != "orders" {
		t.Errorf("soak's gates: %v", got)
	}
}

func TestRunWithoutClockCommitsNoApplied(t *testing.T) {
	w := newWorld(t, weight("half", 50, 0), weight("full", 100, 0)).settle()
	w.edit(func(s *v1.RolloutSpec) {
		s.Gates = []v1.Gate{{Name: "up", Query: "up", Min: "1", GateDefaults: v1.GateDefaults{Samples: ptr[int32](1)}}}
	}).ask("v3").untilStep("half")
	if w.status().Step.Applied != nil {
		t.Error("applied is committed where hold and windows are 0")
	}
	if g := w.decide().Watch.Gates[0]; !g.OffGrid || !g.First.Equal(w.in.Written.At.Add(propagation)) {
		t.Errorf("first sample at %s off grid %v, want %s", g.First, g.OffGrid, w.in.Written.At.Add(propagation))
	}
	w.untilPhase(v1.PhaseHealthy)
}

func TestPlanChangeBeforeFirstStepStartsAgain(t *testing.T) {
	w := reviews(t).see("v3", func(v *Version) { v.Available, v.Ready = false, 0 }).ask("v3").settle()
	w.want(v1.PhaseProgressing, v1.ReasonAvailability, "v1", 0)
	w.see("v3", func(v *Version) { v.Labels = map[string]string{"track": "canary"} }).settle()
	if got := w.status().Runs; got != 2 {
		t.Errorf("runs %d, want 2", got)
	}
}

func TestHistoryAndStatusStaySmall(t *testing.T) {
	w := newWorld(t, weight("half", 50, 0)).settle()
	long := strings.Repeat("x", 200)
	w.verdict = func(string, time.Time) Sample { return Sample{Verdict: Pass, Value: long} }
	var gates []v1.Gate
	for _, c := range "abcdefgh" {
		gates = append(gates, v1.Gate{Name: string(c), Query: "x", Max: "1"})
	}
	w.edit(func(s *v1.RolloutSpec) { s.Gates = gates })
	for i := range 14 {
		w.see("v1", func(v *Version) { v.Revision = time.Duration(i).String() })
		w.see("v3", func(v *Version) { v.Revision = time.Duration(i).String() })
		w.ask([]string{"v3", "v1"}[i%2]).untilPhase(v1.PhaseProgressing).untilPhase(v1.PhaseHealthy)
		if size := len(v1.CanonicalJSON(w.status())); size > statusLimit {
			t.Fatalf("status has %d bytes, want at most %d", size, statusLimit)
		}
	}
	if n := len(w.status().History); n == 0 || n > historyLimit {
		t.Errorf("%d runs in history", n)
	}
}

func TestALongQueryIsCutBeforeTheStatusIsTooBig(t *testing.T) {
	query := strings.Repeat("ä", 2048) // 4 KiB
	for _, c := range []struct{ message, query int }{{message: 11 * 1024, query: len(query)}, {message: 15 * 1024, query: 256}} {
		d := &draft{status: v1.RolloutStatus{Message: strings.Repeat("m", c.message), LastFailure: &v1.Failure{Query: query}}}
		d.trim()
		if size := len(v1.CanonicalJSON(d.status)); size > statusLimit {
			t.Errorf("status has %d bytes beside a message of %d, want at most %d", size, c.message, statusLimit)
		}
		if got := d.status.LastFailure.Query; len(got) > c.query || len(got) < c.query-2 || !utf8.ValidString(got) {
			t.Errorf("the query has %d bytes beside a message of %d, want %d", len(got), c.message, c.query)
		}
	}
}

func TestSameInputSameDecision(t *testing.T) {
	w := reviews(t).ask("v3").untilStep("half")
	w.measure()
	a, b := Next(w.in), Next(w.in)
	if diff := cmp.Diff(string(v1.CanonicalJSON(a.Status)), string(v1.CanonicalJSON(b.Status))); diff != "" || a.RequeueAfter != b.RequeueAfter {
		t.Errorf("two decisions differ: %s", diff)
	}
}

func TestConditionsFollowThePhase(t *testing.T) {
	w := reviews(t).ask("v3").untilStep("half")
	types := func() (out []string) {
		for _, c := range w.status().Conditions {
			out = append(out, c.Type+"="+string(c.Status))
			if c.ObservedGeneration != w.in.Rollout.Generation {
				t.Errorf("%s has observedGeneration %d, want %d", c.Type, c.ObservedGeneration, w.in.Rollout.Generation)
			}
		}
		slices.Sort(out)
		return out
	}
	if diff := cmp.Diff([]string{"Ready=False", "Reconciling=True"}, types()); diff != "" {
		t.Error(diff)
	}
	w.untilPhase(v1.PhaseHealthy)
	if diff := cmp.Diff([]string{"Ready=True"}, types()); diff != "" {
		t.Error(diff)
	}
	w.in.Rollout.Annotations = map[string]string{v1.ReconcileAnnotation: v1.ReconcileDisabled, v1.RevisionAnnotation: "abc"}
	w.settle()
	if diff := cmp.Diff([]string{"Ready=False", "Stalled=True"}, types()); diff != "" {
		t.Error(diff)
	}
	if w.status().Phase != v1.PhaseDetached || w.status().Revision != "abc" {
		t.Errorf("phase %s revision %s", w.status().Phase, w.status().Revision)
	}
}

// TestReadyOnlyOnceTheMeshSaysSo: after a way back, and at the very first, Ready waits for the write.
func TestReadyOnlyOnceTheMeshSaysSo(t *testing.T) {
	w := newWorld(t, weight("half", 50, 30))
	w.meshOff = true
	w.settle().want(v1.PhaseProgressing, v1.ReasonStarting, "v1", 0)
	w.meshOff = false
	w.settle().want(v1.PhaseHealthy, v1.ReasonServing, "v1", 0).ask("v3").untilStep("half")
	w.meshOff = true
	w.ask("v1").settle().want(v1.PhaseProgressing, v1.ReasonReverted, "v1", 0)
	w.meshOff = false
	w.settle().want(v1.PhaseHealthy, v1.ReasonServing, "v1", 0)
}

func TestWeightIsTheShareOfTheAskedForVersion(t *testing.T) {
	w := newWorld(t, weight("half", 50, 30)).settle()
	check := func(want int32) {
		t.Helper()
		if got := w.status().Weight; got == nil || *got != want {
			t.Errorf("weight %v at %s, want %d", got, w.status().Phase, want)
		}
	}
	check(100)
	w.ask("v3").untilStep("half")
	check(50)
	w.untilPhase(v1.PhaseHealthy)
	check(100)
	w.verdict = func(string, time.Time) Sample { return Sample{Verdict: Fail, Value: "9%"} }
	w.ask("v2").untilPhase(v1.PhaseRolledBack)
	check(0)
}
