package mesh

import (
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// failer is a *testing.T or a *rapid.T.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// walk takes a VirtualService through steps, and checks at each of them what a run must never do to it.
type walk struct {
	t          failer
	rollout    *v1.Rollout
	managed    v1.ManagedVirtualService
	found, now *unstructured.Unstructured
	// note is told of everything that was rendered; nil: nobody is.
	note func(step string, rendered *unstructured.Unstructured)
}

func newWalk(t failer, r *v1.Rollout, managed v1.ManagedVirtualService, found *unstructured.Unstructured) *walk {
	return &walk{t: t, rollout: r, managed: managed, found: found, now: found.DeepCopy()}
}

// save notes the mirrors that the routes have of their own, as it is committed with a step that mirrors.
func (w *walk) save(traffic *v1.Traffic) {
	if traffic.Mirror != nil && !traffic.MirrorsApart() {
		w.managed = SaveMirrors(w.managed, w.now)
	}
}

// step renders and checks a traffic; false: its match and that of the routes can not be joined, and nothing is written.
func (w *walk) step(name string, traffic *v1.Traffic) bool {
	w.t.Helper()
	r := w.with(traffic)
	next, problem := VirtualService(r, w.managed, w.now)
	if problem != nil {
		if problem.Reason != v1.ReasonMatchConflict {
			w.t.Fatalf("%s: %+v", name, problem)
		}
		return false
	}
	checkStep(w.t, r, w.managed, w.found, next)
	w.wrote(name, next)
	return true
}

func (w *walk) with(traffic *v1.Traffic) *v1.Rollout {
	r := w.rollout.DeepCopy()
	r.Status.Traffic = traffic
	return r
}

func (w *walk) wrote(step string, next *unstructured.Unstructured) {
	w.now = next
	if w.note != nil {
		w.note(step, next)
	}
}

// end gives all traffic to a subset: everything is as it was found but that.
func (w *walk) end(subset string) {
	w.t.Helper()
	r := w.with(&v1.Traffic{Stable: v1.Target{Version: subset, Subset: subset}})
	got, problem := VirtualService(r, w.managed, w.now)
	if problem != nil {
		w.t.Fatalf("%+v", problem)
	}
	if diff := cmp.Diff(withSubset(drivenList(r), w.found, w.managed, subset).Object, got.Object); diff != "" {
		w.t.Fatalf("after the run (-want +got):\n%s", diff)
	}
	if again, problem := VirtualService(r, w.managed, got); problem != nil || !cmp.Equal(again, got) {
		w.t.Fatalf("rendering twice changes something: %+v\n%s", problem, cmp.Diff(got, again))
	}
	w.wrote("end on "+subset, got)
}

// withSubset is what was found, with the driven routes at a subset, each with the one destination that it has at rest.
func withSubset(list routeList, found *unstructured.Unstructured, managed v1.ManagedVirtualService, subset string) *unstructured.Unstructured {
	want := found.DeepCopy()
	for _, m := range managed.Routes {
		route := asObject(list.of(want)[indexOfRoute(list.of(want), m.Key)])
		first := objects(route["route"])[0]
		if m.Weighted {
			first["weight"] = int64(100)
		}
		child(first, "destination")["subset"] = subset
		route["route"] = []any{first}
	}
	return want
}

// checkStep: a rendering in mid-run is stable, splits by whole percents, and keeps what is not driven.
func checkStep(t failer, r *v1.Rollout, managed v1.ManagedVirtualService, found, got *unstructured.Unstructured) {
	t.Helper()
	if again, problem := VirtualService(r, managed, got); problem != nil || !cmp.Equal(again, got) {
		t.Fatalf("rendering twice changes something: %+v\n%s", problem, cmp.Diff(got, again))
	}
	kept, list := got.DeepCopy(), drivenList(r)
	rest := withoutInserted(list.of(kept))
	want := found.DeepCopy()
	for _, m := range managed.Routes {
		at := indexOfRoute(rest, m.Key)
		if at != indexOfRoute(list.of(found), m.Key) {
			t.Fatalf("route %s moved to %d", m.Key, at)
		}
		checkSplit(t, r, asObject(rest[at]))
		checkCopies(t, r, list.of(got), m.Key)
		for _, field := range append([]string{"route", "mirrors"}, mirrorFields...) {
			delete(asObject(rest[at]), field)
			delete(asObject(list.of(want)[at]), field)
		}
	}
	specOf(kept)[string(list)] = rest
	if diff := cmp.Diff(want.Object, kept.Object); diff != "" {
		t.Fatalf("what is not ours changed (-found +rendered):\n%s", diff)
	}
}

func withoutInserted(entries []any) []any {
	var rest []any
	for _, entry := range entries {
		if kind, _ := inserted(asObject(entry)); kind == "" {
			rest = append(rest, entry)
		}
	}
	return rest
}

// checkCopies: what was inserted for a route stands right before it, a fault's before a match's before a mirror's, and is the route
// but for its name, match, fault, mirrors and destination.
func checkCopies(t failer, r *v1.Rollout, list []any, key string) {
	t.Helper()
	at := indexOfRoute(list, key)
	route, last := asObject(list[at]), kindMirror
	for i := at - 1; i >= 0; i-- {
		c := asObject(list[i])
		kind, owner := inserted(c)
		if kind == "" {
			return
		}
		if owner != r.Name || kind > last { // they are in the order of the alphabet
			t.Fatalf("%s of %s stands before route %s, after a %s", kind, owner, key, last)
		}
		last = kind
		checkEnds(t, r, c, route)
		for field, value := range route {
			switch field {
			case "name", "match", "route", "mirror", "mirrors", "mirrorPercentage", "mirrorPercent", "mirror_percent":
				continue
			case "fault":
				if kind == kindFault {
					continue
				}
			}
			if !sameJSON(c[field], value) {
				t.Fatalf("copy %s has %s %v, its route %v", text(c, "name"), field, c[field], value)
			}
		}
	}
}

// checkEnds: a match's copy leads to the canary alone, a mirror's where its route leads, with one mirror more; a fault's either way.
func checkEnds(t failer, r *v1.Rollout, c, route object) {
	t.Helper()
	traffic, ends := r.Status.Traffic, objects(c["route"])
	kind, _ := inserted(c)
	canary := len(ends) == 1 && text(child(ends[0], "destination"), "subset") == traffic.Canary.Subset
	same := sameJSON(c["route"], route["route"])
	unchanged := traffic.Fault != nil && traffic.Fault.Traffic == v1.FaultTrafficUnchanged
	if ok := (kind == kindMatch && canary) || (kind == kindMirror && same) || (kind == kindFault && (canary || unchanged && same)); !ok {
		t.Fatalf("copy %s leads to %v, its route to %v", text(c, "name"), ends, route["route"])
	}
	if kind != kindMirror {
		return
	}
	mirrors := objects(c["mirrors"])
	ours := mirrors[len(mirrors)-1]
	host, percentage := text(child(ours, "destination"), "host"), child(ours, "percentage")["value"]
	own := HostKey(host, r.Namespace) == HostKey(r.Spec.Host, r.Namespace)
	if own != (traffic.Mirror.Host == "") || (!own && host != traffic.Mirror.Host) || percentage != int64(traffic.Mirror.Percentage) {
		t.Fatalf("copy %s mirrors %v, want %+v", text(c, "name"), ours, traffic.Mirror)
	}
	before := len(objects(route["mirrors"]))
	if route["mirror"] != nil {
		before++
	}
	if len(mirrors) != before+1 || c["mirror"] != nil {
		t.Fatalf("copy %s has %d mirrors, its route %d", text(c, "name"), len(mirrors), before)
	}
}

func checkSplit(t failer, r *v1.Rollout, route object) {
	t.Helper()
	ends := objects(route["route"])
	if len(ends) != 2 {
		t.Fatalf("%d destinations of %v", len(ends), route)
	}
	stable, ok := ends[0]["weight"].(int64)
	canary, too := ends[1]["weight"].(int64)
	if !ok || !too || stable+canary != 100 || canary != int64(r.Status.Traffic.Weight) {
		t.Fatalf("weights %v and %v, want whole ones that add up to 100 with %d for the canary", ends[0]["weight"], ends[1]["weight"], r.Status.Traffic.Weight)
	}
	if _, single := route["mirror"]; single && route["mirrors"] != nil {
		t.Fatalf("mirror beside mirrors, which Istio refuses: %v", route)
	}
}
