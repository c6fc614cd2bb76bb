package controllertest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

const (
	walk = `
host: reviews
version: v1
gates: []
steps:
- {name: shadow, mirror: {percentage: 100}, hold: 200ms}
- {name: testers, match: [{headers: {end-user: {exact: jason}}}], hold: 200ms}
- {name: half, weight: 50, hold: 200ms}
- {name: full, weight: 100, hold: 200ms}
`
	// The gate's interval is long, so that its one sample decides.
	gated = `
host: reviews
version: v1
gates: [{name: errors, query: "up", max: "1", samples: 1, failures: 1, interval: 1s}]
steps:
- {name: half, weight: 50, hold: 1h}
- {name: full, weight: 100}
`
)

func TestPromotion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(walk)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.awaitRoutes("reviews", "v1")
	w.push("v3")
	w.awaitRoutes("reviews", "v1 100, v3 0 mirror v3")
	if got := w.subsets(); !slices.Equal(got, []string{"v1", "v3"}) {
		t.Errorf("subsets %v while routes name v1 and v3", got)
	}
	w.awaitRoutes("reviews", "v3; v1 100, v3 0")
	w.awaitRoutes("reviews", "v1 50, v3 50")
	r := w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	if r.Status.Stable != "v3" || len(r.Status.History) != 1 || r.Status.History[0].Verdict != v1.ReasonPromoted {
		t.Errorf("stable %s, history %+v", r.Status.Stable, r.Status.History)
	}
	w.awaitRoutes("reviews", "v3")
	w.eventually("each transition has its event", func() error {
		reasons := w.events()
		slices.Sort(reasons)
		want := []string{"Promoted", "RunStarted", "StableDiscovered", "StepStarted", "StepStarted", "StepStarted", "StepStarted"}
		if diff := cmp.Diff(want, reasons); diff != "" {
			return fmt.Errorf("(-want +got):\n%s", diff)
		}
		return nil
	})
}

func TestMakeBeforeBreak(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	arrived := make(chan string, 100)
	for name, list := range map[string]client.ObjectList{"rule": &networking.DestinationRuleList{}, "routes": &networking.VirtualServiceList{}} {
		stream, err := w.client.Watch(ctx, list, client.InNamespace(w.namespace))
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Stop()
		go func() {
			for change := range stream.ResultChan() {
				text, err := json.Marshal(change.Object)
				if err == nil && strings.Contains(string(text), `"v3"`) {
					arrived <- name
				}
			}
		}()
	}
	w.rollout(walk)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	first := <-arrived
	at := time.Now()
	second := <-arrived
	for second == first {
		second = <-arrived
	}
	if first != "rule" {
		t.Errorf("the %s named v3 first", first)
	}
	// The watches are two streams: what arrives may be late by a little.
	if waited := time.Since(at); waited < propagationDelay*2/3 {
		t.Errorf("routes named v3 %s after the rule, want at least %s", waited, propagationDelay)
	}
}

func TestFailingGateRollsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.awaitRoutes("reviews", "v1 50, v3 50")
	w.evidence(pipeline.Fail)
	r := w.awaitPhase(v1.PhaseRolledBack, v1.ReasonGateFailed)
	w.awaitRoutes("reviews", "v1")
	failure := r.Status.LastFailure
	if failure == nil || failure.Gate != "errors" || failure.Value != "4.2%" || failure.Step != "1/2 half" {
		t.Errorf("last failure %+v", failure)
	}
	if r.Status.Rejected == nil || r.Status.Rejected.Version != "v3" {
		t.Errorf("rejected %+v, want v3", r.Status.Rejected)
	}
}

func TestRevert(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.awaitRoutes("reviews", "v1 50, v3 50")
	w.push("v1")
	w.awaitRoutes("reviews", "v1")
	r := w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	if r.Status.Rejected != nil || r.Status.History[0].Verdict != v1.ReasonReverted {
		t.Errorf("a revert rejects nothing: %+v, %+v", r.Status.Rejected, r.Status.History)
	}
}

func TestLostCanaryRollsBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.awaitRoutes("reviews", "v1 50, v3 50")
	w.ready("v3", 0)
	w.awaitPhase(v1.PhaseRolledBack, v1.ReasonUnavailable)
	w.awaitRoutes("reviews", "v1")
}

// The version that serves restarts while the first Rollout comes: the one that was asked for does not get its users unseen.
func TestNothingIsDiscoveredWhileNoEndpointIsReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ready("v1", 0)
	w.ready("v3", 0)
	w.create(&v1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "reviews"}, Spec: v1.RolloutSpec{
		Host: "reviews", Version: "v3", Steps: []v1.Step{{Name: "full", Weight: new(int32(100))}},
	}})
	w.awaitPhase(v1.PhaseStalled, v1.ReasonInitialVersionUnknown)
	w.ready("v1", 1)
	w.await("v1 was discovered", func(r *v1.Rollout) bool { return r.Status.Stable == "v1" })
}

func TestCanaryIsWaitedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(walk)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v4")
	w.awaitPhase(v1.PhaseStalled, v1.ReasonVersionNotFound)
	w.deploy("v4", 0)
	w.awaitPhase(v1.PhaseProgressing, v1.ReasonAvailability)
	w.awaitRoutes("reviews", "v1")
	w.ready("v4", 1)
	w.await("v4 serves", func(r *v1.Rollout) bool { return r.Status.Stable == "v4" })
	w.awaitRoutes("reviews", "v4")
}

func TestHandEditIsPutBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	vs := w.awaitRoutes("reviews", "v1 50, v3 50")
	before := w.await("the step is applied", func(r *v1.Rollout) bool { return r.Status.Step.Applied != nil })
	vs.Spec.Http[0].Route[0].Weight, vs.Spec.Http[0].Route[1].Weight = 5, 95
	vs.Spec.Http[0].Timeout = nil
	vs.Labels = map[string]string{"edited-by": "hand"}
	if err := w.client.Update(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
	vs = w.awaitRoutes("reviews", "v1 50, v3 50")
	if vs.Labels["edited-by"] != "hand" {
		t.Error("a foreign label was taken away")
	}
	w.await("the step's clock begins afresh", func(r *v1.Rollout) bool {
		return r.Status.Step.Applied.After(before.Status.Step.Applied.Time)
	})
}

func TestVanishedObjectsAreMadeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	vs := w.awaitRoutes("reviews", "v1")
	rule := &networking.DestinationRule{}
	if err := w.client.Get(t.Context(), w.key("reviews"), rule); err != nil {
		t.Fatal(err)
	}
	for _, obj := range []client.Object{vs, rule} {
		if err := w.client.Delete(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
	}
	w.eventually("the rule is back", func() error {
		again := &networking.DestinationRule{}
		if err := w.client.Get(t.Context(), w.key("reviews"), again); err != nil {
			return err
		}
		if again.UID == rule.UID || len(again.Spec.Subsets) != 1 || again.Spec.Subsets[0].Name != "v1" {
			return fmt.Errorf("its subsets are %v", again.Spec.Subsets)
		}
		return nil
	})
	w.awaitRoutes("reviews", "v1")
}

func TestFixpointWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(walk)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.await("v3 serves", func(r *v1.Rollout) bool { return r.Status.Stable == "v3" && r.Status.Phase == v1.PhaseHealthy })
	w.awaitRoutes("reviews", "v3")
	w.settles()
	before := w.versions()
	for range 5 {
		w.reconciled()
	}
	if diff := cmp.Diff(before, w.versions()); diff != "" {
		t.Errorf("something was written although nothing changed (-before +after):\n%s", diff)
	}
}

func TestDetachedWritesNoMesh(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.awaitRoutes("reviews", "v1")
	w.edit(func(r *v1.Rollout) {
		r.Annotations = map[string]string{v1.ReconcileAnnotation: v1.ReconcileDisabled}
	})
	w.awaitPhase(v1.PhaseDetached, v1.ReasonDetached)
	vs := w.awaitRoutes("reviews", "v1")
	vs.Spec.Http[0].Route = []*istio.HTTPRouteDestination{
		{Destination: &istio.Destination{Host: "reviews", Subset: "v1"}, Weight: 70},
		{Destination: &istio.Destination{Host: "reviews", Subset: "v3"}, Weight: 30},
	}
	if err := w.client.Update(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
	w.push("v3")
	w.await("the push is seen", func(r *v1.Rollout) bool { return r.Status.ObservedGeneration == r.Generation })
	w.awaitRoutes("reviews", "v1 70, v3 30")
	w.edit(func(r *v1.Rollout) { r.Annotations, r.Spec.Version = nil, "v1" })
	w.awaitRoutes("reviews", "v1")
}

func TestYoungerRolloutYields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	// creationTimestamps have whole seconds; of the same second the name decides.
	younger := &v1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: "reviews-too"}, Spec: w.get().Spec}
	younger.Spec.Host = "reviews." + w.namespace + ".svc.cluster.local"
	w.create(younger)
	stalled := func(phase v1.Phase) {
		t.Helper()
		w.eventually("reviews-too is "+string(phase), func() error {
			if err := w.client.Get(t.Context(), w.key("reviews-too"), younger); err != nil {
				return err
			}
			if younger.Status.Phase != phase {
				return fmt.Errorf("phase %s: %s", younger.Status.Phase, younger.Status.Message)
			}
			return nil
		})
	}
	stalled(v1.PhaseStalled)
	if younger.Status.Reason != v1.ReasonHostConflict || !strings.Contains(younger.Status.Message, "Rollout reviews ") {
		t.Errorf("reason %s: %s", younger.Status.Reason, younger.Status.Message)
	}
	if err := w.client.Delete(t.Context(), w.get()); err != nil {
		t.Fatal(err)
	}
	w.gone(&v1.Rollout{}, "reviews")
	w.eventually("reviews-too may drive the host", func() error {
		if err := w.client.Get(t.Context(), w.key("reviews-too"), younger); err != nil {
			return err
		}
		if strings.Contains(younger.Status.Message, "came first") {
			return fmt.Errorf("still %s", younger.Status.Message)
		}
		return nil
	})
}

func TestStatusStaysSmall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	spec := "host: reviews\nversion: v1\ngates: []\nsteps:\n"
	for i := range 50 {
		spec += fmt.Sprintf("- {name: a-step-with-a-long-name-%02d, weight: %d}\n", i, 2*i)
	}
	w.rollout(spec)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	for run := range 2 {
		version := []string{"v3", "v1"}[run%2]
		w.edit(func(r *v1.Rollout) {
			zero := int32(0)
			r.Spec.Version, r.Spec.RollbackWindow = version, &v1.RollbackWindow{Revisions: &zero}
		})
		w.await(version+" serves", func(r *v1.Rollout) bool { return r.Status.Stable == version })
		raw, err := json.Marshal(w.get().Status)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > 16*1024 {
			t.Fatalf("status has %d bytes after run %d, want at most 16384", len(raw), run+1)
		}
	}
}

func TestConflictStorm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(walk)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ctx.Err() == nil; i++ {
			stamp := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{"storm":"%d"}}}`, i))
			meta := metav1.ObjectMeta{Namespace: w.namespace, Name: "reviews"}
			for _, obj := range []client.Object{
				&v1.Rollout{ObjectMeta: meta}, &networking.VirtualService{ObjectMeta: meta}, &networking.DestinationRule{ObjectMeta: meta},
			} {
				_ = w.client.Patch(ctx, obj, stamp) // one that fails is followed by the next
			}
			time.Sleep(5 * time.Millisecond)
		}
	}()
	defer func() { cancel(); <-stopped }()
	w.push("v3")
	w.await("v3 serves in spite of the storm", func(r *v1.Rollout) bool { return r.Status.Stable == "v3" })
	w.awaitRoutes("reviews", "v3")
}

func TestWorkloadChangedInMidRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.awaitRoutes("reviews", "v1 50, v3 50")
	d := &appsv1.Deployment{}
	if err := w.client.Get(t.Context(), w.key("reviews-v3"), d); err != nil {
		t.Fatal(err)
	}
	d.Spec.Template.Spec.Containers[0].Image = "reviews:v3.1"
	if err := w.client.Update(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	w.await("the run is over", func(r *v1.Rollout) bool {
		return len(r.Status.History) > 0 && r.Status.History[0].Verdict == v1.ReasonWorkloadChanged
	})
	w.ready("v3", 1)
	w.await("a new run is under way", func(r *v1.Rollout) bool { return r.Status.Run != nil && r.Status.Run.Number == 2 })
	w.awaitRoutes("reviews", "v1 50, v3 50")
}
