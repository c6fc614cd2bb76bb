package gitsync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fluxcd/pkg/ssa"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// FieldManager owns what GitSyncs apply.
const FieldManager = "sluice-gitsync"

const (
	// dryRuns are in flight at a time for one revision.
	dryRuns = 8
	// shownProblems of a revision are told at once.
	shownProblems = 5
)

// Applier writes revisions as one service account.
type Applier struct {
	client  client.Client
	manager *ssa.ResourceManager
	routing *Routing
	// announce is told of a revision that was tried, before any of it is written; nil: nobody need know.
	announce func(context.Context, []Manifest) error
}

// NewApplier impersonates the service account for all that it reads and writes, but for the Rollouts that drive an object, which
// it reads from live. The account's RBAC is what a revision may touch.
func NewApplier(config *rest.Config, live client.Reader, scheme *runtime.Scheme, mapper meta.RESTMapper, namespace, account string) (*Applier, error) {
	config = rest.CopyConfig(config)
	config.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + namespace + ":" + account}
	config.WarningHandler = rest.NoWarnings{}
	config.WarningHandlerWithContext = nil
	plain, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("act as service account %s/%s: %w", namespace, account, err)
	}
	// As with kubectl apply, a misspelt field is an error and not dropped in silence.
	strict := client.WithFieldValidation(plain, metav1.FieldValidationStrict)
	manager := ssa.NewResourceManager(strict, nil, ssa.Owner{Field: FieldManager, Group: v1.GroupVersion.Group})
	return &Applier{client: strict, manager: manager, routing: &Routing{Client: strict, Operator: live}}, nil
}

// Outcome is what an apply did.
type Outcome struct {
	// Applied are the objects that are as the revision wants them.
	Applied []v1.InventoryEntry
	// Changed are those of them that were written, as people name them.
	Changed []string
	// Disputed says which of them another GitSync applies as well, and otherwise; empty: none that is known.
	Disputed string
	// Held are left as they are, for the sake of what a Rollout drives: where they stand, and why.
	Held []string
	// Pruned is set once the revision was applied whole.
	Pruned *Pruned
}

// Apply tries the whole revision on the API server before it writes any of it, and writes only what differs.
// What needs a namespace or a kind that the revision itself brings is tried as soon as that is there.
// An error of the trial is a ContentError where the revision is at fault.
func (a *Applier) Apply(ctx context.Context, manifests []Manifest) (Outcome, error) {
	manifests = inOrder(manifests)
	tried, err := a.tryAll(ctx, manifests, bringsOf(manifests))
	if err != nil {
		return Outcome{}, fmt.Errorf("nothing was applied: %w", err)
	}
	if a.announce != nil {
		if err := a.announce(ctx, manifests); err != nil {
			return Outcome{}, fmt.Errorf("nothing was applied: %w", err)
		}
	}
	var outcome Outcome
	first := func(t trial) bool { return isDefinition(t.Object) }
	if err := a.writeAll(ctx, tried, first, &outcome); err != nil {
		return outcome, err
	}
	if tried, err = a.tryDeferred(ctx, tried); err != nil {
		return outcome, fmt.Errorf("nothing but its namespaces and CustomResourceDefinitions was applied: %w", err)
	}
	return outcome, a.writeAll(ctx, tried, func(t trial) bool { return !isDefinition(t.Object) }, &outcome)
}

// trial is a manifest and what its dry-run told.
type trial struct {
	Manifest
	differs  bool
	deferred bool
	problem  error
	held     *HeldError
}

// tryAll dry-runs manifests and reports all that are refused, in the order of their files.
func (a *Applier) tryAll(ctx context.Context, manifests []Manifest, brings brought) ([]trial, error) {
	tried := make([]trial, len(manifests))
	var group errgroup.Group
	group.SetLimit(dryRuns)
	for i, manifest := range manifests {
		group.Go(func() error {
			tried[i] = a.try(ctx, manifest, brings)
			return nil
		})
	}
	_ = group.Wait() // each trial holds its own error
	return tried, problemsOf(tried)
}

func (a *Applier) try(ctx context.Context, manifest Manifest, brings brought) trial {
	differs, err := a.differs(ctx, manifest)
	held := new(HeldError)
	switch {
	case err == nil:
		return trial{Manifest: manifest, differs: differs}
	case errors.As(err, &held):
		return trial{Manifest: manifest, held: held}
	case brings.explain(manifest.Object, err):
		return trial{Manifest: manifest, deferred: true}
	default:
		return trial{Manifest: manifest, problem: err}
	}
}

// differs asks the API server what applying a manifest would change.
func (a *Applier) differs(ctx context.Context, manifest Manifest) (bool, error) {
	if IsRouting(manifest.Object) {
		return a.routing.Try(ctx, manifest.Object)
	}
	entry, _, _, err := a.manager.Diff(ctx, manifest.Object.DeepCopy(), ssa.DefaultDiffOptions())
	if err != nil || entry.Action == ssa.UnchangedAction {
		return false, err
	}
	return true, a.readable(ctx, manifest.Object)
}

// readable is nil for an object that was read, or is not there. Diff takes one that can not be read for one that differs: it
// would be written in each pass.
func (a *Applier) readable(ctx context.Context, object *unstructured.Unstructured) error {
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(object.GroupVersionKind())
	return client.IgnoreNotFound(a.client.Get(ctx, client.ObjectKeyFromObject(object), live))
}

func (a *Applier) tryDeferred(ctx context.Context, tried []trial) ([]trial, error) {
	var deferred []Manifest
	kept := slices.DeleteFunc(slices.Clone(tried), func(t trial) bool {
		if t.deferred {
			deferred = append(deferred, t.Manifest)
		}
		return t.deferred
	})
	if len(deferred) == 0 {
		return tried, nil
	}
	late, err := a.tryAll(ctx, deferred, brought{})
	return append(kept, late...), err
}

// problemsOf makes one error of all refusals.
func problemsOf(tried []trial) error {
	refused := slices.DeleteFunc(slices.Clone(tried), func(t trial) bool { return t.problem == nil })
	if len(refused) == 0 {
		return nil
	}
	slices.SortStableFunc(refused, func(x, y trial) int { return compareManifests(x.Manifest, y.Manifest) })
	var texts []string
	content := true
	for i, t := range refused {
		content = content && isContentProblem(t.problem)
		if i < shownProblems {
			texts = append(texts, fmt.Sprintf("%s: %s: %s", t.Where(), describe(t.Object), publicReason(t.Object, t.problem)))
		}
	}
	if more := len(refused) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	err := errors.New(strings.Join(texts, "; "))
	if content {
		return &ContentError{Err: err}
	}
	return err
}

// isContentProblem tells whether another commit is what heals an error, rather than another permission or another try.
func isContentProblem(err error) bool {
	// An unknown or mistyped field is an internal error to the API server when it merges an apply patch.
	unmergeable := apierrors.IsInternalError(err) || apierrors.ReasonForError(err) == metav1.StatusReasonUnknown
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) ||
		(unmergeable && strings.Contains(reasonOf(err), "failed to create typed patch object"))
}

// reasonOf is the API server's own sentence.
func reasonOf(err error) string {
	if meta.IsNoMatchError(err) {
		return errNoKind.Error()
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		return status.Status().Message
	}
	return err.Error()
}

// publicReason is reasonOf without what a Secret holds: the API server quotes values that it can not read, and keys, which lines of
// a file may have become. It adds what to do where a version is changed in place.
func publicReason(object *unstructured.Unstructured, err error) string {
	reason := reasonOf(err)
	switch {
	case strings.Contains(reason, "spec.selector: ") && strings.Contains(reason, "field is immutable"):
		return reason + `: give each version a workload of its own, as docs/gitsync.md shows under "One Deployment, a new one for each version"`
	case object.GetKind() != "Secret":
	case strings.Contains(reason, "expected string"):
		return "every value of a Secret's data and stringData must be a string: quote numbers and booleans"
	case strings.Contains(reason, ": expected "):
		return "a Secret's data and stringData must be mappings of keys to strings"
	case strings.Contains(reason, "data["):
		return "each key of a Secret's data must consist of letters, digits, '-', '_' and '.', and fit its type"
	}
	return reason
}

// writeAll applies those that differ and that pick chooses, one by one, and waits until definitions work.
func (a *Applier) writeAll(ctx context.Context, tried []trial, pick func(trial) bool, outcome *Outcome) error {
	for _, t := range tried {
		if t.deferred || !pick(t) {
			continue
		}
		wrote, held := false, t.held
		if t.differs {
			var err error
			if wrote, err = a.write(ctx, t); err != nil && !errors.As(err, &held) {
				return fmt.Errorf("%s: %s: %s", t.Where(), describe(t.Object), publicReason(t.Object, err))
			}
		}
		if held != nil {
			outcome.Held = append(outcome.Held, fmt.Sprintf("%s: %s is held back: %s", t.Where(), describe(t.Object), held.Why))
			continue
		}
		if wrote {
			outcome.Changed = append(outcome.Changed, describe(t.Object))
		}
		outcome.Applied = append(outcome.Applied, entryFor(t.Object))
	}
	return nil
}

func (a *Applier) write(ctx context.Context, t trial) (wrote bool, err error) {
	if IsRouting(t.Object) {
		return a.routing.Apply(ctx, t.Object)
	}
	entry, err := a.manager.Apply(ctx, t.Object.DeepCopy(), ssa.DefaultApplyOptions())
	if err != nil {
		return false, err
	}
	wrote = entry.Action != ssa.UnchangedAction
	if kind, _, ok := definition(t.Object); ok {
		return wrote, a.awaitKind(ctx, t.Object, kind)
	}
	return wrote, nil
}

// awaitKind returns when the API server serves the kind of a CustomResourceDefinition.
func (a *Applier) awaitKind(ctx context.Context, definition *unstructured.Unstructured, kind schema.GroupKind) error {
	const interval, timeout = 100 * time.Millisecond, 30 * time.Second
	err := wait.PollUntilContextTimeout(ctx, interval, timeout, true, func(ctx context.Context) (bool, error) {
		live := definition.DeepCopy()
		if err := a.client.Get(ctx, client.ObjectKeyFromObject(definition), live); err != nil {
			return false, err
		}
		if !established(live) {
			return false, nil
		}
		_, err := a.client.RESTMapper().RESTMapping(kind)
		return err == nil, nil
	})
	if err != nil {
		return fmt.Errorf("wait for kind %s: %w", kind, err)
	}
	return nil
}

func established(definition *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(definition.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		fields, _ := c.(map[string]any)
		return fields["type"] == "Established" && fields["status"] == "True"
	})
}

// inOrder sorts manifests as Flux does: what others refer to first.
func inOrder(manifests []Manifest) []Manifest {
	byObject := map[*unstructured.Unstructured]Manifest{}
	objects := make(ssa.SortableUnstructureds, len(manifests))
	for i, manifest := range manifests {
		objects[i], byObject[manifest.Object] = manifest.Object, manifest
	}
	slices.SortStableFunc(objects, func(x, y *unstructured.Unstructured) int {
		pair := ssa.SortableUnstructureds{x, y}
		switch {
		case pair.Less(0, 1):
			return -1
		case pair.Less(1, 0):
			return 1
		default:
			return 0
		}
	})
	sorted := make([]Manifest, len(manifests))
	for i, object := range objects {
		sorted[i] = byObject[object]
	}
	return sorted
}

// isDefinition tells whether other objects of a revision can depend on this one's existence.
func isDefinition(object *unstructured.Unstructured) bool {
	_, _, ok := definition(object)
	return ok || isNamespace(object)
}

func isNamespace(object *unstructured.Unstructured) bool {
	return object.GetKind() == "Namespace" && object.GetAPIVersion() == "v1"
}

// brought are the namespaces and kinds that a revision itself brings.
type brought struct {
	namespaces map[string]bool
	kinds      map[schema.GroupKind]bool
}

func bringsOf(manifests []Manifest) brought {
	b := brought{namespaces: map[string]bool{}, kinds: map[schema.GroupKind]bool{}}
	for _, manifest := range manifests {
		if isNamespace(manifest.Object) {
			b.namespaces[manifest.Object.GetName()] = true
		}
		if kind, _, ok := definition(manifest.Object); ok {
			b.kinds[kind] = true
		}
	}
	return b
}

// explain tells whether a failed dry-run of object only means that what the revision brings is not there yet.
func (b brought) explain(object *unstructured.Unstructured, err error) bool {
	if meta.IsNoMatchError(err) {
		return b.kinds[object.GroupVersionKind().GroupKind()]
	}
	return apierrors.IsNotFound(err) && (b.namespaces[object.GetNamespace()] || b.kinds[object.GroupVersionKind().GroupKind()])
}
