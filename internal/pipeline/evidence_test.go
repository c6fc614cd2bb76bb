package pipeline

import (
	"strings"
	"testing"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// TestFaultTestNeedsItsFault: a later step's fault host that can not carry a fault stalls the run before that step.
func TestFaultTestNeedsItsFault(t *testing.T) {
	w := reviews(t).ask("v3").untilStep("shadow")
	w.edit(func(s *v1.RolloutSpec) { s.Steps[1].Fault.Host = "rating" })
	w.in.Mesh.Faults = map[string]FaultTarget{"rating": {Problem: &Problem{Reason: v1.ReasonForeignHost, Message: "no Service rating"}}}
	w.untilPhase(v1.PhaseStalled).want(v1.PhaseStalled, v1.ReasonForeignHost, "v1", 0).pass(time.Hour)
	if got := w.status().Step.Name; got != "shadow" {
		t.Errorf("went on to %s", got)
	}
}

// TestReturnCountsFromWhenTheVersionLastServed, not from when it was proven.
func TestReturnCountsFromWhenTheVersionLastServed(t *testing.T) {
	w := reviews(t)
	w.in.Now = w.in.Now.Add(30 * 24 * time.Hour)
	w.ask("v3").untilPhase(v1.PhaseHealthy).pass(5 * time.Minute)
	w.weights = nil
	w.ask("v1").settle().want(v1.PhaseHealthy, v1.ReasonServing, "v1", 0)
	if len(w.weights) != 1 {
		t.Errorf("weights %v: it was no instant return", w.weights)
	}
}

// TestSampleUnderWayIsNoMissingEvidence: everything known passes, and only the newest sample has not come yet.
func TestSampleUnderWayIsNoMissingEvidence(t *testing.T) {
	w := reviews(t).edit(func(s *v1.RolloutSpec) {
		s.ProgressDeadline = &v1.ProgressDeadline{Duration: seconds(60), OnNoEvidence: v1.NoEvidenceRollback}
	})
	w.in.Mesh.Faults["ratings"] = FaultTarget{VirtualService: carrier.VirtualService, Busy: "details"}
	w.ask("v3").untilPhase(v1.PhaseWaiting).pass(10 * time.Minute)
	w.in.Mesh.Faults["ratings"] = carrier
	for range 20 {
		w.in.Now = w.in.Now.Add(700 * time.Millisecond)
		w.measure()
		known := w.in.Samples["errors"]
		known.Samples = known.Samples[:len(known.Samples)-1]
		w.in.Samples["errors"] = known
		if d := w.decide(); d.Status.Run == nil {
			t.Fatalf("rolled back: %s", d.Status.Message)
		}
	}
}

// TestPhaseStaysWhileTheNextFaultIsBusy, whatever the samples do.
func TestPhaseStaysWhileTheNextFaultIsBusy(t *testing.T) {
	w := reviews(t)
	w.in.Mesh.Faults["ratings"] = FaultTarget{VirtualService: carrier.VirtualService, Busy: "details"}
	w.ask("v3").untilPhase(v1.PhaseWaiting)
	events := len(w.events)
	w.pass(5*time.Minute).want(v1.PhaseWaiting, v1.ReasonFaultBusy, "v1", 0)
	if got := w.events[events:]; len(got) > 0 {
		t.Errorf("events while nothing happened: %v", got)
	}
}

func TestOwnHostFaultWaitsForAnother(t *testing.T) {
	own := v1.Step{Name: "own", Hold: seconds(5), Fault: &v1.Fault{Match: jason()}, Probe: &v1.Probe{URL: "http://x"}}
	w := newWorld(t, own).settle()
	w.in.Mesh.Faults = map[string]FaultTarget{"": {Busy: "productpage"}}
	w.ask("v3").settle().want(v1.PhaseWaiting, v1.ReasonFaultBusy, "v1", 0)
	if !strings.Contains(w.status().Message, "productpage stands on reviews") {
		t.Errorf("message %q", w.status().Message)
	}
	w.in.Mesh.Faults = nil
	w.untilStep("own")
}

// TestAnotherProcessBeginsTheProbeAfresh, and the hold with it.
func TestAnotherProcessBeginsTheProbeAfresh(t *testing.T) {
	w := reviews(t).ask("v3").untilStep("ratings-slow").pass(9 * time.Second)
	w.in.Written = &Written{At: w.in.Now}
	w.settle()
	if got := w.status().Step.Applied.Time; !got.Equal(w.in.Now) {
		t.Errorf("applied %s, want %s", got, w.in.Now)
	}
	began := w.in.Now
	w.untilStep("half")
	if lasted := w.in.Now.Sub(began); lasted < 10*time.Second {
		t.Errorf("the probe lasted %s after the restart, want its whole hold", lasted)
	}
}

func TestDetachedTimeProvesNothing(t *testing.T) {
	w := reviews(t).ask("v3").untilStep("half").pass(5 * time.Second)
	detach := func(on bool) {
		w.in.Rollout = w.in.Rollout.DeepCopy()
		w.in.Rollout.Annotations = map[string]string{}
		if on {
			w.in.Rollout.Annotations[v1.ReconcileAnnotation] = v1.ReconcileDisabled
		}
	}
	detach(true)
	w.settle().want(v1.PhaseDetached, v1.ReasonDetached, "v1", 50).pass(time.Hour)
	detach(false)
	w.in.Written = &Written{At: w.in.Now}
	w.settle().want(v1.PhaseProgressing, v1.ReasonStep, "v1", 50)
	if got := w.status().Step.Applied.Time; !got.Equal(w.in.Now) {
		t.Errorf("applied %s, want %s", got, w.in.Now)
	}
}

// TestSecondVirtualServiceIsToldOf at rest and in mid-run, and holds up no way back.
func TestSecondVirtualServiceIsToldOf(t *testing.T) {
	conflict := &Problem{Reason: v1.ReasonHostConflict, Message: "two VirtualServices"}
	w := reviews(t).ask("v3").untilStep("half")
	w.in.Mesh.SurveyProblem = conflict
	w.pass(time.Hour).want(v1.PhaseStalled, v1.ReasonHostConflict, "v1", 50)
	w.in.Mesh.SurveyProblem = nil
	w.untilPhase(v1.PhaseHealthy)
	w.in.Mesh.SurveyProblem = conflict
	w.settle().want(v1.PhaseStalled, v1.ReasonHostConflict, "v3", 0)
	w.ask("v1").settle().want(v1.PhaseStalled, v1.ReasonHostConflict, "v1", 0)
}

func TestManyStepsWithManyGatesFitTheStatus(t *testing.T) {
	var steps []v1.Step
	for i := range 50 {
		steps = append(steps, weight(strings.Repeat("s", i+1), int32(2*(i+1)), 0))
	}
	w := newWorld(t, steps...).settle()
	var gates []v1.Gate
	for i := range 20 {
		gates = append(gates, v1.Gate{Name: strings.Repeat("g", i+1), Query: "up", Max: "1", GateDefaults: v1.GateDefaults{Samples: ptr[int32](1)}})
	}
	w.edit(func(s *v1.RolloutSpec) { s.Gates = gates }).ask("v3").until("the end", func() bool {
		if size := len(v1.CanonicalJSON(w.status())); size > statusLimit {
			t.Fatalf("status has %d bytes at %s", size, w.status().Message)
		}
		return w.status().Phase == v1.PhaseHealthy
	})
	if got := w.status().History; len(got) != 1 || len(got[0].Steps) != 50 || got[0].Steps[49].Gates == nil {
		t.Error("the run's record lost more than the oldest steps' values")
	}
}
