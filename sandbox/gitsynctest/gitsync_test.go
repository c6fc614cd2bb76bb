package gitsynctest

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

const rollout = `apiVersion: sluice.dev/v1
kind: Rollout
metadata: {name: reviews}
spec: {host: reviews, version: v1}
`

func TestApply(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	first := w.push("deploy/a.yaml", configMap("a", "1")+"---\n"+configMap("b", "1"), "deploy/sub/rollout.yml", rollout, "elsewhere/c.yaml", configMap("c", "1"))
	w.sync(nil)
	sync := w.applied(first)

	want := []v1.InventoryEntry{
		{Version: "v1", Kind: "ConfigMap", Namespace: w.namespace, Name: "a"},
		{Version: "v1", Kind: "ConfigMap", Namespace: w.namespace, Name: "b"},
		{Group: "sluice.dev", Version: "v1", Kind: "Rollout", Namespace: w.namespace, Name: "reviews"},
	}
	if diff := cmp.Diff(want, sync.Status.Inventory); diff != "" {
		t.Errorf("inventory (-want +got):\n%s", diff)
	}
	if sync.Status.ObservedGeneration != sync.Generation || sync.Status.LastFetch == nil {
		t.Errorf("observedGeneration %d of %d, lastFetch %v", sync.Status.ObservedGeneration, sync.Generation, sync.Status.LastFetch)
	}
	if c := sync.Status.Conditions; len(c) != 1 || c[0].Status != metav1.ConditionTrue {
		t.Errorf("conditions %+v, want Ready alone", c)
	}
	applied := &v1.Rollout{}
	w.must(admin.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "reviews"}, applied))
	if got := applied.Annotations[v1.RevisionAnnotation]; got != first {
		t.Errorf("the Rollout says revision %q, want %s", got, first)
	}
	a, err := w.configMap("a")
	w.must(err)
	if _, marked := a.Annotations[v1.RevisionAnnotation]; marked {
		t.Error("the revision is written on more than Rollouts")
	}
	if _, err := w.configMap("c"); !apierrors.IsNotFound(err) {
		t.Errorf("a manifest outside the path: %v, want it not found", err)
	}

	second := w.push("deploy/a.yaml", configMap("a", "2")+"---\n"+configMap("b", "1"))
	w.applied(second)
	if a, err = w.configMap("a"); err != nil || a.Data["key"] != "2" {
		t.Errorf("after the push: %v, %v", a.Data, err)
	}
	w.eventually("one event for each revision", func(context.Context) error {
		if diff := cmp.Diff(map[string]int{"Applied": 2}, w.events()); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

// passes waits until the Git server has been asked n more times, so that what would have happened has.
func (w *world) passes(n int) {
	w.t.Helper()
	asked := make(chan struct{}, 100)
	setFailure(w.namespace, func(git http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			asked <- struct{}{}
			git.ServeHTTP(rw, r)
		})
	})
	for range n {
		select {
		case <-asked:
		case <-w.t.Context().Done():
			w.t.Fatal("no pass")
		}
	}
	setFailure(w.namespace, nil)
}

func TestNoNoiseAndDrift(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	commit := w.push("deploy/a.yaml", configMap("a", "1"), "deploy/rollout.yaml", rollout)
	w.sync(nil)
	before := w.applied(commit)
	a, err := w.configMap("a")
	w.must(err)
	w.passes(3)
	if after := w.get(); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("passes that found nothing wrote the GitSync: %s", cmp.Diff(before.Status, after.Status))
	}
	if again, err := w.configMap("a"); err != nil || again.ResourceVersion != a.ResourceVersion {
		t.Errorf("passes that found nothing wrote an object: %v", err)
	}

	a.Data["key"] = "edited by hand"
	w.must(admin.Update(t.Context(), a))
	w.eventually("the edit to be put back", func(context.Context) error {
		if a, err = w.configMap("a"); err != nil || a.Data["key"] != "1" {
			return fmt.Errorf("%v, %w", a.Data, err)
		}
		return nil
	})
	w.must(admin.Delete(t.Context(), a))
	w.eventually("the deleted object to be made again", func(context.Context) error {
		_, err := w.configMap("a")
		return err
	})
	w.eventually("events", func(context.Context) error {
		if got := w.events(); got["DriftCorrected"] != 2 || got["Applied"] != 1 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// One bad file is named and nothing of its revision is applied.
func TestBadRevisions(t *testing.T) {
	for name, tc := range map[string]struct {
		file, content string
		reason, want  string
	}{
		"syntax":     {"deploy/bad.yaml", "a: [", v1.ReasonInvalidContent, "deploy/bad.yaml (document 1)"},
		"schema":     {"deploy/bad.yaml", strings.Replace(rollout, "version: v1", "version: v1, steps: [{name: a, weight: 200}]", 1), v1.ReasonInvalidContent, "deploy/bad.yaml (document 1): Rollout"},
		"misspelt":   {"deploy/bad.yaml", strings.Replace(rollout, "version: v1", "version: v1, typo: v2", 1), v1.ReasonInvalidContent, "spec.typo"},
		"kind":       {"deploy/bad.yaml", "apiVersion: example.com/v1\nkind: Nothing\nmetadata: {name: x}\n", v1.ReasonApplyFailed, "deploy/bad.yaml (document 1): Nothing NAMESPACE/x: the cluster serves no such kind"},
		"twice":      {"deploy/bad.yaml", configMap("good", "2"), v1.ReasonInvalidContent, "stands in deploy/bad.yaml (document 1) as well"},
		"command":    {"deploy/bad.yaml", strings.Replace(rollout, "name: reviews", "name: reviews, annotations: {sluice.dev/command: promote v1 1}", 1), v1.ReasonInvalidContent, "sluice.dev/command is refused"},
		"empty":      {"other.yaml", "", v1.ReasonInvalidContent, "an empty revision is neither applied nor pruned"},
		"gone":       {"other.yaml", "", v1.ReasonInvalidContent, `path "deploy" is not there`},
		"kustomized": {"deploy/kustomization.yaml", "resources: [good.yaml, 'https://example.com/x.yaml']", v1.ReasonInvalidContent, "deploy/kustomization.yaml: resources[1]"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.allow("default", "*")
			first := w.push("deploy/good.yaml", configMap("good", "1"))
			w.sync(nil)
			w.applied(first)
			w.must(w.work.Write(t.Context(), "deploy/good.yaml", configMap("good", "2")))
			w.must(w.work.Write(t.Context(), "deploy/new.yaml", configMap("new", "2")))
			if name == "gone" || name == "empty" {
				_, err := w.work.Git(t.Context(), "rm", "-r", "--quiet", "--force", "deploy")
				w.must(err)
			}
			if name == "empty" {
				w.must(w.work.Write(t.Context(), "deploy/README.md", "nothing"))
			}
			bad := w.push(tc.file, tc.content)
			sync := w.ready(tc.reason, strings.ReplaceAll(tc.want, "NAMESPACE", w.namespace))
			if sync.Status.Revision != first || sync.Status.AttemptedRevision != bad {
				t.Errorf("revision %s, attempted %s, want %s and %s", sync.Status.Revision, sync.Status.AttemptedRevision, first, bad)
			}
			if stalled := meta.IsStatusConditionTrue(sync.Status.Conditions, v1.ConditionStalled); stalled != (tc.reason == v1.ReasonInvalidContent) {
				t.Errorf("Stalled: %t", stalled)
			}
			good, err := w.configMap("good")
			if err != nil || good.Data["key"] != "1" {
				t.Errorf("a good file of a bad revision was applied: %v, %v", good.Data, err)
			}
			if _, err := w.configMap("new"); !apierrors.IsNotFound(err) {
				t.Errorf("a new file of a bad revision: %v, want it not found", err)
			}
		})
	}
}

func TestImpersonation(t *testing.T) {
	w := newWorld(t)
	w.allow("deployer", "configmaps")
	w.push("deploy/a.yaml", configMap("a", "1"))
	w.sync(nil)
	w.ready(v1.ReasonApplyFailed, `User "system:serviceaccount:`+w.namespace+`:default" cannot`)
	w.edit(func(s *v1.GitSync) { s.Spec.ServiceAccountName = "deployer" })
	w.ready(v1.ReasonApplied, "")

	w.push("deploy/b.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n", "deploy/other.yaml",
		strings.Replace(configMap("x", "1"), "name: x", "name: x\n  namespace: default", 1))
	sync := w.ready(v1.ReasonApplyFailed, "deploy/b.yaml (document 1): Secret "+w.namespace+"/s")
	if message := sync.Status.Conditions[0].Message; !strings.Contains(message, "deploy/other.yaml (document 1): ConfigMap default/x") {
		t.Errorf("a forbidden namespace is not named: %s", message)
	}
	// It heals by permission alone, without a push.
	_, err := w.work.Git(t.Context(), "rm", "--quiet", "deploy/other.yaml")
	w.must(err)
	commit := w.push()
	w.ready(v1.ReasonApplyFailed, commit[:7])
	w.allow("more", "secrets")
	w.edit(func(s *v1.GitSync) { s.Spec.ServiceAccountName = "more" })
	w.ready(v1.ReasonApplyFailed, "configmaps")
}

// A service account that may write and not read is told so before it writes anything, rather than having all written again and
// again.
func TestWithoutTheRightToRead(t *testing.T) {
	w := newWorld(t)
	rule := rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create", "patch"}}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "default"}, Rules: []rbacv1.PolicyRule{rule}}
	w.must(admin.Create(t.Context(), role))
	w.must(admin.Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "default"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "default"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: w.namespace, Name: "default"}},
	}))
	commit := w.push("deploy/a.yaml", configMap("a", "1"))
	w.sync(nil)
	const refusal = `cannot get resource "configmaps"`
	w.ready(v1.ReasonApplyFailed, refusal)
	if _, err := w.configMap("a"); !apierrors.IsNotFound(err) {
		t.Errorf("a was written: %v", err)
	}
	allowed := role.DeepCopy()
	allowed.Rules[0].Verbs = append(allowed.Rules[0].Verbs, "get")
	w.must(admin.Update(t.Context(), allowed))
	w.applied(commit)
	// Lost later, with the object there as Git wants it.
	allowed.Rules[0].Verbs = rule.Verbs
	w.must(admin.Update(t.Context(), allowed))
	w.ready(v1.ReasonApplyFailed, refusal)
	if drift := w.events()["DriftCorrected"]; drift > 0 {
		t.Errorf("%d times drift was told of that is none", drift)
	}
}

// Namespaces and kinds that a revision brings itself come first.
func TestDefinitions(t *testing.T) {
	w := newWorld(t)
	w.must(admin.Create(t.Context(), clusterAdmin(w.namespace)))
	commit := w.push("deploy/a.yaml", strings.NewReplacer("NAMESPACE", w.namespace).Replace(`apiVersion: NAMESPACE.example.com/v1
kind: Widget
metadata: {name: w}
spec: {size: 1}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: x, namespace: NAMESPACE-new}
---
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE-new}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.NAMESPACE.example.com}
spec:
  group: NAMESPACE.example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets}
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}
`))
	w.sync(nil)
	if sync := w.applied(commit); len(sync.Status.Inventory) != 4 {
		t.Errorf("inventory: %+v", sync.Status.Inventory)
	}
}

// What a revision defines itself is there before the rest can be tried: a refusal then does not say that nothing was applied.
func TestRefusedAfterItsDefinitions(t *testing.T) {
	w := newWorld(t)
	w.must(admin.Create(t.Context(), clusterAdmin(w.namespace)))
	w.push("deploy/a.yaml", "{apiVersion: v1, kind: Namespace, metadata: {name: "+w.namespace+"-new}}\n---\n"+
		"{apiVersion: v1, kind: ConfigMap, metadata: {name: x, namespace: "+w.namespace+"-new}, data: {\"no key!\": b}}\n---\n"+configMap("a", "1"))
	w.sync(nil)
	sync := w.ready(v1.ReasonInvalidContent, "nothing but its namespaces and CustomResourceDefinitions was applied: deploy/a.yaml (document 2)")
	pending := 0
	for _, entry := range sync.Status.Inventory {
		if entry.Pending {
			pending++
		}
	}
	if len(sync.Status.Inventory) != 3 || pending != 2 || !w.configMapGone("a") {
		t.Errorf("inventory %+v, want the namespace applied and the others pending", sync.Status.Inventory)
	}
}

func TestCommandAndSuspend(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	first := w.push("deploy/a.yaml", configMap("a", "1"))
	w.sync(func(s *v1.GitSync) { s.Spec.Interval = nil }) // a minute: what happens sooner is due to the command
	w.applied(first)
	second := w.push("deploy/a.yaml", configMap("a", "2"))
	command := func(c string) {
		w.edit(func(s *v1.GitSync) { s.Annotations = map[string]string{v1.CommandAnnotation: c} })
		w.eventually("the echo of "+c, func(context.Context) error {
			if got := w.get().Status.LastCommand; got != c {
				return fmt.Errorf("lastCommand is %q", got)
			}
			return nil
		})
	}
	command("sync 1")
	if got := w.get().Status.Revision; got != second {
		t.Errorf("revision %s when the command was echoed, want %s", got, second)
	}
	command("approve v1 2")
	w.edit(func(s *v1.GitSync) { s.Spec.Suspend = true })
	sync := w.ready(v1.ReasonSuspended, "revision "+second[:7]+" stays applied")
	if !meta.IsStatusConditionTrue(sync.Status.Conditions, v1.ConditionReady) || sync.Status.ObservedGeneration != sync.Generation {
		t.Errorf("suspended: %+v", sync.Status)
	}
	third := w.push("deploy/a.yaml", configMap("a", "3"))
	command("sync 3")
	if a, err := w.configMap("a"); err != nil || a.Data["key"] != "2" {
		t.Errorf("applied while suspended: %v, %v", a.Data, err)
	}
	w.edit(func(s *v1.GitSync) { s.Spec.Suspend = false })
	w.applied(third)
	w.eventually("events", func(context.Context) error {
		if diff := cmp.Diff(map[string]int{"Applied": 3, "CommandIgnored": 2, "Suspended": 1}, w.events()); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}

func TestSecret(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	commit := w.push("deploy/a.yaml", configMap("a", "1"))
	setFailure(w.namespace, func(git http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if user, password, _ := r.BasicAuth(); user != "ada" || password != "right-password" {
				http.Error(rw, "", http.StatusUnauthorized)
				return
			}
			git.ServeHTTP(rw, r)
		})
	})
	w.sync(nil)
	w.ready(v1.ReasonFetchFailed, "set secretRef")
	w.edit(func(s *v1.GitSync) { s.Spec.SecretRef = &v1.LocalReference{Name: "git"} })
	w.ready(v1.ReasonFetchFailed, "there is no Secret git")
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "git"}, StringData: map[string]string{"username": "ada", "password": "wrong-password"}}
	w.must(admin.Create(t.Context(), secret))
	w.ready(v1.ReasonFetchFailed, "refuses the credentials")
	secret.StringData = map[string]string{"password": "right-password"}
	w.must(admin.Update(t.Context(), secret))
	w.applied(commit)
	if text := fmt.Sprintf("%+v", w.get().Status); strings.Contains(text, "-password") {
		t.Error("a password stands in the status")
	}
}

// A server that fails or hangs changes nothing that is applied, and holds up nobody else.
func TestServerFails(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	commit := w.push("deploy/a.yaml", configMap("a", "1"))
	w.sync(nil)
	w.applied(commit)
	setFailure(w.namespace, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "", http.StatusInternalServerError) })
	})
	sync := w.ready(v1.ReasonFetchFailed, "revision "+commit[:7]+" stays applied")
	if sync.Status.Revision != commit || !meta.IsStatusConditionTrue(sync.Status.Conditions, v1.ConditionReconciling) {
		t.Errorf("status %+v", sync.Status)
	}
	w.must(admin.Create(t.Context(), clone(sync, "second")))
	setFailure(w.namespace, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	})
	healthy := w.another("healthy")
	w.must(admin.Create(t.Context(), healthy))
	w.eventually("a GitSync beside two that hang", func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(healthy), healthy); err != nil || healthy.Status.Revision == "" {
			return fmt.Errorf("%+v, %w", healthy.Status, err)
		}
		return nil
	})
	w.ready(v1.ReasonFetchFailed, "no complete answer within "+fetchTimeout.String())
	setFailure(w.namespace, nil)
	w.applied(commit)
}

func TestInvalidSource(t *testing.T) {
	w := newWorld(t)
	w.sync(func(s *v1.GitSync) { s.Spec.URL = "http://169.254.169.254/latest" })
	sync := w.ready(v1.ReasonInvalidSource, "169.254.169.254 is refused")
	if !meta.IsStatusConditionTrue(sync.Status.Conditions, v1.ConditionStalled) {
		t.Errorf("conditions %+v, want Stalled", sync.Status.Conditions)
	}
	w.must(admin.Delete(t.Context(), sync))
}
