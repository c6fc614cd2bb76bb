package pipeline

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

func TestDiscovery(t *testing.T) {
	routes := func(subsets ...string) []v1.ManagedVirtualService {
		vs := v1.ManagedVirtualService{Name: "reviews"}
		for i, s := range subsets {
			vs.Routes = append(vs.Routes, v1.ManagedRoute{Key: string(rune('a' + i)), Subset: s})
		}
		return []v1.ManagedVirtualService{vs}
	}
	rule := []v1.Subset{{Name: "stable", Labels: map[string]string{"version": "v2"}}, {Name: "odd"}}
	tests := map[string]struct {
		mesh    Mesh
		initial string
		serving []string
		unready bool
		gone    string
		want    string // a version, or a reason
	}{
		"routes name a listed subset":        {mesh: Mesh{VirtualServices: routes("v2", "v2")}, want: "v2"},
		"routes name a found subset":         {mesh: Mesh{VirtualServices: routes("stable"), Subsets: rule}, want: "v2"},
		"routes win over initialVersion":     {mesh: Mesh{VirtualServices: routes("v2")}, initial: "v1", want: "v2"},
		"subset without a version":           {mesh: Mesh{VirtualServices: routes("odd"), Subsets: rule}, serving: []string{"v1"}, want: v1.ReasonInitialVersionUnknown},
		"initialVersion":                     {mesh: Mesh{VirtualServices: routes("odd"), Subsets: rule}, initial: "v1", serving: []string{"v1", "v3"}, want: v1.ReasonRouteNotFound},
		"routes differ, initialVersion":      {mesh: Mesh{VirtualServices: routes("v2", "v1")}, initial: "v1", want: "v1"},
		"initialVersion is not available":    {initial: "v1", gone: "v1", serving: []string{"v3"}, want: v1.ReasonInitialVersionUnknown},
		"one version has endpoints":          {serving: []string{"v2"}, want: "v2"},
		"routes without subset, one version": {mesh: Mesh{VirtualServices: routes("")}, serving: []string{"v2"}, want: "v2"},
		"several versions have endpoints":    {serving: []string{"v1", "v3"}, want: v1.ReasonInitialVersionUnknown},
		"endpoints, none of them ready":      {unready: true, want: v1.ReasonInitialVersionUnknown},
		"nothing serves yet":                 {want: "v3"},
		"routes but no endpoints":            {mesh: Mesh{VirtualServices: routes("")}, want: v1.ReasonInitialVersionUnknown},
		"split routes":                       {mesh: Mesh{VirtualServices: routes("v1"), SplitRoutes: true}, serving: []string{"v1"}, want: v1.ReasonInitialVersionUnknown},
		"conflict":                           {mesh: Mesh{SurveyProblem: &Problem{Reason: v1.ReasonHostConflict}}, want: v1.ReasonHostConflict},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, weight("half", 50, 0))
			w.in.Mesh, w.in.Serving, w.in.Unready = test.mesh, test.serving, test.unready
			if test.gone != "" {
				w.see(test.gone, func(v *Version) { v.Available = false })
			}
			w.edit(func(s *v1.RolloutSpec) {
				s.Version, s.InitialVersion, s.Versions = "v3", test.initial, []v1.Version{{Name: "v1"}, {Name: "v2"}}
			})
			if name == "routes name a found subset" {
				w.edit(func(s *v1.RolloutSpec) { s.Versions = nil }).see("v2", func(v *Version) { v.Subset = "stable" })
			}
			d := w.decide()
			got := d.Status.Stable
			if got == "" {
				got = d.Status.Reason
				if d.Status.Traffic != nil || d.Status.Phase != v1.PhaseStalled {
					t.Errorf("stalled at discovery with traffic %v, phase %s", d.Status.Traffic, d.Status.Phase)
				}
			}
			if got != test.want {
				t.Errorf("got %s (%s), want %s", got, d.Status.Message, test.want)
			}
		})
	}
}

func TestManagedSet(t *testing.T) {
	w := newWorld(t, weight("half", 50, 0))
	w.in.Mesh = Mesh{
		VirtualServices: []v1.ManagedVirtualService{{Name: "bookinfo", Routes: []v1.ManagedRoute{
			{Key: "main", Subset: "v1", Weighted: true}, {Key: "plain"}, {Key: "testers", Subset: "v2"},
		}}},
		SkippedRoutes:   []string{"bookinfo/split: splits already"},
		DestinationRule: &v1.ManagedDestinationRule{Name: "found"},
		Subsets:         []v1.Subset{{Name: "v1", Labels: map[string]string{"version": "v1"}}},
	}
	w.edit(func(s *v1.RolloutSpec) { s.InitialVersion = "v1" }).settle()
	s := w.status()
	want := []v1.ManagedVirtualService{{Name: "bookinfo", Routes: []v1.ManagedRoute{{Key: "main", Subset: "v1", Weighted: true}, {Key: "plain"}}}}
	if diff := cmp.Diff(want, s.VirtualServices); diff != "" {
		t.Errorf("managed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"bookinfo/testers: pins subset v2", "bookinfo/split: splits already"}, s.SkippedRoutes); diff != "" {
		t.Errorf("skipped (-want +got):\n%s", diff)
	}
	if s.DestinationRule.Name != "found" || s.DestinationRule.Created {
		t.Errorf("rule %v", s.DestinationRule)
	}
	w.ask("v3").untilPhase(v1.PhaseHealthy)
	wantSubsets := []v1.Subset{
		{Name: "v1", Labels: map[string]string{"version": "v1"}},
		{Name: "v3", Labels: map[string]string{"version": "v3"}, Added: true},
	}
	if diff := cmp.Diff(wantSubsets, w.status().Subsets); diff != "" {
		t.Errorf("subsets (-want +got):\n%s", diff)
	}
	w.ask("v2").untilPhase(v1.PhaseHealthy)
	if got := w.status().Subsets; len(got) != 2 || got[0].Name != "v2" || got[1].Name != "v3" || got[1].Leaving {
		t.Errorf("subsets after the next run: %v", got)
	}
	w.ask("v1").untilPhase(v1.PhaseHealthy).ask("v1").settle()
	leaving := map[string]bool{}
	for _, s := range w.status().Subsets {
		leaving[s.Name] = s.Leaving
	}
	if diff := cmp.Diff(map[string]bool{"v1": false, "v2": false, "v3": true}, leaving); diff != "" {
		t.Errorf("leaving (-want +got):\n%s", diff)
	}
	w.in.Mesh.Subsets = w.in.Mesh.Subsets[:0]
	if w.settle(); len(w.status().Subsets) != 2 {
		t.Errorf("a subset that left is still kept: %v", w.status().Subsets)
	}
}

func TestNamesOfWhatIsCreated(t *testing.T) {
	w := newWorld(t, weight("half", 50, 0)).edit(func(s *v1.RolloutSpec) {
		s.VirtualServices = []v1.VirtualService{{Name: "routes"}}
		s.DestinationRule = &v1.DestinationRule{Name: "rule"}
	}).settle()
	if got := w.status().VirtualServices[0]; got.Name != "routes" || !got.Created {
		t.Errorf("VirtualService %v", got)
	}
	if got := w.status().DestinationRule; got.Name != "rule" || !got.Created {
		t.Errorf("DestinationRule %v", got)
	}
	w.in.Mesh.VirtualServices = []v1.ManagedVirtualService{{Name: "routes", Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1"}}}}
	if w.ask("v3").untilStep("half"); !w.status().VirtualServices[0].Created {
		t.Error("a created VirtualService became an adopted one")
	}
}

// TestStalls: each of these holds the start of a run, and the run starts by itself when it is gone.
func TestStalls(t *testing.T) {
	problem := &Problem{Reason: v1.ReasonHostConflict, Message: "two"}
	tests := map[string]struct {
		on, off func(w *world)
		reason  string
	}{
		"host":   {func(w *world) { w.in.HostProblem = problem }, func(w *world) { w.in.HostProblem = nil }, v1.ReasonHostConflict},
		"survey": {func(w *world) { w.in.Mesh.SurveyProblem = problem }, func(w *world) { w.in.Mesh.SurveyProblem = nil }, v1.ReasonHostConflict},
		"write": {
			func(w *world) { w.in.Mesh.WriteProblem = &Problem{Reason: v1.ReasonMeshWriteRefused} },
			func(w *world) { w.in.Mesh.WriteProblem = nil }, v1.ReasonMeshWriteRefused,
		},
		"not found": {
			func(w *world) { w.see("v3", func(v *Version) { v.Found = false }) },
			func(w *world) { w.see("v3", func(v *Version) { v.Found = true }) }, v1.ReasonVersionNotFound,
		},
		"overlap": {
			func(w *world) { w.see("v3", func(v *Version) { v.Overlaps = "v1" }) },
			func(w *world) { w.see("v3", func(v *Version) { v.Overlaps = "" }) }, v1.ReasonVersionsOverlap,
		},
		"same subset": {
			func(w *world) { w.see("v3", func(v *Version) { v.Subset = "v1" }) },
			func(w *world) { w.see("v3", func(v *Version) { v.Subset = "v3" }) }, v1.ReasonVersionsOverlap,
		},
		"labels of stable": {
			func(w *world) { w.see("v1", func(v *Version) { v.Labels = map[string]string{"app": "x"} }) },
			func(w *world) { w.see("v1", func(v *Version) { v.Labels = map[string]string{"version": "v1"} }) }, v1.ReasonSubsetInUse,
		},
		"foreign fault host": {
			func(w *world) {
				w.in.Mesh.Faults["ratings"] = FaultTarget{Problem: &Problem{Reason: v1.ReasonForeignHost}}
			},
			func(w *world) { w.in.Mesh.Faults["ratings"] = carrier }, v1.ReasonForeignHost,
		},
		"nothing carries the fault": {
			func(w *world) { w.in.Mesh.Faults = nil },
			func(w *world) { w.in.Mesh.Faults = map[string]FaultTarget{"ratings": carrier} }, v1.ReasonForeignHost,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := reviews(t)
			test.on(w)
			w.ask("v3").settle().want(v1.PhaseStalled, test.reason, "v1", 0).wantNoRun()
			w.pass(time.Hour).want(v1.PhaseStalled, test.reason, "v1", 0)
			if w.status().Rejected != nil {
				t.Errorf("rejected: %v", w.status().Rejected)
			}
			test.off(w)
			w.untilStep("shadow")
		})
	}
}

// TestStallsInMidRun: no advance, but a failing gate and a revert still act.
func TestStallsInMidRun(t *testing.T) {
	tests := map[string]struct {
		on     func(w *world)
		reason string
	}{
		"write":  {func(w *world) { w.in.Mesh.WriteProblem = &Problem{Reason: v1.ReasonRouteNotFound} }, v1.ReasonRouteNotFound},
		"host":   {func(w *world) { w.in.HostProblem = &Problem{Reason: v1.ReasonForeignHost} }, v1.ReasonForeignHost},
		"labels": {func(w *world) { w.see("v1", func(v *Version) { v.Subset = "other" }) }, v1.ReasonSubsetInUse},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			w := reviews(t).ask("v3").untilStep("half")
			test.on(w)
			w.pass(10*time.Minute).want(v1.PhaseStalled, test.reason, "v1", 50)
			w.verdict = func(string, time.Time) Sample { return Sample{Verdict: Fail, Value: "9%"} }
			w.settle()
			if w.status().Run != nil || w.status().Traffic.Weight != 0 {
				t.Errorf("failing gate did not act: %s", w.status().Message)
			}
		})
	}
}

func TestInvalidQueryAndRefusedProbe(t *testing.T) {
	w := reviews(t).ask("v3").untilStep("half")
	w.measure()
	known := w.in.Samples["errors"]
	known.InvalidQuery = "parse error: unexpected )"
	w.in.Samples["errors"] = known
	w.decide()
	w.want(v1.PhaseStalled, v1.ReasonInvalidQuery, "v1", 50).wantEvent("gate errors: Prometheus refuses its query: parse error")

	w = reviews(t)
	w.probe = func(*ProbeWatch, time.Time) *ProbeResult {
		return &ProbeResult{Refused: "host is not allowed by --probe-allow"}
	}
	w.ask("v3").untilStep("ratings-slow").untilPhase(v1.PhaseStalled).want(v1.PhaseStalled, v1.ReasonInvalidSpec, "v1", 0)
}

func TestProbeThatFails(t *testing.T) {
	w := reviews(t)
	w.probe = func(*ProbeWatch, time.Time) *ProbeResult {
		return &ProbeResult{Total: 4, Succeeded: 1, Failed: true, LastFailure: "GET /productpage: status 503, expected 200"}
	}
	w.ask("v3").untilPhase(v1.PhaseRolledBack).want(v1.PhaseRolledBack, v1.ReasonProbe, "v1", 0).wantNoRun()
	w.wantEvent("probe succeeded 1 of 4 times at step 2/4 ratings-slow: GET /productpage: status 503")
	if f := w.status().LastFailure; f.Value != "25%" || f.Limit != "100%" {
		t.Errorf("lastFailure %v", f)
	}
	if share(0, 0) != "0%" || minSuccess(&v1.Probe{MinSuccess: "95%"}) != "95%" {
		t.Error("share of nothing, or a given minSuccess")
	}
}

func TestAvailability(t *testing.T) {
	unready := func(v *Version) { v.Available, v.Ready = false, 0 }
	t.Run("never available", func(t *testing.T) {
		w := reviews(t).see("v3", unready).ask("v3").settle().want(v1.PhaseProgressing, v1.ReasonAvailability, "v1", 0)
		w.weights = nil
		w.until("rolled back", func() bool { return w.status().Phase == v1.PhaseRolledBack })
		w.want(v1.PhaseRolledBack, v1.ReasonUnavailable, "v1", 0)
		for _, weight := range w.weights {
			if weight != 0 {
				t.Errorf("had traffic: %v", w.weights)
			}
		}
	})
	t.Run("an edit moves the deadline", func(t *testing.T) {
		w := reviews(t).see("v3", unready).ask("v3").settle().pass(29 * time.Minute)
		w.edit(func(s *v1.RolloutSpec) { s.ProgressDeadline = &v1.ProgressDeadline{Duration: seconds(600)} }).pass(9 * time.Minute)
		w.want(v1.PhaseProgressing, v1.ReasonAvailability, "v1", 0).pass(2*time.Minute).want(v1.PhaseRolledBack, v1.ReasonUnavailable, "v1", 0)
	})
	t.Run("vanishes before the first step", func(t *testing.T) {
		w := reviews(t).see("v3", unready).ask("v3").settle().see("v3", func(v *Version) { v.Found = false })
		w.pass(time.Hour).want(v1.PhaseStalled, v1.ReasonVersionNotFound, "v1", 0)
	})
	t.Run("suspended while it waits", func(t *testing.T) {
		w := reviews(t).see("v3", unready).ask("v3").settle().edit(func(s *v1.RolloutSpec) { s.Suspend = true })
		w.pass(time.Hour).want(v1.PhaseWaiting, v1.ReasonSuspended, "v1", 0)
	})
	t.Run("problem while it waits", func(t *testing.T) {
		w := reviews(t).see("v3", unready).ask("v3").settle()
		w.in.Mesh.WriteProblem = &Problem{Reason: v1.ReasonForbidden}
		w.settle().want(v1.PhaseStalled, v1.ReasonForbidden, "v1", 0)
	})
	t.Run("lost in mid-run", func(t *testing.T) {
		w := reviews(t).ask("v3").untilStep("half").see("v3", unready).settle()
		w.want(v1.PhaseRolledBack, v1.ReasonUnavailable, "v1", 0).wantEvent("v3 has no ready replica left at step 3/4 half")
	})
	t.Run("lost in a mirror holds", func(t *testing.T) {
		w := reviews(t).ask("v3").untilStep("shadow").see("v3", unready).pass(10*time.Minute).want(v1.PhaseProgressing, v1.ReasonStep, "v1", 0)
		if w.status().Step.Name != "shadow" {
			t.Errorf("step %s, want shadow", w.status().Step.Name)
		}
	})
	t.Run("not available but ready: no advance", func(t *testing.T) {
		w := reviews(t).ask("v3").untilStep("half").see("v3", func(v *Version) { v.Available = false }).pass(20 * time.Minute)
		w.want(v1.PhaseProgressing, v1.ReasonStep, "v1", 50)
	})
	t.Run("stable has nothing ready", func(t *testing.T) {
		w := reviews(t).ask("v3").untilStep("half").see("v1", unready)
		w.verdict = func(string, time.Time) Sample { return Sample{Verdict: Fail, Value: "9%"} }
		w.pass(5*time.Minute).want(v1.PhaseStalled, v1.ReasonStableUnavailable, "v1", 50)
		w.see("v1", func(v *Version) { v.Available, v.Ready = true, 1 }).settle().want(v1.PhaseRolledBack, v1.ReasonGateFailed, "v1", 0)
	})
	t.Run("nothing is deployed at all", func(t *testing.T) {
		w := newWorld(t)
		w.in.Serving = nil
		w.see("v1", func(v *Version) { *v = Version{Subset: "v1"} }).settle().want(v1.PhaseStalled, v1.ReasonVersionNotFound, "v1", 0)
		w.see("v1", func(v *Version) { v.Found = true }).settle().want(v1.PhaseProgressing, v1.ReasonAvailability, "v1", 0)
		w.see("v1", func(v *Version) { v.Available, v.Ready, v.Revision = true, 1, "first" }).settle().want(v1.PhaseHealthy, v1.ReasonServing, "v1", 0)
		if got := w.status().Proven[0].Revision; got != "first" {
			t.Errorf("proof is of revision %q, want first", got)
		}
	})
}

func TestNoEvidence(t *testing.T) {
	none := func(string, time.Time) Sample { return Sample{Verdict: NoData, Message: "3 requests"} }
	broken := func(string, time.Time) Sample { return Sample{Verdict: Error, Message: "connection refused"} }
	t.Run("holds", func(t *testing.T) {
		w := reviews(t).ask("v3").untilStep("half")
		w.verdict = none
		w.pass(25*time.Minute).want(v1.PhaseProgressing, v1.ReasonStep, "v1", 50)
		w.untilPhase(v1.PhaseWaiting).want(v1.PhaseWaiting, v1.ReasonNoEvidence, "v1", 50).wantEvent("fewer than minRequests 20 in 1m0s")
		w.verdict = pass
		w.untilPhase(v1.PhaseHealthy).want(v1.PhaseHealthy, v1.ReasonServing, "v3", 0)
	})
	t.Run("rolls back where it is asked to", func(t *testing.T) {
		w := reviews(t).edit(func(s *v1.RolloutSpec) {
			s.ProgressDeadline = &v1.ProgressDeadline{Duration: seconds(60), OnNoEvidence: v1.NoEvidenceRollback}
		}).ask("v3").untilStep("half")
		w.verdict = broken
		w.untilPhase(v1.PhaseRolledBack).want(v1.PhaseRolledBack, v1.ReasonNoEvidence, "v1", 0).wantEvent("connection refused")
	})
	t.Run("a query without value", func(t *testing.T) {
		w := reviews(t).edit(func(s *v1.RolloutSpec) { s.Gates = []v1.Gate{{Name: "q", Query: "x", Min: "1", Max: "2"}} }).ask("v3").untilStep("shadow")
		w.verdict = none
		w.untilPhase(v1.PhaseWaiting).wantEvent("its query yields no value")
	})
	t.Run("never a pass", func(t *testing.T) {
		for _, verdict := range []func(string, time.Time) Sample{none, broken} {
			w := reviews(t).ask("v3").untilStep("shadow")
			w.verdict = verdict
			w.pass(59 * time.Minute)
			if w.status().Step.Name != "shadow" {
				t.Errorf("advanced without evidence to %s", w.status().Step.Name)
			}
		}
	})
	t.Run("noData: Fail", func(t *testing.T) {
		w := reviews(t).edit(func(s *v1.RolloutSpec) { s.GateDefaults = &v1.GateDefaults{NoData: v1.NoDataFail} }).ask("v3").untilStep("half")
		w.verdict = none
		w.untilPhase(v1.PhaseRolledBack).want(v1.PhaseRolledBack, v1.ReasonGateFailed, "v1", 0).wantEvent("errors has no data (noData: Fail): 3 requests")
	})
	t.Run("a failing sample among missing ones is no missing evidence", func(t *testing.T) {
		w := reviews(t).ask("v3").untilStep("half")
		w.verdict = func(_ string, at time.Time) Sample {
			if at.Unix()%30 == 0 {
				return Sample{Verdict: Fail, Value: "2%"}
			}
			return none("", at)
		}
		w.pass(50*time.Minute).want(v1.PhaseProgressing, v1.ReasonStep, "v1", 50)
	})
}

func TestFaultBusy(t *testing.T) {
	w := reviews(t)
	w.in.Mesh.Faults["ratings"] = FaultTarget{VirtualService: carrier.VirtualService, Busy: "details"}
	w.ask("v3").untilPhase(v1.PhaseWaiting).want(v1.PhaseWaiting, v1.ReasonFaultBusy, "v1", 0)
	if w.status().Traffic.Fault != nil {
		t.Error("the fault stands although another Rollout's does")
	}
	w.in.Mesh.Faults["ratings"] = carrier
	w.untilStep("ratings-slow")
}

func TestUnreleased(t *testing.T) {
	w := reviews(t).see("v1", func(v *Version) { v.Revision = "hotfix" }).settle().want(v1.PhaseHealthy, v1.ReasonServing, "v1", 0)
	if c := w.status().Conditions; len(c) != 2 || c[1].Type != v1.ConditionUnreleased {
		t.Errorf("conditions %v, want Unreleased", c)
	}
	w.ask("v3").untilStep("half").untilPhase(v1.PhaseHealthy)
	if c := w.status().Conditions; len(c) != 1 {
		t.Errorf("conditions %v after a gated run", c)
	}
}

func TestSavedMirrorsAreForgottenOnceTheyAreBack(t *testing.T) {
	w := reviews(t)
	w.in.Mesh.VirtualServices = []v1.ManagedVirtualService{{Name: "routes", Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1"}}}}
	w.ask("v3").untilStep("shadow")
	saved := func() *string { return &w.in.Rollout.Status.VirtualServices[0].Routes[0].SavedMirror }
	*saved() = "{}"
	if w.pass(10 * time.Second); *saved() != "{}" {
		t.Error("forgotten while the mirror stands")
	}
	if w.untilStep("ratings-slow").settle(); *saved() != "" {
		t.Errorf("still saved: %s", *saved())
	}
}
