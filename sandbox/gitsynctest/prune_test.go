package gitsynctest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

func metaReason(err error) metav1.StatusReason { return apierrors.ReasonForError(err) }

// ignoreEnd leaves out what an end of the context brings.
func ignoreEnd(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// remove takes files out of the repository and pushes.
func (w *world) remove(paths ...string) (commit string) {
	w.t.Helper()
	_, err := w.work.Git(w.t.Context(), append([]string{"rm", "--quiet"}, paths...)...)
	w.must(err)
	return w.push()
}

func (w *world) gone(object client.Object, name string) bool {
	w.t.Helper()
	err := admin.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, object)
	w.must(client.IgnoreNotFound(err))
	return err != nil
}

func (w *world) configMapGone(name string) bool {
	_, err := w.configMap(name)
	w.must(client.IgnoreNotFound(err))
	return err != nil
}

func TestPrune(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	first := w.push("deploy/a.yaml", configMap("a", "1"), "deploy/b.yaml", configMap("b", "1"), "deploy/c.yaml", configMap("c", "1"),
		"deploy/d.yaml", configMap("d", "1"), "deploy/keep.yaml", strings.Replace(configMap("keep", "1"), "name: keep", "name: keep\n  annotations: {sluice.dev/prune: disabled}", 1))
	w.sync(nil)
	w.applied(first)
	// A revision that is refused prunes nothing.
	_, err := w.work.Git(t.Context(), "rm", "--quiet", "deploy/b.yaml")
	w.must(err)
	w.push("deploy/bad.yaml", "a: [")
	w.ready(v1.ReasonInvalidContent, "bad.yaml")
	if w.configMapGone("b") {
		t.Error("a revision that was refused has pruned")
	}
	sync := w.applied(w.remove("deploy/bad.yaml", "deploy/keep.yaml"))
	if !w.configMapGone("b") || w.configMapGone("a") || w.configMapGone("keep") {
		t.Error("want b gone, a and keep there")
	}
	if len(sync.Status.Inventory) != 3 {
		t.Errorf("inventory %+v, want a, c and d", sync.Status.Inventory)
	}

	// Another GitSync applies c too: it stays, whoever comes to drop it first.
	other := clone(sync, "other")
	other.Spec.Path, other.Spec.Ref = "", &v1.GitRef{Commit: first}
	other.Spec.Path = "deploy"
	w.must(admin.Create(t.Context(), other))
	w.eventually("the other GitSync", func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(other), other); err != nil || other.Status.Revision != first {
			return fmt.Errorf("%+v, %w", other.Status, err)
		}
		return nil
	})
	w.applied(w.remove("deploy/c.yaml"))
	w.eventually("c to be released", func(context.Context) error {
		if got := w.events(); got["Released"] != 2 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
	if w.configMapGone("c") {
		t.Error("c is gone, which another GitSync applies")
	}

	w.edit(func(s *v1.GitSync) { s.Spec.Prune = ptr.To(false) })
	if sync = w.applied(w.remove("deploy/d.yaml")); w.configMapGone("d") || len(sync.Status.Inventory) != 1 {
		t.Errorf("without pruning: d is gone, or still in the inventory %+v", sync.Status.Inventory)
	}
}

// Rollouts go first, and nothing else goes before they are gone.
func TestRolloutsArePrunedFirst(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	finalizer := strings.Replace(rollout, "name: reviews", "name: reviews, finalizers: [sluice.dev/rollout]", 1)
	w.followed(w.push("deploy/a.yaml", configMap("a", "1"), "deploy/rollout.yaml", finalizer, "deploy/stay.yaml", configMap("stay", "1")))
	sync := w.applied(w.remove("deploy/a.yaml", "deploy/rollout.yaml"))
	pending := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionPrunePending)
	if pending == nil || !strings.Contains(pending.Message, "Rollout "+w.namespace+"/reviews takes its traffic back") {
		t.Fatalf("conditions %+v", sync.Status.Conditions)
	}
	w.passes(2)
	if w.configMapGone("a") {
		t.Error("a was pruned before the Rollout was gone")
	}
	r := &v1.Rollout{}
	w.must(admin.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "reviews"}, r))
	if r.DeletionTimestamp == nil {
		t.Error("the Rollout is not being deleted")
	}
	r.Finalizers = nil
	w.must(admin.Update(t.Context(), r))
	w.prunedAll()
	if !w.configMapGone("a") || w.configMapGone("stay") {
		t.Error("want a gone and stay there")
	}
}

// followed starts the GitSync and waits for the first revision.
func (w *world) followed(commit string) {
	w.t.Helper()
	w.sync(nil)
	w.applied(commit)
}

// prunedAll waits until nothing is pending.
func (w *world) prunedAll() {
	w.t.Helper()
	w.eventually("everything to be pruned", func(context.Context) error {
		if pending := meta.FindStatusCondition(w.get().Status.Conditions, v1.ConditionPrunePending); pending != nil {
			return errors.New(pending.Message)
		}
		return nil
	})
}

func deployment(version string) string {
	return strings.ReplaceAll(`apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-VERSION}
spec:
  selector: {matchLabels: {app: reviews, version: VERSION}}
  template:
    metadata: {labels: {app: reviews, version: VERSION}}
    spec: {containers: [{name: reviews, image: "reviews:VERSION"}]}
`, "VERSION", version)
}

const (
	service = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews}\nspec: {selector: {app: reviews}, ports: [{port: 80}]}\n"
	// promoted is the status after a run to v3 that ended at END.
	promoted = `
stable: v3
previous: v1
traffic: {stable: {version: v3, subset: v3, labels: {version: v3}}, weight: 0}
history: [{number: 1, from: v1, to: v3, verdict: Promoted, startedAt: "2026-03-01T11:00:00.000000Z", finishedAt: "END"}]
`
)

// Workloads that a Rollout needs stay until it does not need them any more, by time or by its own doing; then they go by themselves.
func TestPruneWaitsForTraffic(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	commit := w.push("deploy/v1.yaml", deployment("v1"), "deploy/v2.yaml", deployment("v2"), "deploy/v3.yaml", deployment("v3"), "deploy/service.yaml", service,
		"deploy/rollout.yaml", strings.NewReplacer("version: v1", "version: v3, keepPrevious: 10s").Replace(rollout))
	w.sync(func(s *v1.GitSync) { s.Spec.Interval = &metav1.Duration{Duration: time.Hour} }) // what happens again is due to pruning alone
	w.applied(commit)
	ends := time.Now()
	w.setStatus(strings.Replace(promoted, "END", ends.UTC().Format("2006-01-02T15:04:05.000000Z"), 1))
	again := func(commit string) *v1.GitSync {
		w.edit(func(s *v1.GitSync) { s.Annotations = map[string]string{v1.CommandAnnotation: "sync " + commit} })
		return w.applied(commit)
	}
	sync := again(w.remove("deploy/v1.yaml", "deploy/v2.yaml", "deploy/v3.yaml", "deploy/service.yaml"))
	pending := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionPrunePending)
	for _, want := range []string{
		"Deployment " + w.namespace + "/reviews-v1: v1 is its version before, which it keeps until", "reviews-v3: v3 is its stable version of Rollout reviews",
		"Service " + w.namespace + "/reviews: this is its host of Rollout reviews",
	} {
		if pending == nil || !strings.Contains(pending.Message, want) {
			t.Fatalf("%+v does not say %q", pending, want)
		}
	}
	if !meta.IsStatusConditionTrue(sync.Status.Conditions, v1.ConditionReady) || len(sync.Status.Inventory) != 4 {
		t.Errorf("status %+v", sync.Status)
	}
	if !w.gone(&appsv1.Deployment{}, "reviews-v2") {
		t.Error("reviews-v2 is still there, which no Rollout needs")
	}
	w.eventually("reviews-v1 to go by time", func(context.Context) error {
		if !w.gone(&appsv1.Deployment{}, "reviews-v1") {
			return errors.New("it is there")
		}
		return nil
	})
	if since := time.Since(ends); since < 10*time.Second {
		t.Errorf("reviews-v1 went %s after the run", since)
	}
	if w.gone(&appsv1.Deployment{}, "reviews-v3") {
		t.Error("the stable version is gone")
	}

	again(w.push("deploy/rollout.yaml", strings.Replace(rollout, "version: v1", "version: v4", 1)))
	if w.gone(&appsv1.Deployment{}, "reviews-v3") {
		t.Error("the stable version is gone")
	}
	w.setStatus(strings.NewReplacer("v3", "v4", "previous: v1", "previous: v4").Replace(strings.Replace(promoted, "END", "2026-03-01T12:00:00.000000Z", 1)))
	w.eventually("reviews-v3 to go with the Rollout's change", func(context.Context) error {
		if !w.gone(&appsv1.Deployment{}, "reviews-v3") {
			return errors.New("it is there")
		}
		return nil
	})
}

// What the service account may not delete is told, and pruned as soon as it may.
func TestPruneWithoutPermission(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "configmaps")
	w.allow("more", "configmaps", "secrets")
	commit := w.push("deploy/a.yaml", configMap("a", "1"), "deploy/b.yaml", configMap("b", "1"), "deploy/s.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")
	w.sync(func(s *v1.GitSync) { s.Spec.ServiceAccountName = "more" })
	w.applied(commit)
	w.edit(func(s *v1.GitSync) { s.Spec.ServiceAccountName = "default" })
	w.ready(v1.ReasonApplyFailed, "Secret")
	commit = w.remove("deploy/s.yaml", "deploy/b.yaml")
	sync := w.ready(v1.ReasonPruneFailed, "prune Secret "+w.namespace+"/s")
	if sync.Status.Revision != commit || len(sync.Status.Inventory) != 2 {
		t.Errorf("status %+v", sync.Status)
	}
	if !w.configMapGone("b") {
		t.Error("b, which may be deleted, is there")
	}
	w.edit(func(s *v1.GitSync) { s.Spec.ServiceAccountName = "more" })
	if sync = w.applied(commit); len(sync.Status.Inventory) != 1 {
		t.Errorf("inventory %+v", sync.Status.Inventory)
	}
}

// What becomes of a GitSync's objects when it is deleted.
func TestDeleteGitSync(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*v1.GitSync)
		stays  bool
	}{
		"by default": {change: func(*v1.GitSync) {}},
		"orphaning": {change: func(s *v1.GitSync) {
			s.Annotations = map[string]string{v1.DeletionPolicyAnnotation: v1.DeletionPolicyOrphan}
		}, stays: true},
		"suspended":    {change: func(s *v1.GitSync) { s.Spec.Suspend = true }, stays: true},
		"not pruning":  {change: func(s *v1.GitSync) { s.Spec.Prune = ptr.To(false) }, stays: true},
		"no more RBAC": {change: func(s *v1.GitSync) { s.Spec.ServiceAccountName = "nobody" }, stays: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.allow("default", "*")
			w.followed(w.push("deploy/a.yaml", configMap("a", "1"), "deploy/rollout.yaml", rollout, "deploy/service.yaml", service, "deploy/v1.yaml", deployment("v1")))
			w.edit(tc.change)
			w.must(admin.Delete(t.Context(), w.get()))
			w.eventually("the GitSync to go", func(context.Context) error {
				if !w.gone(&v1.GitSync{}, "sync") {
					return errors.New("it is there")
				}
				return nil
			})
			if w.configMapGone("a") == tc.stays || w.gone(&appsv1.Deployment{}, "reviews-v1") == tc.stays || w.gone(&v1.Rollout{}, "reviews") == tc.stays {
				t.Errorf("want all to stay: %t", tc.stays)
			}
		})
	}
}
