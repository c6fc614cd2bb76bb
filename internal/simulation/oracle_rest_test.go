package simulation

import (
	"maps"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// atRest asserts what must be so when nothing is wrong any more and nothing is due.
func (o *oracle) atRest() {
	w := o.world
	if w.violation != nil {
		return
	}
	r := w.rollout()
	if r == nil {
		return // what it left was judged when it went
	}
	s := &r.Status
	w.sometimes["ended "+string(s.Phase)]++
	failed := func(format string, args ...any) {
		w.violated(15, "at rest %s/%s (%s), stable %s, asked for %s: "+format,
			append([]any{s.Phase, s.Reason, s.Message, s.Stable, r.Spec.Version}, args...)...)
	}
	if why := o.unjustified(r); why != "" {
		failed("%s", why)
	}
	if s.ObservedGeneration != r.Generation {
		failed("generation %d was not observed", r.Generation)
	}
	if s.Run == nil && s.Reason != v1.ReasonSubsetInUse {
		o.clean(r)
		o.checkPolicies(r)
	}
}

// unjustified says what is wrong with the phase in which the Rollout rests; empty: nothing.
func (o *oracle) unjustified(r *v1.Rollout) string {
	s := &r.Status
	if r.DeletionTimestamp != nil {
		return "it is still being deleted"
	}
	switch s.Phase {
	case v1.PhaseHealthy:
		if s.Stable != r.Spec.Version || s.Run != nil {
			return "healthy on the wrong version"
		}
		return ""
	case v1.PhaseRolledBack:
		_, _, image := o.seen(r.Spec.Version)
		if s.Rejected == nil || s.Rejected.Version != r.Spec.Version || s.Run != nil || !o.rejectedAs(r.Spec.Version, image) {
			return image + " is not what was rejected"
		}
		return ""
	}
	suspended := s.Phase == v1.PhaseWaiting && s.Reason == v1.ReasonSuspended && r.Spec.Suspend
	// People relabelled a version while it served, and took the edit back after it had been promoted with it.
	relabelled := s.Phase == v1.PhaseStalled && s.Reason == v1.ReasonSubsetInUse && len(s.Traffic.Stable.Labels) > 1
	// Or while routes that are not managed sent to it: these keep the labels that they have.
	pinned := s.Phase == v1.PhaseStalled && s.Reason == v1.ReasonSubsetInUse && strings.Contains(s.Message, "routes that are not managed")
	if !suspended && !relabelled && !pinned {
		return "nothing justifies that"
	}
	return ""
}

func (o *oracle) rejectedAs(version, image string) bool {
	for _, r := range o.rejections {
		if r.version == version && r.image == image {
			return true
		}
	}
	return false
}

// clean: what is left is all traffic on stable, in the routes' original form.
func (o *oracle) clean(r *v1.Rollout) {
	w := o.world
	for _, key := range drivenKeys(&r.Status) {
		o.cleanRoutes(w.store.live(key), r.Status.Traffic)
	}
	if len(drivenKeys(&r.Status)) > 1 {
		w.sometimes["ended with two VirtualServices"]++
	}
	if left := w.faultCarriers(w.now); len(left) > 0 {
		w.violated(16, "at rest a fault is left on %s", left[0].GetName())
	}
	rule := w.ruleSubsets()
	if stable := r.Status.Traffic.Stable; stable.Host != "" {
		w.sometimes["ended elsewhere"]++
	} else if labels, ok := rule[stable.Subset]; !ok || !maps.Equal(labels, r.Status.Traffic.Stable.Labels) {
		w.violated(16, "at rest the rule holds %v for stable", rule)
	}
}

// cleanRoutes: they lead to stable alone, in their original form, and what was left alone pins what it did.
func (o *oracle) cleanRoutes(vs *unstructured.Unstructured, t *v1.Traffic) {
	w := o.world
	if vs == nil || !carries(vs, t) {
		w.violated(16, "at rest the routes are %s, status says %s", describeVirtualService(vs), describeTraffic(t))
		return
	}
	for _, view := range viewOf(vs) {
		if view.ours || (view.managed() && (len(view.mirrors) > 0 || len(view.weights) != 1)) {
			w.violated(16, "at rest route %s is left", view.name)
		}
		if view.name == "primary" && w.setting.mesh == "rich" && view.raw["mirror"] == nil {
			w.violated(16, "at rest the route's own mirror is not restored: %v", view.raw["mirrors"])
		}
		o.checkForm(view, t)
		if view.name == "pinned-old" && t.Stable.Subset == "v2" {
			w.sometimes["a skipped route pins what became stable"]++
		}
	}
}

// fixpoint asserts that reconciles at rest write nothing.
func (o *oracle) fixpoint() {
	w := o.world
	if w.violation != nil || w.process == nil || w.process.dead || w.rollout() == nil {
		return
	}
	if s := w.rollout().Status; s.Phase == v1.PhaseWaiting {
		return
	}
	position := w.store.rv
	for range 3 {
		w.process.enqueue(rolloutRef, 0)
		w.run(w.clock.now.Add(10 * time.Second))
	}
	if w.store.rv != position {
		w.violated(12, "reconciles at rest made %d writes", w.store.rv-position)
	}
}
