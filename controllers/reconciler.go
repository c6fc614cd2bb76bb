package controllers

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

const (
	// FieldOwner is the field manager of every write to Rollouts and to the mesh.
	FieldOwner = client.FieldOwner("sluice")

	// maxPasses bounds how often one reconcile decides and applies: a step that begins takes two, a conflict one more.
	maxPasses = 8

	// staleRetry is the safety net of what a watch wakes from: a cache that is behind, a kind that is not known to be readable.
	staleRetry = time.Second
	// conflictRetry is soon, since the event that tells of the other write is on its way.
	conflictRetry = 20 * time.Millisecond
	// refusedRetry is for what somebody else must mend: RBAC, an admission webhook, absent CRDs.
	refusedRetry = 10 * time.Second
)

// PriorityUrgent is the queue priority of what takes traffic back: a trip, a failing gate or probe, a revert, a deletion.
const PriorityUrgent = 100

// priorityInFlight is that of runs in flight: what has begun ends before more begins.
const priorityInFlight = 10

// Analyst measures gates and probes, and watches breakers, outside the reconcile. Its methods return at once.
type Analyst interface {
	// Set says what to measure for a Rollout from now on; nil: nothing.
	Set(key types.NamespacedName, watch *pipeline.Watch)
	// Samples known of each gate, by name.
	Samples(key types.NamespacedName) map[string]pipeline.GateSamples
	// Probe of the watched step; nil when none has begun.
	Probe(key types.NamespacedName) *pipeline.ProbeResult
	// Breaker of the run in flight; nil when none is watched.
	Breaker(key types.NamespacedName) *pipeline.BreakerState
}

// Kinds tells which kinds can be read.
type Kinds interface {
	// Problem is why objects of a kind can not be read, IstioNotInstalled or Forbidden; nil when they can.
	// known is false as long as that was not found out.
	Problem(kind schema.GroupKind) (problem *pipeline.Problem, known bool)
	// Current tells whether the cache of a kind is known to have all that was there when this process first asked for it. An API
	// server may begin a watch with a list that is older than that.
	Current(kind schema.GroupKind) bool
	// Unwatched is why changes of a kind that can be read are seen late, Forbidden; nil: they are not.
	Unwatched() *pipeline.Problem
}

// Dependencies of the reconciler.
type Dependencies struct {
	// Client reads from the cache.
	Client client.Client
	// Live reads from the API server.
	Live    client.Reader
	Clock   clock.PassiveClock
	Analyst Analyst
	Events  events.EventRecorder
	Config  pipeline.Config
	// Kinds that can be read; nil: the errors of Client tell.
	Kinds Kinds
	// Metrics; nil: they are counted and shown nowhere.
	Metrics *Metrics
}

// RolloutReconciler brings Rollouts and the mesh to what the pipeline decides.
type RolloutReconciler struct {
	Dependencies

	ledger   *ledger
	memory   *memory
	interest *interests
	claims   *claims
	queue    atomic.Pointer[queue]
}

// NewRolloutReconciler returns a reconciler that knows nothing yet.
func NewRolloutReconciler(d Dependencies) *RolloutReconciler {
	if d.Metrics == nil {
		d.Metrics = NewMetrics(nil)
	}
	return &RolloutReconciler{
		Dependencies: d, ledger: newLedger(), memory: newMemory(), interest: newInterests(), claims: newClaims(),
	}
}

// Reconcile reads the Rollout, and converges it, or takes it back when it is being deleted.
// A cache that is older than this process's last write decides nothing: its event wakes the reconciler again.
func (r *RolloutReconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	rollout, err := r.read(ctx, req.NamespacedName)
	switch {
	case err != nil:
		return r.outcome(err)
	case rollout == nil:
		r.forget(req.NamespacedName)
		return reconcile.Result{}, nil
	case !rollout.DeletionTimestamp.IsZero():
		return r.finalize(ctx, rollout)
	}
	if err := r.ensureFinalizer(ctx, rollout); err != nil {
		return r.outcome(err)
	}
	return r.converge(ctx, rollout)
}

// The ways in which a reconcile ends early without being an error that anyone should read.
var (
	errStale    = errors.New("the cache is older than our last write")
	errConflict = errors.New("somebody else wrote in between")
	errNotYet   = errors.New("the kinds that can be read are not known yet")
)

// outcome turns an error into a result: stale reads and conflicts are waited out silently, others back off.
func (r *RolloutReconciler) outcome(err error) (reconcile.Result, error) {
	switch {
	case errors.Is(err, errStale), errors.Is(err, errNotYet):
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	case errors.Is(err, errConflict), apierrors.IsConflict(err):
		return reconcile.Result{RequeueAfter: conflictRetry}, nil
	default:
		return reconcile.Result{}, err
	}
}

// read returns the Rollout, nil when it is gone. When the cache is behind, it reads live if the evidence calls for a
// rollback, which must not wait for a cache.
func (r *RolloutReconciler) read(ctx context.Context, key types.NamespacedName) (*v1.Rollout, error) {
	rollout, err := r.readCached(ctx, key)
	if !errors.Is(err, errStale) {
		return rollout, err
	}
	if r.urgent(key) {
		return r.readLive(ctx, key)
	}
	r.interest.await(key)
	return r.readCached(ctx, key) // the event may have come before it was awaited
}

func (r *RolloutReconciler) readCached(ctx context.Context, key types.NamespacedName) (*v1.Rollout, error) {
	rollout := &v1.Rollout{}
	switch err := r.Client.Get(ctx, key, rollout); {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading Rollout %s: %w", key, err)
	case r.ledger.stale(kindRollout, rollout):
		return nil, errStale
	}
	return rollout, nil
}

func (r *RolloutReconciler) readLive(ctx context.Context, key types.NamespacedName) (*v1.Rollout, error) {
	rollout := &v1.Rollout{}
	if err := r.Live.Get(ctx, key, rollout); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	r.ledger.saw(kindRollout, rollout) // from here on an older cache is known to be older
	return rollout, nil
}

// urgent tells whether the analysis saw something fail.
func (r *RolloutReconciler) urgent(key types.NamespacedName) bool {
	if p := r.Analyst.Probe(key); p != nil && p.Failed {
		return true
	}
	if b := r.Analyst.Breaker(key); b != nil && len(b.Trips) > 0 {
		return true
	}
	for _, gate := range r.Analyst.Samples(key) {
		if n := len(gate.Samples); n > 0 && gate.Samples[n-1].Verdict == pipeline.Fail {
			return true
		}
	}
	return false
}

func (r *RolloutReconciler) ensureFinalizer(ctx context.Context, rollout *v1.Rollout) error {
	if controllerutil.ContainsFinalizer(rollout, v1.FinalizerName) {
		return nil
	}
	before := rollout.DeepCopy()
	controllerutil.AddFinalizer(rollout, v1.FinalizerName)
	return r.patchMetadata(ctx, before, rollout)
}

// patchMetadata writes finalizers only if nobody wrote in between.
func (r *RolloutReconciler) patchMetadata(ctx context.Context, before, after *v1.Rollout) error {
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.Client.Patch(ctx, after, patch, FieldOwner); err != nil {
		return fmt.Errorf("writing the finalizers of Rollout %s: %w", client.ObjectKeyFromObject(after), err)
	}
	r.ledger.wrote(kindRollout, after)
	return nil
}

func (r *RolloutReconciler) forget(key types.NamespacedName) {
	r.Analyst.Set(key, nil)
	r.ledger.forget(kindRollout, key)
	r.memory.forget(key)
	r.interest.forget(key)
	r.claims.forget(key)
	r.Metrics.forget(key)
}
