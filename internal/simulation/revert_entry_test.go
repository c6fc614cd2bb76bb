package simulation

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// TestRevertTakesADescriptionAlong: a push brings v3 together with a VirtualService for a gateway; when it serves, a git revert takes both
// back. No route of Sluice's sends anybody to v3 any more, at once.
func TestRevertTakesADescriptionAlong(t *testing.T) {
	const described = `virtualServices: [{gateways: [mesh]}, {name: edge, gateways: [books], hosts: [shop.example.com], http: [{match: [{uri: {exact: /reviews}}]}]}]`
	for name, before := range map[string]string{"of one beside it": `virtualServices: [{gateways: [mesh]}]`, "of all": ""} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(1)
			w.transcript.on = true
			entries := func(text string) []v1.VirtualService { return parseSpec("host: reviews\n" + text).VirtualServices }
			synctest.Test(t, func(*testing.T) {
				s := setting{mesh: "none", spec: parseSpec("host: reviews\nversion: v1\ninitialVersion: v1\ngates: []\nsteps: [{name: half, weight: 50, hold: 5s}]\n" + before)}
				w.build(s)
				for _, v := range []string{"v1", "v3"} {
					w.deploy(v)
					w.setReady(v, true)
				}
				w.run(epoch.Add(minute))
				w.editSpec(func(s *v1.RolloutSpec) { s.Version, s.VirtualServices = "v3", entries(described) })
				w.pass(2 * minute)
				if s := w.rollout().Status; s.Stable != "v3" || s.Phase != v1.PhaseHealthy || !strings.Contains(w.routes(edgeKey), "v3") {
					t.Fatalf("stable %s, %s/%s: %s", s.Stable, s.Phase, s.Reason, s.Message)
				}
				w.editSpec(func(s *v1.RolloutSpec) { s.Version, s.VirtualServices = "v1", entries(before) })
				w.pass(5 * time.Second)
				if s := w.rollout().Status; s.Stable != "v1" || s.Phase != v1.PhaseHealthy {
					t.Errorf("stable %s, %s/%s: %s", s.Stable, s.Phase, s.Reason, s.Message)
				}
				for _, key := range routeKeys {
					if !w.isGone(key) && strings.Contains(w.routes(key), "v3") {
						t.Errorf("%s is %s", key, w.routes(key))
					}
				}
			})
			if w.violation != nil || t.Failed() {
				t.Errorf("%v\n%s", w.violation, w.transcript.text.String())
			}
		})
	}
}
