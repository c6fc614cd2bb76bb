package simulation

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	istio "istio.io/api/networking/v1alpha3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// TestRevertTakesTheVersionsEntryAlong: a push brings v3 together with what spec.versions says of it; when it serves, a git revert takes
// both back. Users are on v1 at once, by routes that are as they were found.
func TestRevertTakesTheVersionsEntryAlong(t *testing.T) {
	for name, version := range map[string]v1.Version{
		"labels":      {Name: "v3", Labels: map[string]string{"app": "reviews", "version": "v3"}},
		"subset":      {Name: "v3", Subset: "third"},
		"destination": {Name: "v3", Destination: &v1.Destination{Host: elsewherePrefix + "v3", Port: &istio.PortSelector{Number: 9090}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(1)
			w.transcript.on = true
			s := setting{mesh: "rich", foundSubsets: []string{"v1", "v2", "v9"}, spec: parseSpec("host: reviews\nversion: v1\ninitialVersion: v1\ngates: []\nsteps: [{name: half, weight: 50, hold: 5s}]")}
			synctest.Test(t, func(*testing.T) {
				w.build(s)
				for _, v := range []string{"v1", "v3"} {
					w.deploy(v)
					w.setReady(v, true)
				}
				w.setting.spec.Versions = []v1.Version{version}
				w.setting.elsewhere = version.Destination != nil
				w.addElsewhere(&w.setting)
				w.run(epoch.Add(minute))
				before := w.store.live(mainKey)
				w.editSpec(func(s *v1.RolloutSpec) { s.Version, s.Versions = "v3", []v1.Version{version} })
				w.pass(2 * minute)
				if s := w.rollout().Status; s.Stable != "v3" || s.Phase != v1.PhaseHealthy {
					t.Fatalf("stable %s, %s/%s: %s", s.Stable, s.Phase, s.Reason, s.Message)
				}
				w.editSpec(func(s *v1.RolloutSpec) { s.Version, s.Versions = "v1", nil })
				w.pass(5 * time.Second)
				if s := w.rollout().Status; s.Stable != "v1" || s.Phase != v1.PhaseHealthy {
					t.Errorf("stable %s, %s/%s: %s", s.Stable, s.Phase, s.Reason, s.Message)
				}
				if diff := changedRoutes(before, w.store.live(mainKey)); diff != "" {
					t.Error(diff)
				}
			})
			if w.violation != nil || t.Failed() {
				t.Errorf("%v\n%s", w.violation, w.transcript.text.String())
			}
		})
	}
}

// changedRoutes are two forms of an object's routes, where they differ.
func changedRoutes(before, after *unstructured.Unstructured) string {
	was, is := string(v1.CanonicalJSON(before.Object["spec"])), string(v1.CanonicalJSON(after.Object["spec"]))
	if was == is {
		return ""
	}
	return strings.Join([]string{"the routes were", was, "and are", is}, "\n")
}
