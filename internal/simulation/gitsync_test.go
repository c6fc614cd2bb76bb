package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/gitsync"
)

func init() {
	deeds = append(deeds, deed{"git applies", 6, (*world).gitApplies})
}

// TestPushesMoveNothing: GitSync applies again and again, in the midst of whatever else goes wrong.
func TestPushesMoveNothing(t *testing.T) {
	t.Parallel()
	seeds := 60
	if raceDetector {
		seeds = 8
	}
	sometimes := map[string]int{}
	for seed := range uint64(seeds) {
		w := newWorld(seed)
		synctest.Test(t, func(*testing.T) {
			w.build(w.drawSetting())
			from, until := epoch.Add(time.Minute), epoch.Add(time.Minute+troubled)
			for at := from; at.Before(until); at = at.Add(time.Duration(w.rng.ExpFloat64() * float64(5*time.Second)).Truncate(time.Millisecond)) {
				w.at(at, func() { w.ifAlive(w.gitApplies) })
			}
			w.trouble(from, until)
			w.interleaved = func() {
				if w.rng.IntN(3) > 0 {
					w.ifAlive(w.gitApplies)
				} else {
					w.drawDeed()
				}
			}
			w.run(until)
			w.settle()
		})
		if w.violation != nil {
			t.Fatalf("seed %d: %v", seed, w.violation)
		}
		for what, n := range w.sometimes {
			sometimes[what] += n
		}
	}
	for _, what := range []string{
		"pushed in mid-run", "pushed while a write was due", "pushed on stable after a run", "pushed between decision and write", "push started again",
		"push: answer lost", "push wrote nothing", "push wrote", "push brought an object back", "push was held back", "promotion", "return: GateFailed",
	} {
		if sometimes[what] == 0 && !raceDetector {
			t.Errorf("in %d seeds it never happened: %s", seeds, what)
		}
		if testing.Verbose() {
			t.Logf("%8d  %s", sometimes[what], what)
		}
	}
}

// gitApplies applies one of the repository's manifests, which send everything to v1 for ever, through GitSync's own code: as it
// is, or as somebody pushed it a moment ago. It does so at any moment, and others act between its reads and its writes.
func (w *world) gitApplies() {
	manifest := w.manifest()
	if manifest == nil || w.pushing {
		return
	}
	w.pushing = true
	defer func() { w.pushing = false }()
	git := &gitClient{world: w}
	routing := gitsync.Routing{Client: git, Operator: git}
	wrote, err := routing.Apply(context.Background(), manifest)
	held := new(gitsync.HeldError)
	switch {
	case errors.As(err, &held):
		w.sometimes["push was held back"]++
		w.transcript.line("git", "holds %s back: %v", manifest.GetName(), err)
	case err != nil:
		w.transcript.line("git", "applying %s: %v", manifest.GetName(), err)
	case wrote:
		w.sometimes["push wrote"]++
	default:
		w.sometimes["push wrote nothing"]++
	}
}

// manifest is what the repository has of an object, nil when it has none.
func (w *world) manifest() *unstructured.Unstructured {
	s := &w.setting
	var texts []string
	if backup := s.backup(); backup != "" {
		texts = append(texts, backup)
	}
	if r := w.rollout(); s.mesh == "none" && slices.ContainsFunc(r.Status.VirtualServices, func(vs v1.ManagedVirtualService) bool { return vs.Created }) {
		texts = append(texts, simpleRoutes, strings.Replace(simpleRoutes, "- route:", "- name: primary\n    route:", 1))
		if s.connections() {
			texts = s.made()
		}
	}
	if s.edge && !s.late {
		texts = append(texts, s.edgeBackup())
	}
	if s.ratings {
		texts = append(texts, ratingsRoutes)
	}
	if len(s.foundSubsets) > 0 {
		texts = append(texts, "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: reviews}, spec: {host: reviews, subsets: []}}")
	}
	if len(texts) == 0 {
		return nil
	}
	object := load(texts[w.rng.IntN(len(texts))])
	if object.GetKind() == kindDestinationRule {
		var subsets []any
		for _, name := range s.foundSubsets {
			subsets = append(subsets, map[string]any{"name": name, "labels": map[string]any{"version": name}})
		}
		_ = unstructured.SetNestedSlice(object.Object, subsets, "spec", "subsets")
		return object
	}
	if w.rng.IntN(3) > 0 { // else it is drift correction
		w.pushes++
	}
	for _, list := range routeLists {
		for _, route := range routesIn(object.Object, list) {
			route.(map[string]any)["timeout"] = fmt.Sprint(w.pushes, "s")
		}
	}
	return object
}

// gitClient is what GitSync's code reads and writes with.
type gitClient struct {
	client.Client // nil: what is not simulated panics
	world         *world
	rollout       *v1.Rollout // as it was read last
	tries         int
}

func (g *gitClient) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	raw := obj.(*unstructured.Unstructured)
	found := g.world.store.live(objectKey{raw.GetKind(), key.Namespace, key.Name})
	if found == nil {
		return apierrors.NewNotFound(resourceOf(objectKey{kind: raw.GetKind()}), key.Name)
	}
	found.DeepCopyInto(raw)
	g.othersAct()
	return nil
}

func (g *gitClient) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	w := g.world
	switch list := list.(type) {
	case *v1.RolloutList:
		g.rollout = w.rollout()
		for _, v := range w.store.list(kindRollout, namespace, w.store.rv) {
			list.Items = append(list.Items, *w.rolloutAt(keyOf(v.object), w.store.rv).DeepCopy())
		}
	case *unstructured.UnstructuredList:
		for _, v := range w.store.list(kindVirtualService, namespace, w.store.rv) {
			list.Items = append(list.Items, *v.object.DeepCopy())
		}
	}
	g.othersAct()
	return nil
}

// othersAct lets the operator and everybody else go on for a while, unless they wait for this.
func (g *gitClient) othersAct() {
	w := g.world
	if !w.inInterlude && w.rng.IntN(3) == 0 {
		w.run(w.clock.now.Add(w.faults.between(time.Millisecond, 4*time.Second)))
	}
}

// Apply merges as the API server does: lists of Istio's kinds are replaced as wholes.
func (g *gitClient) Apply(_ context.Context, config runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
	options := (&client.ApplyOptions{}).ApplyOptions(opts)
	body := config.(runtime.Unstructured)
	applied := &unstructured.Unstructured{Object: body.UnstructuredContent()}
	key, w := keyOf(applied), g.world
	found := w.store.live(key)
	if rv := applied.GetResourceVersion(); rv != "" && (found == nil || found.GetResourceVersion() != rv) {
		if g.tries++; len(options.DryRun) == 0 {
			w.sometimes["push started again"]++
		}
		return apierrors.NewConflict(resourceOf(key), key.name, errors.New("the object has been modified"))
	}
	base := map[string]any{}
	if found != nil {
		base = found.DeepCopy().Object
	}
	merged := &unstructured.Unstructured{Object: mergeFields(base, applied.Object)}
	if len(options.DryRun) == 0 {
		if err := g.store(found, merged); err != nil {
			return err
		}
	}
	body.SetUnstructuredContent(merged.Object)
	if len(options.DryRun) > 0 {
		g.othersAct()
	}
	return nil
}

func mergeFields(into, from map[string]any) map[string]any {
	for field, value := range from {
		fields, isObject := value.(map[string]any)
		if there, both := into[field].(map[string]any); isObject && both {
			into[field] = mergeFields(there, fields)
			continue
		}
		into[field] = value
	}
	return into
}

// Create is asked for where a Rollout has not begun.
func (g *gitClient) Create(_ context.Context, obj client.Object, _ ...client.CreateOption) error {
	return g.store(nil, obj.(*unstructured.Unstructured))
}

func (g *gitClient) store(found, wanted *unstructured.Unstructured) error {
	w := g.world
	w.clock.advance(w.faults.writeLatency())
	if w.faults.draw(w.faults.unavailable) {
		return apierrors.NewServiceUnavailable("simulated")
	}
	var stored *unstructured.Unstructured
	var err error
	if found == nil {
		stored, err = w.store.create("gitsync", wanted)
	} else {
		stored, err = w.store.update("gitsync", wanted, false)
	}
	if err != nil {
		return err
	}
	w.oracle.onPush(g.rollout, found, stored)
	if w.faults.draw(w.faults.lost) {
		w.sometimes["push: answer lost"]++
		return apierrors.NewTimeoutError("simulated: the answer was lost", 1)
	}
	return nil
}

// onPush: a push moves no weight, mirror or copy, and takes no subset, of what the Rollout drove when it was read; what was
// gone comes back with stable alone.
func (o *oracle) onPush(r *v1.Rollout, before, after *unstructured.Unstructured) {
	w := o.world
	if r == nil || r.Status.Traffic == nil {
		return
	}
	o.notePush(r, before)
	if after.GetKind() == kindDestinationRule {
		was, is := subsetsOf(before), subsetsOf(after)
		for _, s := range r.Status.Subsets {
			if labels, there := was[s.Name]; there && !maps.Equal(labels, is[s.Name]) {
				w.violated(4, "a push changed subset %s from %v to %v", s.Name, labels, is[s.Name])
			}
		}
		return
	}
	carrier := r.Status.FaultVirtualService
	if !slices.Contains(drivenKeys(&r.Status), keyOf(after)) && (carrier == nil || carrier.Name != after.GetName()) {
		return
	}
	there, copies := shareOfRoutes(before)
	here, copiesNow := shareOfRoutes(after)
	for id, weights := range here {
		want, was := there[id]
		if !was {
			want = fmt.Sprint(map[string]int64{place(r.Status.Traffic.Stable): 100}, map[string]float64{})
		}
		if weights != want && (was || slices.Contains(drivenKeys(&r.Status), keyOf(after))) {
			w.violated(8, "a push moved route %s from %s to %s", id, want, weights)
		}
	}
	if before != nil && !reflect.DeepEqual(copies, copiesNow) {
		w.violated(16, "a push changed the copies %v to %v", copies, copiesNow)
	}
}

// shareOfRoutes are the weights and mirrors of the managed routes by name and match, and the inserted copies in their order.
func shareOfRoutes(vs *unstructured.Unstructured) (routes map[string]string, copies []string) {
	routes = map[string]string{}
	for _, view := range viewOf(vs) {
		share := fmt.Sprint(view.weights, view.mirrors)
		switch {
		case view.ours:
			copies = append(copies, view.name+" "+share)
		case view.managed():
			match, _ := json.Marshal(view.raw["match"])
			if view.name != "" {
				match = nil
			}
			routes[view.name+string(match)] = share
		}
	}
	return routes, copies
}

func (o *oracle) notePush(r *v1.Rollout, before *unstructured.Unstructured) {
	w := o.world
	note := func(what string, is bool) {
		if is {
			w.sometimes[what]++
		}
	}
	driven := before != nil && slices.Contains(drivenKeys(&r.Status), keyOf(before))
	note("push brought an object back", before == nil)
	note("pushed in mid-run", driven && r.Status.Step != nil)
	note("pushed while a write was due", driven && !carries(before, r.Status.Traffic))
	note("pushed on stable after a run", driven && r.Status.Run == nil && r.Status.Stable != "v1")
	note("pushed between decision and write", driven && w.inInterlude)
}
