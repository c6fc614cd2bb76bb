package simulation

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

func managedRoutes(vs *unstructured.Unstructured) int {
	n := 0
	for _, r := range viewOf(vs) {
		if r.managed() {
			n++
		}
	}
	return n
}

// onRoutes asserts what a write of one of the host's VirtualServices must obey.
func (o *oracle) onRoutes(c change) {
	w, r := o.world, o.world.rollout()
	if c.after == nil {
		if (r == nil || r.DeletionTimestamp == nil) && !o.leaves(c) {
			w.violated(12, "%s was deleted without the Rollout being deleted", c.key)
		}
		return
	}
	if r == nil {
		o.afterTheRollout(c.key)
		return
	}
	w.sometimes["route written"]++
	o.countWrite(c.key, r.Status.Traffic)
	if !slices.Contains(drivenKeys(&r.Status), c.key) {
		w.violated(14, "the operator wrote %s, which status does not name", c.key)
		return
	}
	for _, view := range viewOf(c.after) {
		o.countCopy(view)
		if view.host == "reviews" && (!view.whole || view.sum != 100) {
			w.violated(1, "route %s has weights %v", view.name, view.weights)
		}
	}
	t := r.Status.Traffic
	if !carries(c.after, t) && !o.letsGo(c.key) && !o.leavesForRelabel(c, t) && !o.onlyEndsFault(c, t) && (c.before == nil || managedRoutes(c.before) > 0) {
		w.violated(12, "written %s, status says %s", describeVirtualService(c.after), describeTraffic(t))
	}
	if seen := w.rolloutAt(rolloutKey, o.visibleOf(rolloutKey)); seen != nil && detached(seen) && r.DeletionTimestamp == nil {
		w.violated(12, "a detached Rollout's mesh was written")
	}
	o.checkReferences(c)
	if c.before != nil {
		o.checkForeign(c)
		o.checkRise(c, t)
	}
}

// countCopy notes the rarer forms of what is inserted.
func (o *oracle) countCopy(view routeView) {
	fault := o.world.rollout().Status.Traffic.Fault
	switch {
	case view.ours && view.kind() == "mirror":
		o.world.sometimes["mirror copy written"]++
	case view.ours && view.fault && fault != nil && fault.Scope == v1.FaultScopeEveryone:
		o.world.sometimes["fault for everyone written"]++
	}
}

// leavesForRelabel: somebody sent traffic by hand to the canary's subset before its labels were right; the routes leave it
// until they are.
func (o *oracle) leavesForRelabel(c change, t *v1.Traffic) bool {
	rule := o.world.store.at(ruleKey, o.visibleOf(ruleKey))
	if t == nil || t.Canary == nil || c.before == nil || rule == nil || rule.object == nil {
		return false
	}
	labels, held := subsetsOf(rule.object)[place(*t.Canary)]
	_, named := references(c.before)[place(*t.Canary)]
	back := t.AllStable()
	if !held || !named || maps.Equal(labels, t.Canary.Labels) || !carries(c.after, &back) {
		return false
	}
	o.world.sometimes["routes leave a subset that is to be relabelled"]++
	return true
}

// onlyEndsFault: what status says can not be written, say for a route that is gone, and the fault of the step before goes all the same.
func (o *oracle) onlyEndsFault(c change, t *v1.Traffic) bool {
	if c.before == nil || t == nil || (t.Fault != nil && t.Fault.Host == "") {
		return false
	}
	kept := slices.DeleteFunc(viewOf(c.before), func(v routeView) bool { return strings.HasPrefix(v.name, "sluice-fault-") })
	after := viewOf(c.after)
	if len(kept) == len(viewOf(c.before)) || len(kept) != len(after) {
		return false
	}
	for i := range kept {
		if !reflect.DeepEqual(kept[i].raw, after[i].raw) {
			return false
		}
	}
	o.world.sometimes["a fault ended beside a problem"]++
	return true
}

// afterTheRollout: nothing is written any more, unless another Rollout took over the host.
func (o *oracle) afterTheRollout(key objectKey) {
	if len(o.world.store.list(kindRollout, namespace, o.world.store.rv)) == 0 && o.world.store.histories[otherKey] == nil {
		o.world.violated(12, "%s was written and the Rollout is gone", key)
	}
}

// checkRise: a write that gives users more of the canary than they have needs a canary that is ready.
func (o *oracle) checkRise(c change, t *v1.Traffic) {
	if !t.ExposedToUsers() {
		return
	}
	_, ready, _ := o.seen(t.Canary.Version)
	_, stable, _ := o.seen(t.Stable.Version)
	subset := place(*t.Canary)
	if !ready && stable && references(c.after)[subset] > references(c.before)[subset] {
		o.world.violated(5, "the write gives %s more and it has nothing ready: %s", t.Canary.Version, describeVirtualService(c.after))
	}
}

// checkReferences: the mesh has known each newly named subset for the propagation delay.
func (o *oracle) checkReferences(c change) {
	before := references(c.before)
	for _, subset := range slices.Sorted(maps.Keys(references(c.after))) {
		since, held, touched := o.heldSince(subset)
		if _, named := before[subset]; named || touched || isElsewhere(subset) {
			continue
		}
		if !held {
			o.world.violated(2, "subset %s is named and the rule does not hold it", subset)
		} else if o.world.clock.now.Sub(since) < config.PropagationDelay {
			o.world.violated(2, "subset %s is named %s after it came into the rule", subset, o.world.clock.now.Sub(since))
		}
	}
}

// heldSince tells since when the live rule holds a subset. touched: people changed the rule a moment ago, or it lags.
func (o *oracle) heldSince(subset string) (since time.Time, held, touched bool) {
	history := o.world.store.histories[ruleKey]
	var labels map[string]string
	for i := len(history) - 1; i >= 0; i-- {
		v := history[i]
		if v.actor == "people" && (v.rv > o.visibleOf(ruleKey) || o.world.clock.now.Sub(v.at) < 15*time.Second) {
			touched = true
		}
		found, ok := subsetsOf(v.object)[subset]
		if !ok || (held && !maps.Equal(found, labels)) {
			break
		}
		since, held, labels = v.at, true, found
	}
	return since, held, touched
}

// checkForeign: what is not ours is as it was.
func (o *oracle) checkForeign(c change) {
	before, after := strip(c.before), strip(c.after)
	if o.describes(c.key) {
		stripDescribed(before)
		stripDescribed(after)
	}
	if o.world.setting.elsewhere {
		withoutEnds(before)
		withoutEnds(after)
	}
	if !reflect.DeepEqual(before, after) {
		was, _ := json.Marshal(before)
		is, _ := json.Marshal(after)
		o.world.violated(14, "%s: foreign fields changed:\n was %s\n  is %s", c.key, was, is)
	}
}

// strip leaves what Sluice must not touch of a VirtualService.
func strip(vs *unstructured.Unstructured) map[string]any {
	out := vs.DeepCopy()
	for _, field := range []string{"resourceVersion", "generation", "managedFields"} {
		unstructured.RemoveNestedField(out.Object, "metadata", field)
	}
	for _, list := range routeLists {
		var kept []any
		for _, r := range routesIn(out.Object, list) {
			view := viewRoute(r.(map[string]any))
			if view.ours {
				continue
			}
			if view.managed() {
				stripManaged(view.raw)
			}
			kept = append(kept, view.raw)
		}
		if list == "http" || len(kept) > 0 {
			_ = unstructured.SetNestedSlice(out.Object, kept, "spec", list)
		}
	}
	return out.Object
}

// stripManaged leaves of a driven route its first destination without subset and weight, and all mirrors but ours in one form.
func stripManaged(route map[string]any) {
	if list, _ := route["route"].([]any); len(list) > 0 {
		first := list[0].(map[string]any)
		delete(first, "weight")
		unstructured.RemoveNestedField(first, "destination", "subset")
		route["route"] = []any{first}
	}
	var foreign []any
	mirrors, _ := route["mirrors"].([]any)
	for _, m := range mirrors {
		if host, _ := destination(m.(map[string]any)); host != "reviews" {
			foreign = append(foreign, m)
		}
	}
	if own, ok := route["mirror"]; ok {
		entry := map[string]any{"destination": own}
		if percentage, ok := route["mirrorPercentage"]; ok {
			entry["percentage"] = percentage
		}
		foreign = append(foreign, entry)
	}
	delete(route, "mirror")
	delete(route, "mirrorPercentage")
	delete(route, "mirrors")
	if len(foreign) > 0 {
		route["mirrors"] = foreign
	}
}

// onCarrier asserts what a write of another host's VirtualService must obey: it carries our fault, or no longer.
func (o *oracle) onCarrier(c change) {
	w, r := o.world, o.world.rollout()
	if r == nil {
		o.afterTheRollout(c.key)
		return
	}
	t := r.Status.Traffic
	wanted := t != nil && t.Fault != nil && t.Fault.Host != ""
	if faultStands(c.after) && !wanted {
		w.violated(16, "a fault was written to %s that status does not have", c.key)
	}
	if faultStands(c.after) {
		w.sometimes["fault written"]++
	}
	if c.before != nil && c.after != nil {
		o.checkForeign(c)
	}
	if c.before == nil && !wanted {
		w.violated(12, "%s was made for no fault", c.key)
	}
	if c.after == nil && c.key == ratingsKey && w.setting.ratings {
		w.violated(14, "the found %s was deleted", c.key)
	}
}

// onRule asserts what a write of the DestinationRule must obey.
func (o *oracle) onRule(c change) {
	w := o.world
	if c.after == nil {
		if r := w.rollout(); r == nil || r.DeletionTimestamp == nil {
			w.violated(12, "%s was deleted without the Rollout being deleted", c.key)
		}
		return
	}
	before, after := subsetsOf(c.before), subsetsOf(c.after)
	for _, subset := range slices.Sorted(maps.Keys(before)) {
		labels, stays := after[subset]
		switch {
		case !stays:
			o.checkRemoval(subset)
		case !maps.Equal(labels, before[subset]):
			for _, key := range routeKeys {
				if references(w.store.live(key))[subset] > 0 && (key == mainKey || o.visibleOf(key) >= w.store.rv) {
					w.violated(4, "labels of subset %s, which %s sends to, change from %v to %v", subset, key, before[subset], labels)
				}
			}
		}
	}
	if c.before != nil && !reflect.DeepEqual(w.stripRule(c.before, before), w.stripRule(c.after, before)) {
		w.violated(14, "%s: foreign fields changed", c.key)
	}
}

// checkRemoval: a subset leaves the rule only when no route has named it for the propagation delay, and never when it was found.
func (o *oracle) checkRemoval(subset string) {
	w := o.world
	w.sometimes["subset removed"]++
	if slices.Contains(w.setting.foundSubsets, subset) && !w.ruleDeleted() {
		w.violated(3, "subset %s was found in the rule and is removed", subset)
	}
	for _, key := range w.store.names[kindVirtualService] {
		history := w.store.histories[key]
		for i, v := range history {
			if _, named := references(v.object)[subset]; !named || v.rv > o.visibleOf(key) {
				continue
			}
			if i+1 == len(history) || history[i+1].rv > w.store.rv {
				w.violated(3, "subset %s leaves the rule while %s names it", subset, key)
			} else if gone := w.clock.now.Sub(history[i+1].at); gone < config.PropagationDelay {
				w.violated(3, "subset %s leaves the rule %s after %s named it", subset, gone, key)
			}
		}
	}
}

// ruleDeleted tells whether people deleted the rule: then what is in it now was not found there.
func (w *world) ruleDeleted() bool {
	return slices.ContainsFunc(w.store.histories[ruleKey], func(v version) bool { return v.object == nil })
}

// stripRule leaves what Sluice must not touch of a DestinationRule: all but the labels of subsets, the subsets it added, and policies.
func (w *world) stripRule(rule *unstructured.Unstructured, before map[string]map[string]string) map[string]any {
	out := rule.DeepCopy()
	withoutPolicies(out)
	for _, field := range []string{"resourceVersion", "generation", "managedFields"} {
		unstructured.RemoveNestedField(out.Object, "metadata", field)
	}
	subsets, _, _ := unstructured.NestedSlice(out.Object, "spec", "subsets")
	var foreign []any
	for _, s := range subsets {
		entry := s.(map[string]any)
		name := fmt.Sprint(entry["name"])
		if _, known := before[name]; known && slices.Contains(w.setting.foundSubsets, name) && !w.ruleDeleted() {
			delete(entry, "labels")
			foreign = append(foreign, entry)
		}
	}
	_ = unstructured.SetNestedSlice(out.Object, foreign, "spec", "subsets")
	return out.Object
}
