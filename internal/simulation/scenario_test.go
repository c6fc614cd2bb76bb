package simulation

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// deed is something that somebody or something does to the world.
type deed struct {
	name string
	// odds against the other deeds.
	odds int
	do   func(*world)
}

// The deeds that seeds are made of.
var deeds = []deed{
	{"push", 14, func(w *world) { w.push(w.anyVersion()) }},
	{"revert", 5, func(w *world) { w.push(w.orElse(func(s *v1.RolloutStatus) string { return s.Stable })) }},
	{"revert a version and its entry", 2, func(w *world) {
		w.editSpec(func(s *v1.RolloutSpec) { s.Version, s.Versions = "v1", nil })
	}},
	{"retry a push", 3, func(w *world) {
		v := w.rollout().Spec.Version
		w.push("v1")
		w.after(5*time.Second, func() { w.ifAlive(func() { w.push(v) }) })
	}},
	{"edit a gate", 3, func(w *world) {
		gate := v1.Gate{Name: "errors", Metric: v1.MetricErrorRate, Max: "2%"}
		if w.setting.connections() {
			gate = v1.Gate{Name: "errors", Query: "connections_failed", Max: "0.02"}
		}
		w.editSpec(func(s *v1.RolloutSpec) { s.Gates = []v1.Gate{gate} })
	}},
	{"bad query", 1, func(w *world) {
		w.editSpec(func(s *v1.RolloutSpec) { s.Gates = []v1.Gate{{Name: "broken", Query: "bad(", Max: "1"}} })
	}},
	{"edit a hold", 3, func(w *world) {
		w.editStep(func(s *v1.Step) {
			s.Hold = &metav1.Duration{Duration: time.Duration(w.rng.IntN(30)) * time.Second}
		})
	}},
	{"edit a weight", 3, func(w *world) {
		w.editStep(func(s *v1.Step) { *s = v1.Step{Name: s.Name, Weight: s.Weight, Hold: s.Hold} })
	}},
	{"drop a step", 1, func(w *world) {
		w.editSpec(func(s *v1.RolloutSpec) {
			if len(s.Steps) > 1 {
				s.Steps = s.Steps[:len(s.Steps)-1]
			}
		})
	}},
	{"describe the routes", 2, (*world).describeRoutes},
	{"suspend", 3, func(w *world) { w.editSpec(func(s *v1.RolloutSpec) { s.Suspend = true }) }},
	{"resume", 4, func(w *world) { w.editSpec(func(s *v1.RolloutSpec) { s.Suspend = false }) }},
	{"detach", 1, func(w *world) { w.annotate(v1.ReconcileAnnotation, v1.ReconcileDisabled) }},
	{"attach", 3, func(w *world) { w.annotate(v1.ReconcileAnnotation, "") }},
	{"relabel", 1, func(w *world) {
		v := w.anyVersion()
		w.editSpec(func(s *v1.RolloutSpec) {
			if w.setting.elsewhere {
				return
			}
			s.Versions = []v1.Version{{Name: v, Labels: map[string]string{"app": "reviews", "version": v}}}
		})
	}},
	{"rebuild the canary", 2, func(w *world) { w.rebuildReady(w.orElse(func(s *v1.RolloutStatus) string { return s.Canary })) }},
	{"rebuild", 2, func(w *world) { w.rebuildReady(w.anyVersion()) }},
	{"lose the canary", 3, func(w *world) { w.setReady(w.orElse(func(s *v1.RolloutStatus) string { return s.Canary }), false) }},
	{"lose a version", 4, func(w *world) { w.setReady(w.anyVersion(), false) }},
	{"heal a version", 6, func(w *world) { w.setReady(w.anyVersion(), true) }},
	{"heal all", 4, (*world).healAll},
	{"undeploy", 1, func(w *world) { w.undeploy(w.anyVersion()) }},
	{"deploy", 4, func(w *world) { v := w.anyVersion(); w.deploy(v); w.setReady(v, true) }},
	{"errors begin", 3, func(w *world) { w.prometheus.setErrors(w.anyVersion(), 0.2) }},
	{"the canary turns bad", 6, func(w *world) {
		w.prometheus.setErrors(w.orElse(func(s *v1.RolloutStatus) string { return s.Canary }), 0.2)
	}},
	{"errors end", 5, func(w *world) { w.prometheus.setErrors(w.anyVersion(), 0.001) }},
	{"prometheus down", 3, func(w *world) { w.prometheus.down.set(w.clock.now, true) }},
	{"prometheus up", 3, func(w *world) { w.prometheus.down.set(w.clock.now, false) }},
	{"traffic dries up", 3, func(w *world) { w.prometheus.requests.set(w.clock.now, 0.05) }},
	{"traffic returns", 4, func(w *world) { w.prometheus.requests.set(w.clock.now, 50) }},
	{"probe fails", 2, func(w *world) { w.prometheus.probes.set(w.clock.now, false) }},
	{"probe heals", 3, func(w *world) { w.prometheus.probes.set(w.clock.now, true) }},
	{"edit weights by hand", 3, (*world).tamper},
	{"edit a foreign route", 3, (*world).editForeign},
	{"rename a route", 1, func(w *world) {
		w.editRoutes(mainKey, func(r map[string]any) {
			if r["name"] == "primary" && w.setting.mesh == "rich" {
				r["name"] = "renamed"
			}
		})
	}},
	{"restore routes", 3, (*world).restoreRoutes},
	{"delete the routes", 1, func(w *world) { w.removeByHand(mainKey) }},
	{"delete the edge's routes", 1, func(w *world) { w.removeByHand(edgeKey) }},
	{"bring the edge's routes", 2, func(w *world) {
		if w.setting.edge {
			w.add("people", w.setting.edgeBackup())
		}
	}},
	{"delete the rule", 1, func(w *world) { w.removeByHand(ruleKey) }},
	{"second Rollout", 1, func(w *world) {
		spec := w.setting.spec
		spec.Version = w.anyVersion()
		w.addRollout("reviews-too", spec)
	}},
	{"kill", 4, func(w *world) {
		if p := w.process; p != nil {
			w.crash(p, "between reconciles")
		}
	}},
}

func (w *world) anyVersion() string { return versions[w.rng.IntN(len(versions))] }

// orElse picks a version out of the status, any one when there is none.
func (w *world) orElse(pick func(*v1.RolloutStatus) string) string {
	if v := pick(&w.rollout().Status); v != "" {
		return v
	}
	return w.anyVersion()
}

func (w *world) ifAlive(do func()) {
	if r := w.rollout(); r != nil && r.DeletionTimestamp == nil {
		do()
	}
}

func (w *world) editStep(change func(*v1.Step)) {
	w.editSpec(func(s *v1.RolloutSpec) { change(&s.Steps[w.rng.IntN(len(s.Steps))]) })
}

func (w *world) rebuildReady(version string) {
	if w.store.live(deploymentKey(version)) == nil {
		return
	}
	w.rebuild(version)
	w.after(time.Duration(w.rng.IntN(20))*time.Second, func() { w.setReady(version, true) })
}

func (w *world) healAll() {
	for _, v := range versions {
		w.setReady(v, true)
	}
}

// tamper splits a driven route by hand.
func (w *world) tamper() {
	w.editRoutes(routeKeys[w.rng.IntN(len(routeKeys))], func(r map[string]any) {
		view := viewRoute(r)
		if !view.managed() || w.rng.IntN(2) == 0 {
			return
		}
		list, _ := r["route"].([]any)
		if len(list) == 2 {
			list[0].(map[string]any)["weight"], list[1].(map[string]any)["weight"] = int64(37), int64(63)
		} else {
			_ = unstructured.SetNestedField(list[0].(map[string]any), "v2", "destination", "subset")
		}
	})
}

func (w *world) editForeign() {
	w.store.edit("people", mainKey, func(o map[string]any) {
		_ = unstructured.SetNestedField(o, fmt.Sprint(w.clock.now.Unix()), "metadata", "labels", "touched")
	})
	w.editRoutes(mainKey, func(r map[string]any) {
		if r["name"] == "assets" {
			r["timeout"] = fmt.Sprint(w.rng.IntN(30)+1, "s")
		}
	})
}

func (w *world) removeByHand(key objectKey) {
	if w.store.live(key) != nil {
		w.store.record("people", key, nil)
	}
}

// restoreRoutes puts what people deleted or renamed back from their backup.
func (w *world) restoreRoutes() {
	if backup := w.setting.backup(); backup != "" {
		w.add("people", backup)
	}
	if w.setting.edge && len(w.store.histories[edgeKey]) > 0 {
		w.add("people", w.setting.edgeBackup())
	}
	w.editRoutes(mainKey, func(r map[string]any) {
		if r["name"] == "renamed" {
			r["name"] = "primary"
		}
	})
}

// drawDeed does one thing.
func (w *world) drawDeed() {
	r := w.rollout()
	if r == nil || r.DeletionTimestamp != nil {
		return
	}
	sum := 0
	for _, d := range deeds {
		sum += d.odds
	}
	n := w.rng.IntN(sum)
	for _, d := range deeds {
		if n -= d.odds; n < 0 {
			w.transcript.line("deed", "%s", d.name)
			w.sometimes["deed: "+d.name]++
			d.do(w)
			return
		}
	}
}

// trouble plans deeds and faults up to a time.
func (w *world) trouble(from, until time.Time) {
	w.faults.jitter = true
	pace := []time.Duration{15 * time.Second, 45 * time.Second, 2 * time.Minute}[w.rng.IntN(3)]
	for t := from; t.Before(until); t = t.Add(time.Duration(w.rng.ExpFloat64() * float64(pace)).Truncate(time.Millisecond)) {
		w.at(t, w.drawDeed)
	}
	w.interleaved = w.drawDeed
	for t := from; t.Before(until); t = t.Add(time.Duration(30+w.rng.IntN(120)) * time.Second) {
		w.at(t, w.drawFaults)
	}
	w.at(from.Add(5*time.Second), func() { w.push(versions[1+w.rng.IntN(3)]) })
	if w.rng.IntN(6) == 0 {
		at := from.Add(time.Duration(w.rng.Int64N(int64(until.Sub(from)))).Truncate(time.Millisecond))
		w.at(at, w.deleteRollout)
	}
}

func (w *world) deleteRollout() {
	w.transcript.line("people", "delete the Rollout")
	if w.rng.IntN(2) == 0 {
		w.annotate(v1.DeletionPolicyAnnotation, v1.DeletionPolicyDelete)
	}
	if w.store.live(rolloutKey) != nil {
		_ = w.store.remove("people", rolloutKey, nil)
	}
}

// drawFaults changes what goes wrong with the API.
func (w *world) drawFaults() {
	f := w.faults
	f.calm()
	chance := func(odds int, rate float64) float64 {
		if w.rng.IntN(odds) == 0 {
			return rate
		}
		return 0
	}
	f.unavailable, f.lost, f.crash = chance(4, 0.15), chance(3, 0.15), chance(3, 0.06)
	f.refusal, f.interlude = chance(8, 0.2), chance(3, 0.1)
	kinds := []string{kindRollout, kindVirtualService, kindDestinationRule, kindDeployment}
	if w.rng.IntN(3) == 0 {
		f.lags = map[string]time.Duration{kinds[w.rng.IntN(len(kinds))]: time.Duration(w.rng.IntN(30_000)) * time.Millisecond}
	}
	if w.rng.IntN(10) == 0 {
		f.refusing = map[string]bool{kinds[1+w.rng.IntN(2)]: true}
	}
}
