package controllers

import (
	"context"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"sluice.dev/sluice/internal/pipeline"
)

// lookAgain is how often kinds that can't be read are tried again. While all of them can be, nothing is polled.
const lookAgain = 3 * time.Second

// kindWatches starts each watch once its kind is known to the API server and may be listed. A watch of any other kind would
// hold up the whole controller, and a cached read of one would block for ever. A kind that can't be read any more later on has
// a cache that grows old in silence: when a watch breaks for want of the kind or of the right, all kinds are tried again.
type kindWatches struct {
	live client.Reader
	// watcher begins watches, to see whether they may be.
	watcher    watcher
	clock      clock.WithTicker
	namespaces []string
	doubts     *Doubts
	wakeAll    func()
	watches    []*kindWatch
	// doubted: there were doubts since all was well.
	doubted bool

	mu     sync.Mutex
	states map[schema.GroupKind]kindState
}

// watcher is what of a client begins a watch.
type watcher interface {
	Watch(ctx context.Context, list client.ObjectList, options ...client.ListOption) (apiwatch.Interface, error)
}

type kindWatch struct {
	kind schema.GroupVersionKind
	// start begins the watch; nil: it has begun.
	start func() error
	// pending: it is not known whether the kind can be read, or known that it can't.
	pending bool
	// seen is how far the cache has seen the kind, as a resourceVersion; empty when that can't be told.
	seen func() string
}

type kindState struct {
	known   bool
	problem *pipeline.Problem
	// deaf is why its changes can not be watched, while it can be listed.
	deaf *pipeline.Problem
	// began is the resourceVersion at which the kind was first found to be readable.
	began string
}

// Doubts of whether kinds can be read. A manager's cache raises them, the controller of Rollouts looks into them.
type Doubts struct{ raised chan struct{} }

// NewDoubts has none yet.
func NewDoubts() *Doubts { return &Doubts{raised: make(chan struct{}, 1)} }

// HandleWatchError is for the cache's DefaultWatchErrorHandler.
func (d *Doubts) HandleWatchError(ctx context.Context, r *toolscache.Reflector, err error) {
	toolscache.DefaultWatchErrorHandler(ctx, r, err)
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		select {
		case d.raised <- struct{}{}:
		default: // one is as good as many
		}
	}
}

func newKindWatches(live client.Reader, watcher watcher, options Options, wakeAll func()) *kindWatches {
	w := &kindWatches{
		live: live, watcher: watcher, clock: options.Clock, namespaces: options.Namespaces, doubts: options.Doubts, wakeAll: wakeAll,
		states: map[schema.GroupKind]kindState{},
	}
	if w.clock == nil {
		w.clock = clock.RealClock{}
	}
	if w.doubts == nil {
		w.doubts = NewDoubts()
	}
	if len(w.namespaces) == 0 {
		w.namespaces = []string{""}
	}
	return w
}

func (w *kindWatches) add(kind watchedKind, start func() error, seen func() string) {
	w.watches = append(w.watches, &kindWatch{kind: kind.kind, start: start, seen: seen, pending: true})
}

// Current implements Kinds. With an API server that begins its watches with consistent lists it is so from the first event on.
func (w *kindWatches) Current(kind schema.GroupKind) bool {
	at := slices.IndexFunc(w.watches, func(watch *kindWatch) bool { return watch.kind.GroupKind() == kind })
	if at < 0 {
		return false
	}
	w.mu.Lock()
	began := w.states[kind].began
	w.mu.Unlock()
	order, err := resourceversion.CompareResourceVersion(w.watches[at].seen(), began)
	return err == nil && order >= 0
}

// Problem implements Kinds.
func (w *kindWatches) Problem(kind schema.GroupKind) (*pipeline.Problem, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	state := w.states[kind]
	return state.problem, state.known
}

// Unwatched implements Kinds.
func (w *kindWatches) Unwatched() *pipeline.Problem {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, watch := range w.watches {
		if problem := w.states[watch.kind.GroupKind()].deaf; problem != nil {
			return problem
		}
	}
	return nil
}

// NeedLeaderElection tells the manager that only the leader reconciles, so only it watches.
func (w *kindWatches) NeedLeaderElection() bool { return true }

// Start tries until every watch has begun, and again when there are doubts.
func (w *kindWatches) Start(ctx context.Context) error {
	for {
		var again <-chan time.Time
		if w.doubted = w.try(ctx); w.doubted {
			again = w.clock.After(lookAgain)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		case <-w.doubts.raised:
			w.doubted = true
			for _, watch := range w.watches {
				watch.pending = true
			}
			// Not at once: an API server that has just started may not know yet who has which rights.
			select {
			case <-ctx.Done():
				return nil
			case <-w.clock.After(lookAgain):
			}
		}
	}
}

// try looks at the pending kinds, starts the watches that can be, and wakes the Rollouts when something changed. It tells
// whether any are left.
func (w *kindWatches) try(ctx context.Context) (left bool) {
	states, errs := make([]kindState, len(w.watches)), make([]error, len(w.watches))
	var wait sync.WaitGroup
	for i, watch := range w.watches {
		if watch.pending {
			// At the same time: a process that starts has Rollouts in mid-run waiting for it.
			wait.Go(func() { states[i], errs[i] = w.lookAt(ctx, watch) })
		}
	}
	wait.Wait()
	changed := false
	for i, watch := range w.watches {
		switch {
		case !watch.pending:
			continue
		case errs[i] != nil:
			log.FromContext(ctx).Error(errs[i], "looking at a kind, again in a moment", "kind", watch.kind.Kind)
		default:
			changed = w.set(watch.kind.GroupKind(), states[i]) || changed
			watch.pending = states[i].problem != nil || states[i].deaf != nil
		}
		left = left || watch.pending
	}
	if changed {
		w.wakeAll()
	}
	return left
}

// lookAt a kind, and start its watch if it can be read.
func (w *kindWatches) lookAt(ctx context.Context, watch *kindWatch) (kindState, error) {
	began, err := w.probe(ctx, watch.kind)
	problem, err := unreadable(err)
	if err != nil || problem != nil {
		return kindState{problem: problem}, err
	}
	if watch.start != nil {
		if err := watch.start(); err != nil {
			return kindState{}, err
		}
		watch.start = nil
	}
	w.note(watch.kind.GroupKind(), began)
	deaf, err := unreadable(w.listen(ctx, watch.kind, began))
	return kindState{deaf: deaf}, err
}

// listen begins a watch of a kind in each namespace, where there are doubts, and ends it: a right to list is none to watch.
func (w *kindWatches) listen(ctx context.Context, kind schema.GroupVersionKind, from string) error {
	if !w.doubted || w.watcher == nil {
		return nil
	}
	for _, namespace := range w.namespaces {
		options := &client.ListOptions{Namespace: namespace, Raw: &metav1.ListOptions{ResourceVersion: from}}
		begun, err := w.watcher.Watch(ctx, listOf(kind), options)
		if err != nil {
			return err
		}
		begun.Stop()
	}
	return nil
}

func listOf(kind schema.GroupVersionKind) *unstructured.UnstructuredList {
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
	return list
}

// note keeps the first resourceVersion that a kind was found at.
func (w *kindWatches) note(kind schema.GroupKind, began string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if state := w.states[kind]; state.began == "" {
		state.began = began
		w.states[kind] = state
	}
}

// set tells whether that is news.
func (w *kindWatches) set(kind schema.GroupKind, now kindState) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.states[kind]
	now.known, now.began = true, before.began
	w.states[kind] = now
	return !before.known || reasonOf(before.problem) != reasonOf(now.problem) || reasonOf(before.deaf) != reasonOf(now.deaf)
}

func reasonOf(problem *pipeline.Problem) string {
	if problem == nil {
		return ""
	}
	return problem.Reason
}

// probe lists one object of the kind in each namespace, and returns the resourceVersion of the last list.
func (w *kindWatches) probe(ctx context.Context, kind schema.GroupVersionKind) (version string, err error) {
	for _, namespace := range w.namespaces {
		list := listOf(kind)
		if err := w.live.List(ctx, list, client.InNamespace(namespace), client.Limit(1)); err != nil {
			return "", err
		}
		version = list.GetResourceVersion()
	}
	return version, nil
}
