package simulation

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

const (
	forMesh   = "{http: [{timeout: 3s}]}"
	forEdge   = "{name: edge, gateways: [books], hosts: [shop.example.com], http: [{match: [{uri: {exact: /reviews}}]}]}"
	otherMesh = "{name: edge, http: [{timeout: 3s}]}"
)

// entriesOf parses a list of spec.virtualServices.
func entriesOf(entries ...string) []v1.VirtualService {
	return parseSpec("host: reviews\nvirtualServices: [" + strings.Join(entries, ", ") + "]").VirtualServices
}

// leaving plays a Rollout with entries in spec.virtualServices until a time, and then what a test does with it.
func leaving(t *testing.T, mesh string, until time.Duration, entries []v1.VirtualService, then func(*world)) *world {
	t.Helper()
	w := newWorld(1)
	synctest.Test(t, func(*testing.T) {
		spec := parseSpec(baseSpec)
		spec.VirtualServices = entries
		w.build(setting{mesh: mesh, edge: mesh != "none", foundSubsets: []string{"v1", "v2"}, spec: spec})
		w.at(epoch.Add(minute), func() {
			if until > minute {
				w.push("v3")
			}
		})
		w.run(epoch.Add(until))
		w.transcript.on = true
		then(w)
	})
	if w.violation != nil {
		t.Errorf("%v\n%s", w.violation, w.transcript.text.String())
	}
	return w
}

// lists has the team list other entries.
func (w *world) lists(entries ...string) {
	w.transcript.line("git", "push virtualServices: [%s]", strings.Join(entries, ", "))
	w.editSpec(func(s *v1.RolloutSpec) { s.VirtualServices = entriesOf(entries...) })
}

func checkRoutes(t *testing.T, w *world, key objectKey, want string) {
	t.Helper()
	if got := w.routes(key); !strings.Contains(got, want) {
		t.Errorf("%s is %s, want %s\n%s", key, got, want, w.transcript.text.String())
	}
}

func checkTold(t *testing.T, w *world, times int, words string) {
	t.Helper()
	if n := w.told(words); n != times {
		t.Errorf("%d events told %q, want %d\n%s", n, words, times, w.transcript.text.String())
	}
}

func checkSkips(t *testing.T, w *world, want string) {
	t.Helper()
	if got := strings.Join(w.rollout().Status.SkippedRoutes, "; "); !strings.Contains(got, want) {
		t.Errorf("skippedRoutes %q, want %q", got, want)
	}
}

// What Sluice made goes with its entry, and no earlier than the mesh knows what serves instead: the oracle checks that.
func TestMadeGoesWithItsEntry(t *testing.T) {
	leaving(t, "none", minute, entriesOf(forMesh, forEdge), func(w *world) {
		checkRoutes(t, w, edgeKey, toStable)
		w.lists(forMesh)
		w.pass(10 * time.Second)
		checkRoutes(t, w, edgeKey, "deleted")
		checkRoutes(t, w, mainKey, toStable)
		checkTold(t, w, 1, "VirtualService edge is gone: spec.virtualServices names it no more")
		if s := w.rollout().Status; len(s.VirtualServices) != 1 || s.Phase != v1.PhaseHealthy {
			t.Errorf("%s, drives %+v", s.Phase, s.VirtualServices)
		}
		w.push("v3")
		w.pass(5 * minute)
		checkRoutes(t, w, mainKey, toCanary)
		checkRoutes(t, w, edgeKey, "deleted")
	})
}

// In mid-run the traffic goes back first, and the new run is without it.
func TestMadeGoesInMidRun(t *testing.T) {
	leaving(t, "none", half, entriesOf(forMesh, forEdge), func(w *world) {
		checkRoutes(t, w, edgeKey, toBoth)
		w.lists(forMesh)
		w.pass(10 * time.Second)
		checkRoutes(t, w, edgeKey, "deleted")
		checkTold(t, w, 1, "what spec.virtualServices describes changed; 100% on v1")
		w.pass(5 * minute)
		checkRoutes(t, w, mainKey, toCanary)
		if s := w.rollout().Status; s.Phase != v1.PhaseHealthy || s.Stable != "v3" {
			t.Errorf("%s/%s on %s: %s", s.Phase, s.Reason, s.Stable, s.Message)
		}
	})
}

// An entry under another name: the new object first, then the old one goes.
func TestRenamedEntry(t *testing.T) {
	for name, entries := range map[string][2]string{
		"described": {forMesh, otherMesh}, "named": {"{name: reviews}", "{name: edge}"},
		"described then": {"{name: reviews}", otherMesh}, "named then": {forMesh, "{name: edge}"},
	} {
		t.Run(name, func(t *testing.T) {
			leaving(t, "none", minute, entriesOf(entries[0]), func(w *world) {
				checkRoutes(t, w, mainKey, toStable)
				w.lists(entries[1])
				w.pass(10 * time.Second)
				checkRoutes(t, w, mainKey, "deleted")
				checkRoutes(t, w, edgeKey, toStable)
				w.push("v3")
				w.pass(5 * minute)
				checkRoutes(t, w, edgeKey, toCanary)
			})
		})
	}
}

// Where nothing else serves sidecars, or where people added to it, an object stays, is driven, and is told of.
func TestMadeStaysWhereItIsNeeded(t *testing.T) {
	t.Run("by sidecars", func(t *testing.T) {
		leaving(t, "none", minute, entriesOf(forMesh, forEdge), func(w *world) {
			w.lists(forEdge)
			w.pass(10 * time.Second)
			checkRoutes(t, w, mainKey, toStable)
			checkTold(t, w, 1, "VirtualService reviews: spec.virtualServices names it no more, and it stays, driven: nothing else that is driven routes reviews for sidecars")
			checkSkips(t, w, "reviews: spec.virtualServices names it no more")
			w.push("v3")
			w.pass(5 * minute)
			checkRoutes(t, w, mainKey, toCanary)
			checkRoutes(t, w, edgeKey, toCanary)
			checkTold(t, w, 1, "and it stays, driven")
			w.removeByHand(mainKey)
			w.pass(10 * time.Second)
			checkRoutes(t, w, mainKey, "deleted")
			if s := w.rollout().Status; s.Phase != v1.PhaseHealthy || len(s.VirtualServices) != 1 || len(s.SkippedRoutes) != 0 {
				t.Errorf("%s/%s: %s; drives %v, skips %v", s.Phase, s.Reason, s.Message, s.VirtualServices, s.SkippedRoutes)
			}
		})
	})
	t.Run("by its annotation", func(t *testing.T) {
		leaving(t, "none", minute, entriesOf(forMesh, forEdge), func(w *world) {
			w.annotate(v1.DeletionPolicyAnnotation, v1.DeletionPolicyOrphan)
			w.lists(forMesh)
			w.pass(10 * time.Second)
			checkRoutes(t, w, edgeKey, toStable)
			checkTold(t, w, 1, "annotation sluice.dev/deletion-policy is Orphan")
		})
	})
	t.Run("for a route that people added", func(t *testing.T) {
		leaving(t, "none", minute, entriesOf(forMesh, forEdge), func(w *world) {
			w.store.edit("people", edgeKey, func(o map[string]any) {
				theirs := map[string]any{"name": "theirs", "route": []any{map[string]any{"destination": map[string]any{"host": "assets"}}}}
				_ = unstructured.SetNestedSlice(o, append(routesIn(o, "http"), theirs), "spec", "http")
			})
			w.lists(forMesh)
			w.pass(10 * time.Second)
			checkRoutes(t, w, edgeKey, toStable)
			checkTold(t, w, 1, "its route theirs is not of this Rollout's making")
			w.store.edit("people", edgeKey, func(o map[string]any) {
				_ = unstructured.SetNestedSlice(o, routesIn(o, "http")[:1], "spec", "http")
			})
			w.pass(10 * time.Second)
			checkRoutes(t, w, edgeKey, "deleted")
		})
	})
}

// A deletion that is refused is told, and tried again; a crash loses nothing.
func TestDeletionOfWhatLeavesIsRefused(t *testing.T) {
	leaving(t, "none", minute, entriesOf(forMesh, forEdge), func(w *world) {
		w.faults.refusingObjects = map[objectKey]bool{edgeKey: true}
		w.lists(forMesh)
		w.pass(10 * time.Second)
		if s := w.rollout().Status; s.Phase != v1.PhaseStalled || !strings.Contains(s.Message, `virtualservices "edge" is forbidden`) {
			t.Errorf("%s/%s: %s", s.Phase, s.Reason, s.Message)
		}
		w.faults.refusingObjects = nil
		w.faults.forced[kindVirtualService] = crashAfter
		w.pass(minute)
		checkRoutes(t, w, edgeKey, "deleted")
		if s := w.rollout().Status; s.Phase != v1.PhaseHealthy || len(s.VirtualServices) != 1 {
			t.Errorf("%s/%s: %s; drives %v", s.Phase, s.Reason, s.Message, s.VirtualServices)
		}
	})
}

// Adopted routes that the spec names no more get the form back in which they were found, where that leads to stable alone. Else
// they go on leading there, as after a deletion, and that is told.
func TestAdoptedRoutesAreLetGo(t *testing.T) {
	const unpinned, pinned = "it leads to all of reviews again, as it was found", "goes on leading to v1 alone"
	for name, tc := range map[string]struct {
		others    bool
		from, to  string
		key       objectKey
		want      string
		told      string
		skips     string
		remaining int
	}{
		"alone":          {false, "{name: edge}, {name: reviews}", "{name: reviews}", edgeKey, "api.reviews → 100", unpinned, "", 1},
		"beside others":  {true, "{name: edge}, {name: reviews}", "{name: reviews}", edgeKey, "api.reviews → v1 100", pinned, "edge/api.reviews: pins subset v1", 1},
		"narrowed":       {false, "{name: edge}, {name: reviews}", "{name: reviews}, {name: edge, routes: [{name: pinned-old}]}", edgeKey, "api.reviews → 100", unpinned, "edge/api.reviews: spec.virtualServices does not name it", 1},
		"found with one": {false, "{name: edge}, {name: reviews}", "{name: edge}", mainKey, "v1 100", pinned, "reviews/", 1},
	} {
		t.Run(name, func(t *testing.T) {
			leaving(t, "simple", minute, entriesOf(tc.from), func(w *world) {
				for _, v := range versions[1:] {
					w.setReady(v, tc.others)
				}
				checkRoutes(t, w, edgeKey, "api.reviews → v1 100")
				w.lists(tc.to)
				w.pass(10 * time.Second)
				checkRoutes(t, w, tc.key, tc.want)
				checkTold(t, w, 1, tc.told)
				checkSkips(t, w, tc.skips)
				if s := w.rollout().Status; s.Phase != v1.PhaseHealthy || len(s.VirtualServices) != tc.remaining {
					t.Errorf("%s/%s: %s; drives %+v", s.Phase, s.Reason, s.Message, s.VirtualServices)
				}
			})
		})
	}
}

// leaves: what Sluice made and no entry names goes at rest, once what serves in its place has been known for the propagation delay.
func (o *oracle) leaves(c change) bool {
	w, r := o.world, o.world.rollout()
	if r == nil || c.before.GetLabels()["app.kubernetes.io/managed-by"] != "sluice" {
		return false
	}
	if s := &r.Status; s.Run != nil || s.Traffic == nil || s.Traffic.Canary != nil || len(r.Spec.VirtualServices) == 0 {
		return false
	}
	if slices.ContainsFunc(r.Spec.VirtualServices, func(entry v1.VirtualService) bool {
		return entry.Name == c.key.name || (entry.Name == "" && (!entry.Describes() || c.key == mainKey))
	}) {
		return false
	}
	for _, v := range viewOf(c.before) {
		if !v.managed() {
			return false
		}
	}
	w.sometimes["a VirtualService left"]++
	if !bindsMesh(c.before) {
		return true
	}
	return slices.ContainsFunc(routeKeys, func(key objectKey) bool {
		other := w.store.live(key)
		if key == c.key || other == nil || !bindsMesh(other) || !carries(other, r.Status.Traffic) {
			return false
		}
		history := w.store.histories[key]
		return w.clock.now.Sub(history[len(history)-1].at) >= config.PropagationDelay
	})
}

func bindsMesh(vs *unstructured.Unstructured) bool {
	gateways, _, _ := unstructured.NestedStringSlice(vs.Object, "spec", "gateways")
	hosts, _, _ := unstructured.NestedStringSlice(vs.Object, "spec", "hosts")
	return (len(gateways) == 0 || slices.Contains(gateways, "mesh")) && slices.Contains(hosts, "reviews")
}

// letsGo tells whether a route of the VirtualService is being put back to the form in which it was found.
func (o *oracle) letsGo(key objectKey) bool {
	return slices.ContainsFunc(o.world.rollout().Status.VirtualServices, func(vs v1.ManagedVirtualService) bool {
		return vs.Name == key.name && slices.ContainsFunc(vs.Routes, func(route v1.ManagedRoute) bool { return route.Leaving })
	})
}
