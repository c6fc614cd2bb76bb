package controllers

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"sluice.dev/sluice/internal/pipeline"
)

// lookAgain is how often kinds that can't be read are tried again. In a cluster that has all of them nothing is polled.
const lookAgain = 3 * time.Second

// kindWatches starts each watch once its kind is known to the API server and may be listed. A watch of any other kind would
// hold up the whole controller, and a cached read of one would block for ever.
type kindWatches struct {
	live       client.Reader
	clock      clock.WithTicker
	namespaces []string
	wakeAll    func()
	pending    []pendingWatch

	mu     sync.Mutex
	states map[schema.GroupKind]kindState
}

type pendingWatch struct {
	kind  schema.GroupVersionKind
	start func() error
}

type kindState struct {
	known   bool
	problem *pipeline.Problem
}

func newKindWatches(live client.Reader, options Options, wakeAll func()) *kindWatches {
	w := &kindWatches{live: live, clock: options.Clock, namespaces: options.Namespaces, wakeAll: wakeAll, states: map[schema.GroupKind]kindState{}}
	if w.clock == nil {
		w.clock = clock.RealClock{}
	}
	if len(w.namespaces) == 0 {
		w.namespaces = []string{""}
	}
	return w
}

func (w *kindWatches) add(kind watchedKind, start func() error) {
	w.pending = append(w.pending, pendingWatch{kind.kind, start})
}

// Problem implements Kinds.
func (w *kindWatches) Problem(kind schema.GroupKind) (*pipeline.Problem, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	state := w.states[kind]
	return state.problem, state.known
}

// NeedLeaderElection tells the manager that only the leader reconciles, so only it watches.
func (w *kindWatches) NeedLeaderElection() bool { return true }

// Start tries until every watch has begun.
func (w *kindWatches) Start(ctx context.Context) error {
	ticker := w.clock.NewTicker(lookAgain)
	defer ticker.Stop()
	for {
		w.try(ctx)
		if len(w.pending) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
	}
}

// try starts the pending watches that can be, and wakes the Rollouts when something became readable.
func (w *kindWatches) try(ctx context.Context) {
	var pending []pendingWatch
	for _, watch := range w.pending {
		problem, err := unreadable(w.probe(ctx, watch.kind))
		if err == nil && problem == nil {
			err = watch.start()
		}
		if err != nil {
			log.FromContext(ctx).Error(err, "starting a watch, again in a moment", "kind", watch.kind.Kind)
		}
		if err != nil || problem != nil {
			pending = append(pending, watch)
		}
		if err == nil {
			w.set(watch.kind.GroupKind(), problem)
		}
	}
	began := len(pending) < len(w.pending)
	w.pending = pending
	if began {
		w.wakeAll()
	}
}

func (w *kindWatches) set(kind schema.GroupKind, problem *pipeline.Problem) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[kind] = kindState{known: true, problem: problem}
}

// probe lists one object of the kind in each namespace.
func (w *kindWatches) probe(ctx context.Context, kind schema.GroupVersionKind) error {
	for _, namespace := range w.namespaces {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		if err := w.live.List(ctx, list, client.InNamespace(namespace), client.Limit(1)); err != nil {
			return err
		}
	}
	return nil
}
