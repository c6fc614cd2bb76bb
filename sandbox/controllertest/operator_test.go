package controllertest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"sluice.dev/sluice/controllers"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/sandbox/setup"
)

// propagationDelay is short, and long enough to be seen.
const propagationDelay = 150 * time.Millisecond

// operator is a manager with the reconciler of Rollouts, in this process, with scripted evidence.
type operator struct {
	evidence   *evidence
	cache      client.Reader
	reconciler *controllers.RolloutReconciler
	cancel     context.CancelFunc
	done       chan error
}

// startOperator runs a manager until stop is called.
func startOperator(restConfig *rest.Config) (*operator, error) {
	restConfig = rest.CopyConfig(restConfig)
	restConfig.QPS = -1
	scheme, err := setup.Scheme()
	if err != nil {
		return nil, err
	}
	skip, doubts := true, controllers.NewDoubts()
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"},
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(), ByObject: controllers.CacheByObject(), DefaultWatchErrorHandler: doubts.HandleWatchError,
		},
		Client:     client.Options{Cache: &client.CacheOptions{Unstructured: true}},
		Controller: config.Controller{SkipNameValidation: &skip},
	})
	if err != nil {
		return nil, fmt.Errorf("making the manager: %w", err)
	}
	o := &operator{evidence: newEvidence(), cache: mgr.GetClient(), done: make(chan error, 1)}
	o.reconciler = controllers.NewRolloutReconciler(controllers.Dependencies{
		Client: mgr.GetClient(), Live: mgr.GetAPIReader(), Clock: clock.RealClock{}, Analyst: o.evidence,
		Events: mgr.GetEventRecorder("sluice"), Config: pipeline.Config{PropagationDelay: propagationDelay},
	})
	o.evidence.wake = o.reconciler.Wake
	options := controllers.Options{MaxConcurrentReconciles: 4, Clock: clock.RealClock{}, Doubts: doubts}
	if err := o.reconciler.SetupWithManager(mgr, options); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	o.cancel = cancel
	go func() { o.done <- mgr.Start(ctx) }()
	return o, nil
}

// knows tells whether the operator's cache has an object as it was written.
func (o *operator) knows(ctx context.Context, obj client.Object) error {
	version := obj.GetResourceVersion()
	seen, ok := obj.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("%T is no object of an API", obj)
	}
	if err := o.cache.Get(ctx, client.ObjectKeyFromObject(obj), seen); err != nil {
		return err
	}
	if seen.GetResourceVersion() != version {
		return fmt.Errorf("the operator knows %T %s as %s, it is %s", obj, obj.GetName(), seen.GetResourceVersion(), version)
	}
	return nil
}

func (o *operator) stop() error {
	o.cancel()
	return <-o.done
}

// evidence is an Analyst that answers at once: every gate passes, unless a verdict was set for the Rollout.
type evidence struct {
	wake func(types.NamespacedName)

	mu       sync.Mutex
	watches  map[types.NamespacedName]*pipeline.Watch
	sets     map[types.NamespacedName]int
	verdicts map[types.NamespacedName]pipeline.Verdict
	trips    map[types.NamespacedName][]pipeline.Trip
}

func newEvidence() *evidence {
	return &evidence{
		watches: map[types.NamespacedName]*pipeline.Watch{}, sets: map[types.NamespacedName]int{},
		verdicts: map[types.NamespacedName]pipeline.Verdict{}, trips: map[types.NamespacedName][]pipeline.Trip{},
	}
}

// set gives a verdict for all further samples of a Rollout.
func (e *evidence) set(key types.NamespacedName, verdict pipeline.Verdict) {
	e.mu.Lock()
	e.verdicts[key] = verdict
	e.mu.Unlock()
	e.wake(key)
}

// trip lets a Rollout's breaker trip, if it is watched.
func (e *evidence) trip(key types.NamespacedName, trips ...pipeline.Trip) {
	e.mu.Lock()
	e.trips[key] = trips
	e.mu.Unlock()
	e.wake(key)
}

// Breaker of the watch that was set last.
func (e *evidence) Breaker(key types.NamespacedName) *pipeline.BreakerState {
	e.mu.Lock()
	defer e.mu.Unlock()
	if watch := e.watches[key]; watch != nil && watch.Breaker != nil {
		return &pipeline.BreakerState{For: watch.Breaker.ID, Trips: e.trips[key]}
	}
	return nil
}

func (e *evidence) Set(key types.NamespacedName, watch *pipeline.Watch) {
	e.mu.Lock()
	before := e.watches[key]
	e.watches[key] = watch
	e.sets[key]++
	e.mu.Unlock()
	if watch != nil && len(watch.Gates) > 0 && (before == nil || before.ID != watch.ID) {
		e.wakeFor(key, watch, &watch.Gates[0], watch.Gates[0].First)
	}
}

// passes counts how often the reconciler said what to measure: once in each pass.
func (e *evidence) passes(key types.NamespacedName) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.sets[key]
}

// wakeFor wakes the Rollout at the time of each sample, as long as it watches.
func (e *evidence) wakeFor(key types.NamespacedName, watch *pipeline.Watch, gate *pipeline.GateWatch, at time.Time) {
	time.AfterFunc(time.Until(at), func() {
		e.mu.Lock()
		current := e.watches[key]
		e.mu.Unlock()
		if current == nil || current.ID != watch.ID {
			return
		}
		e.wake(key)
		e.wakeFor(key, watch, gate, at.Truncate(gate.Interval).Add(gate.Interval))
	})
}

// Samples of all times until now.
func (e *evidence) Samples(key types.NamespacedName) map[string]pipeline.GateSamples {
	e.mu.Lock()
	defer e.mu.Unlock()
	watch := e.watches[key]
	if watch == nil {
		return nil
	}
	verdict, ok := e.verdicts[key]
	if !ok {
		verdict = pipeline.Pass
	}
	samples := map[string]pipeline.GateSamples{}
	for _, gate := range watch.Gates {
		known := pipeline.GateSamples{For: watch.ID, Query: "up"}
		for at := gate.First; !at.After(time.Now()); at = at.Truncate(gate.Interval).Add(gate.Interval) {
			known.Samples = append(known.Samples, pipeline.Sample{Time: at, Verdict: verdict, Value: "4.2%"})
		}
		samples[gate.Name] = known
	}
	return samples
}

func (e *evidence) Probe(types.NamespacedName) *pipeline.ProbeResult { return nil }
