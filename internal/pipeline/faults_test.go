package pipeline

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	istio "istio.io/api/networking/v1alpha3"

	v1 "sluice.dev/sluice/api/v1"
)

func everyone(host string) *v1.Fault {
	return &v1.Fault{
		Host: host, Scope: v1.FaultScopeEveryone, Traffic: v1.FaultTrafficUnchanged,
		Abort: &istio.HTTPFaultInjection_Abort{ErrorType: &istio.HTTPFaultInjection_Abort_HttpStatus{HttpStatus: 503}},
	}
}

// TestResolvedForms: what mirrors and faults of each form ask of the mesh, who reports for the canary, and what people read.
func TestResolvedForms(t *testing.T) {
	for name, tc := range map[string]struct {
		step           v1.Step
		exposed, users bool
		mode           string
		matches        int
	}{
		"mirror": {v1.Step{Mirror: &v1.Mirror{}}, true, false, "mirror 100", 0},
		"mirror to the own host, in full": {
			v1.Step{Mirror: &v1.Mirror{Host: "reviews.bookinfo.svc.cluster.local", Percentage: ptr[int32](5)}}, true, false, "mirror 5", 0,
		},
		"mirror narrowed":  {v1.Step{Mirror: &v1.Mirror{Match: jason()}}, true, false, "mirror 100", 0},
		"mirror elsewhere": {v1.Step{Mirror: &v1.Mirror{Host: "audit"}}, false, false, "mirror 100 to audit", 0},
		"mirror to the canary's own host": {
			v1.Step{Mirror: &v1.Mirror{Host: "reviews-next.bookinfo.svc.cluster.local"}}, true, false, "mirror 100", 0,
		},
		"fault":                   {v1.Step{Fault: &v1.Fault{Match: jason()}}, true, true, "fault", 0},
		"fault on another host":   {v1.Step{Fault: &v1.Fault{Host: "ratings", Match: jason()}}, true, true, "fault, match", 1},
		"traffic Canary, said so": {v1.Step{Fault: &v1.Fault{Host: "ratings", Match: jason(), Traffic: v1.FaultTrafficCanary, Scope: v1.FaultScopeMatched}}, true, true, "fault, match", 1},
		"unchanged":               {v1.Step{Fault: &v1.Fault{Match: jason(), Traffic: v1.FaultTrafficUnchanged}}, false, false, "fault", 0},
		"unchanged elsewhere":     {v1.Step{Fault: &v1.Fault{Host: "ratings", Match: jason(), Traffic: v1.FaultTrafficUnchanged}}, false, false, "fault", 0},
		"everyone, testers matched": {
			v1.Step{Fault: everyone(""), Match: jason()}, true, true, "fault, match", 1,
		},
		"everyone, by weight": {v1.Step{Fault: everyone("ratings"), Weight: ptr[int32](5)}, true, true, "fault", 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := &v1.Rollout{Spec: v1.RolloutSpec{Host: "reviews", Version: "v3", Steps: []v1.Step{tc.step}}}
			r.Spec.Versions = []v1.Version{{Name: "v3", Destination: &v1.Destination{Host: "reviews-next"}}}
			r.Namespace = "bookinfo"
			s := resolvePlan(r)[0]
			got := s.traffic(v1.Target{}, v1.Target{})
			if got.Exposed() != tc.exposed || got.ExposedToUsers() != tc.users || len(got.Match) != tc.matches {
				t.Errorf("exposed %v, to users %v, %d matches; want %v, %v, %d", got.Exposed(), got.ExposedToUsers(), len(got.Match), tc.exposed, tc.users, tc.matches)
			}
			if mode(got) != tc.mode {
				t.Errorf("mode %q, want %q", mode(got), tc.mode)
			}
			if f := got.Fault; f != nil && (f.Traffic == v1.FaultTrafficCanary || f.Scope == v1.FaultScopeMatched) {
				t.Errorf("the defaults are committed: %+v", f)
			}
		})
	}
}

func regex(pattern string) *istio.StringMatch {
	return &istio.StringMatch{MatchType: &istio.StringMatch_Regex{Regex: pattern}}
}

// TestRefusedForms: steps that can not stand stall before the run begins, and the run begins once they can.
func TestRefusedForms(t *testing.T) {
	probe := &v1.Probe{URL: "http://bookinfo/productpage"}
	long := v1.HTTPMatches{{Headers: map[string]*istio.StringMatch{"id": regex(strings.Repeat("x", trafficLimit))}}}
	for name, tc := range map[string]struct {
		step         v1.Step
		mend         func(*world)
		reason, says string
	}{
		"everyone without the flag": {
			v1.Step{Fault: everyone(""), Probe: probe},
			func(w *world) { w.in.UnscopedFaults = true },
			v1.ReasonUnscopedFault, "start the operator with --allow-unscoped-faults",
		},
		"nobody watches": {
			v1.Step{Fault: &v1.Fault{Match: jason(), Traffic: v1.FaultTrafficUnchanged}},
			func(w *world) { w.edit(func(s *v1.RolloutSpec) { s.Steps[0].Probe = probe }) }, v1.ReasonInvalidSpec, "its fault tests nothing",
		},
		"nobody watches, but somebody is on the canary": {
			v1.Step{Fault: &v1.Fault{Match: jason(), Traffic: v1.FaultTrafficUnchanged}, Mirror: &v1.Mirror{Host: "audit"}},
			func(w *world) { w.edit(func(s *v1.RolloutSpec) { s.Steps[0].Mirror.Host = "" }) }, v1.ReasonInvalidSpec, "its fault tests nothing",
		},
		"mirror host of nobody": {
			v1.Step{Mirror: &v1.Mirror{Host: "audit"}},
			func(w *world) { w.in.Mesh.Mirrors = map[string]*Problem{"audit": nil} }, v1.ReasonForeignHost, "nothing is known of mirror host audit",
		},
		"foreign mirror host": {
			v1.Step{Mirror: &v1.Mirror{Host: "shadow"}},
			func(w *world) { w.in.Mesh.Mirrors["shadow"] = nil }, v1.ReasonForeignHost, "step s: no Service shadow",
		},
		"a regex that is none": {
			v1.Step{Match: v1.HTTPMatches{{Headers: map[string]*istio.StringMatch{"user-agent": regex("*"), "cookie": regex("(?=user)")}}}},
			func(w *world) {
				w.edit(func(s *v1.RolloutSpec) { s.Steps[0].Match[0].Headers["cookie"] = regex(".*user.*") })
			},
			v1.ReasonInvalidSpec, "step s: match: regex \"(?=user)\": error parsing regexp",
		},
		"a regex that Istio does not take": {
			v1.Step{Mirror: &v1.Mirror{Match: v1.HTTPMatches{{Uri: regex(strings.Repeat("x", 1025))}}}},
			func(w *world) { w.edit(func(s *v1.RolloutSpec) { s.Steps[0].Mirror.Match[0].Uri = regex("/a.*") }) },
			v1.ReasonInvalidSpec, "step s: mirror.match: a regex has 1025 characters, and Istio takes 1024",
		},
		"too much for status": {
			v1.Step{Match: long},
			func(w *world) { w.edit(func(s *v1.RolloutSpec) { s.Steps[0].Match = jason() }) },
			v1.ReasonInvalidSpec, fmt.Sprintf("bytes of status, which has %d for it", trafficLimit),
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.step.Name, tc.step.Hold = "s", seconds(5)
			w := newWorld(t, tc.step).settle()
			w.in.Mesh.Mirrors = map[string]*Problem{"shadow": {Reason: v1.ReasonForeignHost, Message: "no Service shadow"}}
			if name == "mirror host of nobody" {
				w.in.Mesh.Mirrors = nil
			} else {
				w.in.Mesh.Mirrors["audit"] = nil
			}
			w.ask("v3").settle().want(v1.PhaseStalled, tc.reason, "v1", 0).pass(time.Hour)
			if w.status().Run != nil || !strings.Contains(w.status().Message, tc.says) {
				t.Errorf("run %v, message %q, want it to say %q", w.status().Run, w.status().Message, tc.says)
			}
			tc.mend(w)
			w.untilStep("s")
		})
	}
}

// TestFaultOnTheOwnHostOfConnections: CEL knows hosts by their spelling only, and a fault that nothing carries would be a test that passes.
func TestFaultOnTheOwnHostOfConnections(t *testing.T) {
	step := v1.Step{Name: "s", Weight: ptr[int32](5), Hold: seconds(5), Probe: &v1.Probe{URL: "http://bookinfo/productpage"}}
	step.Fault = &v1.Fault{Host: "reviews.bookinfo.svc.cluster.local", Match: jason(), Traffic: v1.FaultTrafficUnchanged}
	w := newWorld(t, step).edit(func(s *v1.RolloutSpec) { s.Protocol = v1.ProtocolTCP }).settle()
	w.ask("v3").settle().want(v1.PhaseStalled, v1.ReasonInvalidSpec, "v1", 0)
	if message := w.status().Message; !strings.Contains(message, "name the host of an HTTP service in fault.host") {
		t.Errorf("message: %s", message)
	}
}

// TestEditsOfTheForms: who changes what the step that stands mirrors, matches or breaks begins anew; who changes nothing does not.
func TestEditsOfTheForms(t *testing.T) {
	start := func(t *testing.T) *world {
		step := v1.Step{
			Name: "s", Hold: seconds(600), Mirror: &v1.Mirror{Host: "audit"}, Probe: &v1.Probe{URL: "http://bookinfo/productpage"},
			Fault: &v1.Fault{Match: jason(), Traffic: v1.FaultTrafficUnchanged, Delay: &istio.HTTPFaultInjection_Delay{Percent: 100}}, //nolint:staticcheck // the deprecated form works
		}
		w := newWorld(t, step).settle()
		w.in.UnscopedFaults, w.in.Mesh.Mirrors = true, map[string]*Problem{"audit": nil, "other": nil}
		return w.ask("v3").untilStep("s")
	}
	for name, tc := range map[string]struct {
		edit func(*v1.Step)
		anew bool
	}{
		"mirror's host":        {func(s *v1.Step) { s.Mirror.Host = "other" }, true},
		"mirror's match":       {func(s *v1.Step) { s.Mirror.Match = jason() }, true},
		"percentage, default":  {func(s *v1.Step) { s.Mirror.Percentage = ptr[int32](100) }, false},
		"fault's traffic":      {func(s *v1.Step) { s.Fault.Traffic = v1.FaultTrafficCanary }, true},
		"fault's scope":        {func(s *v1.Step) { s.Fault.Scope, s.Fault.Match = v1.FaultScopeEveryone, nil }, true},
		"scope, default":       {func(s *v1.Step) { s.Fault.Scope = v1.FaultScopeMatched }, false},
		"deprecated percent":   {func(s *v1.Step) { s.Fault.Delay.Percent = 50 }, true}, //nolint:staticcheck // the deprecated form works
		"what is no traffic":   {func(s *v1.Step) { s.Probe.MinSuccess = "90%" }, false},
		"own host, spelled so": {func(s *v1.Step) { s.Fault.Host = "reviews" }, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := start(t)
			w.edit(func(s *v1.RolloutSpec) { tc.edit(&s.Steps[0]) }).settle()
			if anew := w.status().Runs > 1; anew != tc.anew {
				t.Errorf("a new run: %v, want %v; %s", anew, tc.anew, w.status().Message)
			}
		})
	}
}

// TestLeftoversOfMirrors: mirrors that were moved away for a mirror on the routes are forgotten once one that stands apart is in
// force, since they are back in their place then.
func TestLeftoversOfMirrors(t *testing.T) {
	w := newWorld(t, shadow(), v1.Step{Name: "apart", Mirror: &v1.Mirror{Host: "audit"}, Hold: seconds(60)}).settle()
	w.in.Mesh.Mirrors = map[string]*Problem{"audit": nil}
	w.ask("v3").untilStep("shadow")
	w.status().VirtualServices = []v1.ManagedVirtualService{{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", SavedMirror: "{}"}}}}
	w.pass(10 * time.Second)
	if got := w.status().VirtualServices[0].Routes[0].SavedMirror; got != "{}" {
		t.Errorf("saved %q while ours stands on the route", got)
	}
	w.untilStep("apart").pass(time.Second)
	if got := w.status().VirtualServices[0].Routes[0].SavedMirror; got != "" {
		t.Errorf("still saved: %q", got)
	}
	if diff := cmp.Diff("mirror 100 to audit", w.status().Mode); diff != "" {
		t.Error(diff)
	}
}
