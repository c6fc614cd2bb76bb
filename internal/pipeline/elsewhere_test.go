package pipeline

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

// partner is an external host whose versions have hosts of their own, the first of them the Rollout's.
func partner(t *testing.T, steps ...v1.Step) *world {
	t.Helper()
	w := newWorld(t, steps...)
	w.in.Serving = nil
	w.edit(func(s *v1.RolloutSpec) {
		s.Host = "api.partner.com"
		for _, name := range []string{"v1", "v2", "v3"} {
			host := map[string]string{"v1": "api.partner.com", "v2": "api-v2.partner.com", "v3": "partner-v3"}[name]
			s.Versions = append(s.Versions, v1.Version{Name: name, Destination: &v1.Destination{Host: host}})
			w.in.Versions[name] = Version{Found: true, Available: true, Ready: 1, Host: host}
		}
	})
	return w
}

func TestStableIsDiscoveredElsewhere(t *testing.T) {
	routes := func(hosts ...string) []v1.ManagedVirtualService {
		vs := v1.ManagedVirtualService{Name: "partner"}
		for _, host := range hosts {
			vs.Routes = append(vs.Routes, v1.ManagedRoute{Key: "route to " + host, Host: host})
		}
		return []v1.ManagedVirtualService{vs}
	}
	for name, tc := range map[string]struct {
		initial string
		found   []v1.ManagedVirtualService
		want    string
	}{
		"nothing routes: the host itself":        {"", nil, "v1"},
		"a route to the host":                    {"", routes(""), "v1"},
		"a route to a version's":                 {"", routes("partner-v3.bookinfo.svc.cluster.local"), "v3"},
		"a route to an external one":             {"", routes("api-v2.partner.com"), "v2"},
		"routes to several":                      {"v2", routes("", "api-v2.partner.com"), "v2"},
		"nothing routes, and the spec knows":     {"v3", nil, "v3"},
		"the host itself, whatever else is said": {"v3", routes(""), "v1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := partner(t, weight("half", 50, 10))
			w.edit(func(s *v1.RolloutSpec) { s.InitialVersion = tc.initial })
			w.in.Mesh.VirtualServices = tc.found
			w.decide()
			if got := w.status().Stable; got != tc.want {
				t.Errorf("stable is %q (%s), want %s", got, w.status().Message, tc.want)
			}
		})
	}
}

func TestARunElsewhere(t *testing.T) {
	w := partner(t, weight("half", 50, 10)).settle()
	w.ask("v2").settle().untilStep("half")
	if c := w.status().Traffic.Canary; c == nil || c.Host != "api-v2.partner.com" || c.Subset != "" {
		t.Fatalf("the canary is %+v", c)
	}
	if got := w.last.Watch; got == nil || len(got.Gates) == 0 || got.Gates[0].Canary.Host != "api-v2.partner.com" {
		t.Errorf("gates watch %+v", got)
	}
	w.untilPhase(v1.PhaseHealthy).want(v1.PhaseHealthy, v1.ReasonServing, "v2", 0)
	if got := w.status().Subsets; len(got) != 0 {
		t.Errorf("subsets of versions that have none: %+v", got)
	}
	w.edit(func(s *v1.RolloutSpec) { s.Versions[1].Destination.Host = "moved.partner.com" })
	w.see("v2", func(v *Version) { v.Host = "moved.partner.com" }).settle().want(v1.PhaseStalled, v1.ReasonSubsetInUse, "v2", 0)
	if message := w.status().Message; !strings.Contains(message, "destination api-v2.partner.com") || !strings.Contains(message, "destination moved.partner.com") {
		t.Errorf("message: %s", message)
	}
}

func TestWhatForbidsAVersionElsewhere(t *testing.T) {
	for name, tc := range map[string]struct {
		see    func(*Version)
		step   v1.Step
		reason string
		says   string
	}{
		"no endpoint":         {func(v *Version) { *v = Version{Host: v.Host} }, weight("half", 50, 10), v1.ReasonVersionNotFound, ""},
		"another namespace's": {func(v *Version) { *v = Version{Host: v.Host, Foreign: &Problem{Reason: v1.ReasonForeignHost}} }, weight("half", 50, 10), v1.ReasonForeignHost, ""},
		"the host of stable":  {func(v *Version) { v.Host = "API.partner.com" }, weight("half", 50, 10), v1.ReasonVersionsOverlap, ""},
		"a fault on its own host, which no route of the Rollout asks": {func(v *Version) { v.Host = "ratings.bookinfo.svc.cluster.local" }, slowRatings(), v1.ReasonInvalidSpec, "leave fault.host out"},
		"a fault for calls that nothing tells apart":                  {func(*Version) {}, slowRatings(), v1.ReasonInvalidSpec, "use fault.traffic Unchanged"},
	} {
		t.Run(name, func(t *testing.T) {
			w := partner(t, tc.step).settle()
			w.in.Mesh.Faults = map[string]FaultTarget{"ratings": carrier}
			w.see("v2", tc.see).ask("v2").settle().want(v1.PhaseStalled, tc.reason, "v1", 0)
			if !strings.Contains(w.status().Message, tc.says) {
				t.Errorf("message: %s", w.status().Message)
			}
		})
	}
}

// TestTwoPortsOfOneHost: metrics name no ports, so neither gates nor the breaker are told of labels that both versions may bear.
func TestTwoPortsOfOneHost(t *testing.T) {
	on := func(port uint32) func(*Version) {
		return func(v *Version) {
			v.Host, v.Port, v.Workload, v.Labels = "api.partner.com", port, "api", map[string]string{"version": "v2"}
		}
	}
	w := partner(t, weight("half", 50, 10)).edit(func(s *v1.RolloutSpec) { s.Breaker = &v1.Breaker{} })
	w.see("v1", func(v *Version) { v.Port = 8080 }).settle().see("v2", on(8081)).ask("v2").untilStep("half")
	want := GateTarget{Version: "v2", Workload: "api", Host: "api.partner.com", SharesHost: true, Port: 8081}
	if diff := cmp.Diff(want, w.last.Watch.Gates[0].Canary); diff != "" {
		t.Errorf("gates (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want, w.breaker().Canary); diff != "" {
		t.Errorf("the breaker (-want +got):\n%s", diff)
	}
	w = partner(t, weight("half", 50, 10)).see("v1", func(v *Version) { v.Port = 8080 }).settle()
	w.see("v2", on(0)).ask("v2").settle().want(v1.PhaseStalled, v1.ReasonVersionsOverlap, "v1", 0)
	if message := w.status().Message; !strings.Contains(message, "name the ports of both") {
		t.Errorf("message: %s", message)
	}
}
