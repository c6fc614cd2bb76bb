package gitsync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "sluice.dev/sluice/api/v1"
)

// +kubebuilder:rbac:groups=sluice.dev,resources=gitsyncs,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=sluice.dev,resources=gitsyncs/status,verbs=get;patch;update
// +kubebuilder:rbac:groups=sluice.dev,resources=rollouts,verbs=get;list;watch
// +kubebuilder:rbac:groups=networking.istio.io,resources=virtualservices,verbs=list
// +kubebuilder:rbac:groups="",resources=secrets;services,verbs=get
// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=impersonate
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch;update

// The requeue after a lost race for the status, and around which a GitSync waits while its namespace has its share of workers.
const (
	conflictRequeue = 200 * time.Millisecond
	crowdedRequeue  = time.Second
	// leavingRequeue is while something goes that the rest of a prune waits for.
	leavingRequeue = time.Second
)

// recordTries bounds how often a status is written again because the object is another one.
const recordTries = 5

// maxNote bounds an event's note in bytes; the API server's limit is 1 KiB.
const maxNote = 1000

// Reconciler keeps a cluster as the repositories of its GitSyncs say.
type Reconciler struct {
	// Client reads GitSyncs, from a cache, and writes their finalizers and status.
	Client client.Client
	// Live reads Secrets, which are not to be cached, and Rollouts and Services where only the latest ones will do.
	Live client.Reader
	// Config is the operator's own; writes impersonate the GitSync's service account.
	Config *rest.Config
	// Events is told one event per transition.
	Events events.EventRecorder
	// Clock stamps the status.
	Clock clock.PassiveClock

	options Options
	fetcher *Fetcher
	recall  recall
	slots   slots
	jitter  func(time.Duration) time.Duration
}

// Reconcile fetches, decodes, tries and applies one GitSync, and records what came of it in one status write.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	sync := &v1.GitSync{}
	if err := r.Client.Get(ctx, request.NamespacedName, sync); err != nil || sync.DeletionTimestamp != nil {
		r.recall.forget(request.NamespacedName)
		forgetSync(request.NamespacedName)
		if err == nil {
			return r.finalize(ctx, sync)
		}
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if err := r.ensureFinalizer(ctx, sync); err != nil {
		return conflictOr(err)
	}
	if !r.slots.take(sync.Namespace) {
		return reconcile.Result{RequeueAfter: r.jitter(crowdedRequeue)}, nil
	}
	defer r.slots.free(sync.Namespace)
	if len(sync.Status.Conditions) == 0 && !sync.Spec.Suspend {
		if err := r.record(ctx, sync, attempt{reason: v1.ReasonFetching, message: "Fetching " + redactURL(sync.Spec.URL)}); err != nil {
			return conflictOr(err)
		}
	}
	known := r.recall.of(request.NamespacedName, sync.UID)
	began := r.Clock.Now()
	done := r.attempt(ctx, sync, known)
	if ctx.Err() != nil {
		return reconcile.Result{}, nil // shutting down: what failed for that is no news
	}
	if err := r.record(ctx, sync, done); err != nil {
		return conflictOr(err)
	}
	if done.whole() || done.reason == v1.ReasonHeldBack {
		r.recall.pass(request.NamespacedName, began)
	}
	return reconcile.Result{RequeueAfter: r.nextPass(sync, known, done)}, nil
}

// conflictOr requeues a lost race silently: the object changed meanwhile, and the next pass sees how.
func conflictOr(err error) (reconcile.Result, error) {
	if apierrors.IsConflict(err) {
		return reconcile.Result{RequeueAfter: conflictRequeue}, nil
	}
	return reconcile.Result{}, client.IgnoreNotFound(err)
}

func (r *Reconciler) nextPass(sync *v1.GitSync, known *remembered, done attempt) time.Duration {
	interval := IntervalOf(&sync.Spec)
	if pruned := done.outcome.Pruned; pruned != nil && pruned.Leaving {
		return min(interval, leavingRequeue)
	} else if pruned != nil && !pruned.Until.IsZero() {
		interval = min(interval, max(pruned.Until.Sub(r.Clock.Now()), leavingRequeue))
	}
	switch {
	case done.wait:
		known.failures = 0
		return 0
	case done.retry:
		known.failures++
		return r.jitter(backoff(known.failures, interval))
	default:
		known.failures = 0
		return r.jitter(interval)
	}
}

// attempt does the work of a pass. It writes objects of the revision, but neither status nor events.
func (r *Reconciler) attempt(ctx context.Context, sync *v1.GitSync, known *remembered) attempt {
	if sync.Spec.Suspend {
		return attempt{reason: v1.ReasonSuspended, message: "Suspended: neither fetched nor applied until spec.suspend is false", wait: true}
	}
	source, err := ParseSource(&sync.Spec)
	if err != nil {
		return attempt{reason: v1.ReasonInvalidSource, message: err.Error(), stalled: true, wait: true}
	}
	if sync.Spec.SecretRef != nil {
		credentials, err := r.credentials(ctx, sync)
		if err != nil {
			return attempt{reason: v1.ReasonFetchFailed, message: err.Error(), retry: true}
		}
		if source, err = source.WithCredentials(credentials); err != nil {
			return attempt{reason: v1.ReasonInvalidSource, message: err.Error(), stalled: true}
		}
	}
	if failed := r.fetch(ctx, source, known); failed != nil {
		return *failed
	}
	outcome, err := r.apply(ctx, sync, known)
	return applied(source, known.commit, outcome, err)
}

func (r *Reconciler) credentials(ctx context.Context, sync *v1.GitSync) (Credentials, error) {
	secret := &corev1.Secret{}
	key := types.NamespacedName{Namespace: sync.Namespace, Name: sync.Spec.SecretRef.Name}
	if err := r.Live.Get(ctx, key, secret); err != nil {
		if apierrors.IsNotFound(err) {
			return Credentials{}, fmt.Errorf("spec.secretRef: there is no Secret %s in namespace %s", key.Name, key.Namespace)
		}
		return Credentials{}, fmt.Errorf("spec.secretRef: %w", err)
	}
	credentials, err := ParseCredentials(secret)
	if err != nil {
		return Credentials{}, fmt.Errorf("spec.secretRef: %w", err)
	}
	return credentials, nil
}

// fetch leaves the source's commit and its manifests in known. It returns what failed, or nil.
func (r *Reconciler) fetch(ctx context.Context, source Source, known *remembered) *attempt {
	start := r.Clock.Now()
	snapshot, err := r.fetcher.Fetch(ctx, source, known.knownCommit(source))
	content := new(ContentError)
	result := "fetched"
	switch {
	case err != nil && !errors.As(err, &content):
		fetchSeconds.WithLabelValues("failed").Observe(r.Clock.Since(start).Seconds())
		return &attempt{reason: v1.ReasonFetchFailed, message: err.Error(), retry: true}
	case snapshot.Unchanged:
		result = "unchanged"
	default:
		var manifests []Manifest
		if err == nil {
			manifests, err = Decode(snapshot.Files)
		}
		known.keep(source, snapshot.Commit, manifests, err)
	}
	fetchSeconds.WithLabelValues(result).Observe(r.Clock.Since(start).Seconds())
	if known.problem != nil {
		failed := applied(source, known.commit, Outcome{}, known.problem)
		return &failed
	}
	return nil
}

// apply brings the remembered manifests into the cluster, and then takes away what left the repository.
func (r *Reconciler) apply(ctx context.Context, sync *v1.GitSync, known *remembered) (Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, r.options.ApplyTimeout)
	defer cancel()
	manifests := slices.Clone(known.manifests)
	for i := range manifests {
		manifests[i].Object = manifests[i].Object.DeepCopy()
	}
	if err := Place(manifests, sync.Namespace, known.commit, r.scope); err != nil {
		return Outcome{}, err
	}
	applier, err := r.applier(sync)
	if err != nil {
		return Outcome{}, err
	}
	applier.announce = func(ctx context.Context, manifests []Manifest) error { return r.announce(ctx, sync, manifests) }
	outcome, err := applier.Apply(ctx, manifests)
	if err == nil && len(outcome.Changed) > 0 && known.commit == sync.Status.Revision {
		outcome.Disputed = r.disputed(ctx, sync, outcome.Changed)
	}
	if err != nil || !prunes(sync) {
		return outcome, err
	}
	stale := left(sync.Status.Inventory, manifests)
	if len(outcome.Held) > 0 {
		// Not applied whole: nothing is pruned but the Rollouts, which may be what an object is held back for.
		stale, _ = split(stale)
	}
	if len(stale) == 0 {
		outcome.Pruned, known.left = &Pruned{}, nil
		return outcome, nil
	}
	outcome.Pruned, err = r.prune(ctx, sync, known, applier, stale)
	if err != nil {
		return outcome, &pruneError{err}
	}
	return outcome, nil
}

// prune takes away what left the repository, unless another GitSync is to have it.
func (r *Reconciler) prune(ctx context.Context, sync *v1.GitSync, known *remembered, applier *Applier, stale []v1.InventoryEntry) (*Pruned, error) {
	neighbours, err := others(ctx, r.Live, sync, client.InNamespace(sync.Namespace))
	if err != nil {
		return nil, err
	}
	due, waiting := r.awaitSiblings(sync, known, neighbours, stale)
	pruned, err := r.pruner(ctx, sync, applier).Prune(ctx, due)
	pruned.Kept = append(pruned.Kept, waiting.Kept...)
	pruned.Pending = append(pruned.Pending, waiting.Pending...)
	return &pruned, err
}

func (r *Reconciler) applier(sync *v1.GitSync) (*Applier, error) {
	account := cmp.Or(sync.Spec.ServiceAccountName, r.options.DefaultServiceAccount)
	return NewApplier(r.Config, r.Live, r.Client.Scheme(), r.Client.RESTMapper(), sync.Namespace, account)
}

func (r *Reconciler) scope(kind schema.GroupVersionKind) (namespaced, known bool, err error) {
	mapping, err := r.Client.RESTMapper().RESTMapping(kind.GroupKind(), kind.Version)
	if meta.IsNoMatchError(err) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("look up kind %s: %w", kind.Kind, err)
	}
	return mapping.Scope.Name() == meta.RESTScopeNameNamespace, true, nil
}

// applied makes an attempt of what came of a commit.
func applied(source Source, commit string, outcome Outcome, err error) attempt {
	name := revisionName(source.Ref, commit)
	content, pruning := new(ContentError), new(pruneError)
	switch {
	case err == nil && len(outcome.Held) > 0:
		message := fmt.Sprintf("Revision %s is applied but for: %s", name, strings.Join(outcome.Held, "; "))
		return attempt{reason: v1.ReasonHeldBack, message: message, commit: commit, outcome: outcome}
	case errors.As(err, &pruning):
		return attempt{reason: v1.ReasonPruneFailed, message: fmt.Sprintf("Revision %s: %v", name, err), commit: commit, outcome: outcome, retry: true}
	case err == nil:
		return attempt{reason: v1.ReasonApplied, message: "Applied revision " + name, commit: commit, outcome: outcome}
	case errors.As(err, &content):
		return attempt{reason: v1.ReasonInvalidContent, message: fmt.Sprintf("Revision %s: %v", name, err), commit: commit, outcome: outcome, stalled: true}
	default:
		return attempt{reason: v1.ReasonApplyFailed, message: fmt.Sprintf("Revision %s: %v", name, err), commit: commit, outcome: outcome, retry: true}
	}
}

// record writes status when there is something to tell, and events once that has succeeded.
func (r *Reconciler) record(ctx context.Context, sync *v1.GitSync, done attempt) error {
	before, now := sync.Status, metav1.NewMicroTime(r.Clock.Now())
	err := r.writeStatus(ctx, sync, func() (v1.GitSyncStatus, bool) { return nextStatus(sync, done, now) })
	if err != nil {
		return err
	}
	observeSync(client.ObjectKeyFromObject(sync), sync.Status, done.reason)
	r.tell(ctx, sync, before, done)
	return nil
}

// announce writes into the inventory what a revision brings, ahead of it: an operator that ends before it has recorded what it
// applied, and finds another revision when it is back, knows what to prune all the same.
func (r *Reconciler) announce(ctx context.Context, sync *v1.GitSync, manifests []Manifest) error {
	return r.writeStatus(ctx, sync, func() (next v1.GitSyncStatus, changed bool) {
		next = *sync.Status.DeepCopy()
		next.Inventory, changed = announced(sync.Status.Inventory, manifests)
		return next, changed
	})
}

// writeStatus writes what next makes of the GitSync's status, if that changes it.
func (r *Reconciler) writeStatus(ctx context.Context, sync *v1.GitSync, next func() (status v1.GitSyncStatus, changed bool)) error {
	for tries := 1; ; tries++ {
		status, changed := next()
		if !changed {
			return nil
		}
		base := sync.DeepCopy()
		sync.Status = status
		err := r.Client.Status().Patch(ctx, sync, client.MergeFromWithOptions(base, client.MergeFromWithOptimisticLock{}))
		if err == nil {
			return nil
		}
		sync.Status = base.Status
		if !apierrors.IsConflict(err) || tries == recordTries || !r.catchUp(ctx, sync) {
			return fmt.Errorf("write status: %w", err)
		}
	}
}

// catchUp takes over a newer version of a GitSync if nobody but a webhook has written into its status: what the pass came to holds
// all the same, and what it applied must get into the inventory before another revision comes. Otherwise another actor was
// faster, and our pass counts for nothing.
func (r *Reconciler) catchUp(ctx context.Context, sync *v1.GitSync) bool {
	live := &v1.GitSync{}
	if err := r.Live.Get(ctx, client.ObjectKeyFromObject(sync), live); err != nil || live.UID != sync.UID {
		return false
	}
	ours := live.Status.DeepCopy()
	ours.LastDelivery, ours.FetchRequested = sync.Status.LastDelivery, sync.Status.FetchRequested
	if !equality.Semantic.DeepEqual(*ours, sync.Status) {
		return false
	}
	sync.Status, sync.ResourceVersion = live.Status, live.ResourceVersion
	return true
}

// tell emits the events of an attempt. before is the status that it found.
func (r *Reconciler) tell(ctx context.Context, sync *v1.GitSync, before v1.GitSyncStatus, done attempt) {
	emit := func(kind, reason, note string) {
		r.Events.Eventf(sync, nil, kind, reason, "Sync", "%s", oneLine(note, maxNote))
		log.FromContext(ctx).Info(note, "reason", reason)
	}
	if command := sync.Annotations[v1.CommandAnnotation]; command != "" && command != before.LastCommand && done.reason != v1.ReasonFetching {
		if problem := commandProblem(command, sync.Spec.Suspend); problem != "" {
			emit(corev1.EventTypeWarning, "CommandIgnored", problem)
		}
	}
	if pruned := done.outcome.Pruned; pruned != nil {
		tellPruned(emit, pruned, before, sync.Status)
	}
	ready := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionReady)
	switch {
	case done.reason == v1.ReasonFetching:
	case transition(before, done) && (done.applied() || done.reason == v1.ReasonSuspended):
		emit(corev1.EventTypeNormal, done.reason, ready.Message)
	case transition(before, done):
		emit(corev1.EventTypeWarning, done.reason, ready.Message)
	case done.applied() && len(done.outcome.Changed) > 0 && before.ObservedGeneration == sync.Generation:
		note := fmt.Sprintf("Put back as in revision %.7s: %s", done.commit, strings.Join(done.outcome.Changed, ", "))
		if disputed := done.outcome.Disputed; disputed != "" {
			emit(corev1.EventTypeWarning, "DriftCorrected", disputed+". "+note)
			break
		}
		emit(corev1.EventTypeNormal, "DriftCorrected", note)
	}
}

// commandProblem says why a command can not be followed, if so. "sync <nonce>" needs no code of its own: every pass syncs.
func commandProblem(command string, suspended bool) string {
	verb, _, _ := strings.Cut(command, " ")
	switch {
	case verb != "sync":
		return fmt.Sprintf("Command %q ignored: a GitSync knows only sync", command)
	case suspended:
		return fmt.Sprintf("Command %q ignored: spec.suspend is true", command)
	}
	return ""
}
