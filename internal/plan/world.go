package plan

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/controllers"
	"sluice.dev/sluice/internal/pipeline"
)

const (
	// maxReconciles bounds a run: one that needs more does not end.
	maxReconciles = 20_000
	// patience is how long a phase that waits for somebody is looked at before it counts as the end.
	patience = 5 * time.Minute
)

// world is a namespace with the operator in it.
type world struct {
	in       Input
	key      types.NamespacedName
	clock    *jumpingClock
	store    *store
	client   *memoryClient
	analyst  *optimist
	operator *controllers.RolloutReconciler

	mu        sync.Mutex
	recording bool
	plan      Plan
}

func newWorld(in Input) (*world, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	if in.Rollout.GetNamespace() == "" {
		return nil, fmt.Errorf("metadata.namespace of Rollout %s is empty", in.Rollout.GetName())
	}
	clock := &jumpingClock{now: in.Now}
	w := &world{in: in, clock: clock, store: newStore(clock)}
	w.key = types.NamespacedName{Namespace: in.Rollout.GetNamespace(), Name: in.Rollout.GetName()}
	config := pipeline.Config{PropagationDelay: in.PropagationDelay, Settle: settle, UnscopedFaults: in.UnscopedFaults}
	w.client = &memoryClient{store: w.store, scheme: scheme}
	w.analyst = &optimist{clock: clock, config: config, set: w.noteWatch}
	w.operator = controllers.NewRolloutReconciler(controllers.Dependencies{
		Client: w.client, Live: w.client, Clock: clock, Analyst: w.analyst, Events: silence{}, Config: config,
	})
	w.store.wrote = w.note
	w.plan = Plan{Namespace: w.key.Namespace, Name: w.key.Name}
	return w, nil
}

// note records a write under the stage that the run is in.
func (w *world) note(k key, before, after *unstructured.Unstructured) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if stage := w.stage(); stage != nil {
		stage.Writes = append(stage.Writes, Write{Kind: k.kind, Name: k.name, Before: before, After: after})
	}
}

// rollout is the Rollout as it is stored.
func (w *world) rollout() (*v1.Rollout, error) {
	rollout := &v1.Rollout{}
	stored := w.store.get(key{"Rollout", w.key.Namespace, w.key.Name})
	if stored == nil {
		return nil, fmt.Errorf("the Rollout %s is gone", w.key)
	}
	return rollout, decode(stored, rollout)
}

// mesh is the VirtualServices and DestinationRules as they are.
func (w *world) mesh() map[key]*unstructured.Unstructured {
	objects := map[key]*unstructured.Unstructured{}
	for _, kind := range []string{"DestinationRule", "VirtualService"} {
		for _, object := range w.store.list(kind, w.key.Namespace) {
			objects[keyOf(object)] = object
		}
	}
	return objects
}

func decode(object *unstructured.Unstructured, into any) error {
	raw, err := json.Marshal(object.Object)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
	}
	return nil
}

// ask sets a field of the spec to a version.
func (w *world) ask(version, field string) error {
	stored := w.store.get(key{"Rollout", w.key.Namespace, w.key.Name}).DeepCopy()
	if err := unstructured.SetNestedField(stored.Object, version, "spec", field); err != nil {
		return err
	}
	_, err := w.store.update(stored, false)
	return err
}

// asked is the version that the given Rollout asks for.
func (w *world) asked() string {
	version, _, err := unstructured.NestedString(w.in.Rollout.Object, "spec", "version")
	if err != nil {
		return ""
	}
	return version
}

// settle reconciles, and lets time pass, until nothing more happens.
func (w *world) settle(ctx context.Context) error {
	calm := w.clock.Now()
	for range maxReconciles {
		before := w.store.version
		result, err := w.operator.Reconcile(ctx, reconcile.Request{NamespacedName: w.key})
		if err != nil && !errors.Is(err, reconcile.TerminalError(nil)) {
			return err
		}
		rollout, err := w.rollout()
		if err != nil {
			return err
		}
		w.describe(rollout)
		if w.store.version != before {
			calm = w.clock.Now()
		}
		pause := soonest(result.RequeueAfter, w.analyst.next())
		if pause == 0 || (waits(rollout) && w.clock.Since(calm) > patience) {
			return nil
		}
		w.clock.advance(pause)
	}
	return fmt.Errorf("the run of Rollout %s does not come to an end within %d reconciles", w.key, maxReconciles)
}

// describe notes what the plan is about, as soon as it is known, and each step, also one that writes nothing.
func (w *world) describe(rollout *v1.Rollout) {
	w.plan.Host, w.plan.To = rollout.Spec.Host, rollout.Spec.Version
	if run := rollout.Status.Run; run != nil {
		w.plan.From = run.From
	} else if w.plan.From == "" {
		w.plan.From = cmp.Or(w.left(rollout), rollout.Status.Stable)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if rollout.Status.Step != nil {
		w.stage()
	}
}

// left is the canary of the run in which the Rollout was given, where it goes back to stable.
func (w *world) left(rollout *v1.Rollout) string {
	to, _, err := unstructured.NestedString(w.in.Rollout.Object, "status", "run", "to")
	if err != nil || rollout.Status.Stable != rollout.Spec.Version {
		return ""
	}
	return to
}

// waits tells whether a Rollout is in a phase that by itself does not end.
func waits(rollout *v1.Rollout) bool {
	switch rollout.Status.Phase {
	case v1.PhaseStalled, v1.PhaseWaiting, v1.PhaseRolledBack, v1.PhaseDetached:
		return true
	}
	return false
}

func soonest(a, b time.Duration) time.Duration {
	if a == 0 || (b > 0 && b < a) {
		return b
	}
	return a
}
