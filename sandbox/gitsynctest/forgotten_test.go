package gitsynctest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/gitsync"
)

// refuseRecording has the API server refuse each status of the world's GitSyncs that says that an object is applied, and that alone:
// as if the operator ended at this moment each time.
func (w *world) refuseRecording(name string) {
	w.t.Helper()
	meta := metav1.ObjectMeta{Name: w.namespace}
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
		MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{
			RuleWithOperations: admissionregistrationv1.RuleWithOperations{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Update},
				Rule:       admissionregistrationv1.Rule{APIGroups: []string{"sluice.dev"}, APIVersions: []string{"v1"}, Resources: []string{"gitsyncs/status"}},
			},
		}}},
		Validations: []admissionregistrationv1.Validation{{
			Expression: fmt.Sprintf("!has(object.status.inventory) || !object.status.inventory.exists(e, e.name == '%s' && !(has(e.pending) && e.pending))", name),
		}},
	}}
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta, Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: w.namespace, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		MatchResources: &admissionregistrationv1.MatchResources{NamespaceSelector: &metav1.LabelSelector{
			MatchLabels: map[string]string{corev1.LabelMetadataName: w.namespace},
		}},
	}}
	w.must(errors.Join(admin.Create(w.t.Context(), policy), admin.Create(w.t.Context(), binding)))
	w.t.Cleanup(func() {
		w.must(errors.Join(admin.Delete(context.Background(), binding), admin.Delete(context.Background(), policy)))
	})
	w.eventually("the API server to refuse", func(ctx context.Context) error {
		sync := w.get()
		base := sync.DeepCopy()
		sync.Status.Inventory = append(sync.Status.Inventory, v1.InventoryEntry{Version: "v1", Kind: "ConfigMap", Name: name})
		if err := admin.Status().Patch(ctx, sync, client.MergeFrom(base), client.DryRunAll); err == nil {
			return errors.New("it does not yet")
		}
		return nil
	})
}

// An operator that ends between applying and recording, and finds the object dropped again when it is back, prunes it.
func TestEndedBeforeRecording(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	w.followed(w.push("deploy/a.yaml", configMap("a", "1")))
	w.refuseRecording("b")
	w.push("deploy/b.yaml", configMap("b", "1"))
	w.eventually("b to come", func(context.Context) error { _, err := w.configMap("b"); return err })
	w.applied(w.remove("deploy/b.yaml"))
	w.eventually("b to be pruned", func(context.Context) error {
		if !w.configMapGone("b") {
			return errors.New("it is there")
		}
		return nil
	})
	if inventory := w.get().Status.Inventory; len(inventory) != 1 || inventory[0].Pending {
		t.Errorf("inventory %+v", inventory)
	}
}

// What a revision only meant to apply is pruned if it came to it; else it is somebody else's.
func TestPruneOfWhatWasAnnounced(t *testing.T) {
	w := newWorld(t)
	var stale []v1.InventoryEntry
	for name, manager := range map[string]string{"ours": gitsync.FieldManager, "theirs": "kubectl"} {
		object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: name}, Data: map[string]string{"a": "b"}}
		w.must(admin.Create(t.Context(), object, client.FieldOwner(manager)))
		stale = append(stale, v1.InventoryEntry{Version: "v1", Kind: "ConfigMap", Namespace: w.namespace, Name: name, Pending: true})
	}
	pruner := &gitsync.Pruner{Client: admin, Live: admin, Namespace: w.namespace, Now: time.Now()}
	pruned, err := pruner.Prune(t.Context(), stale)
	if err != nil || len(pruned.Kept)+len(pruned.Released) > 0 || !w.configMapGone("ours") || w.configMapGone("theirs") {
		t.Errorf("%+v, %v", pruned, err)
	}
}

// A commit that moves an object from the path of one GitSync to that of another leaves it in the cluster all the while.
func TestMovedToAnotherGitSync(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	first := w.push("deploy/a.yaml", configMap("a", "1"), "deploy/moving.yaml", configMap("moving", "1"), "other/c.yaml", configMap("c", "1"))
	w.followed(first)
	other := clone(w.get(), "other")
	other.Spec.Path, other.Spec.Interval = "other", &metav1.Duration{Duration: time.Hour}
	w.must(admin.Create(t.Context(), other))
	applies := func(commit string) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := admin.Get(ctx, client.ObjectKeyFromObject(other), other); err != nil || other.Status.Revision != commit {
				return fmt.Errorf("%+v, %w", other.Status, err)
			}
			return nil
		}
	}
	w.eventually("the other GitSync", applies(first))
	before, err := w.configMap("moving")
	w.must(err)
	_, err = w.work.Git(t.Context(), "mv", "deploy/moving.yaml", "other/moving.yaml")
	w.must(err)
	moved := w.push()
	sync := w.applied(moved)
	pending := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionPrunePending)
	if want := "ConfigMap " + w.namespace + "/moving: GitSync other of the same repository may have it now"; pending == nil || !strings.Contains(pending.Message, want) {
		t.Errorf("%+v does not say %q", pending, want)
	}
	w.passes(2)
	base := other.DeepCopy()
	other.Annotations = map[string]string{v1.CommandAnnotation: "sync 1"}
	w.must(admin.Patch(t.Context(), other, client.MergeFrom(base)))
	w.eventually("the other GitSync", applies(moved))
	w.prunedAll()
	after, err := w.configMap("moving")
	if err != nil || after.UID != before.UID || after.DeletionTimestamp != nil {
		t.Errorf("it was deleted in between: %v, %v", after.ObjectMeta, err)
	}
	if sync = w.get(); len(sync.Status.Inventory) != 1 || len(other.Status.Inventory) != 2 {
		t.Errorf("inventories %+v and %+v", sync.Status.Inventory, other.Status.Inventory)
	}
}

// The ConfigMap whose name holds its content's hash leaves the repository with each change of it. It stays for as long as a Deployment
// that stays needs it to start pods.
func TestPruneWaitsForWhatPodsNeed(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	withConfig := strings.Replace(deployment("v1"), `image: "reviews:v1"`, `image: "reviews:v1", envFrom: [{configMapRef: {name: config-1}}]`, 1)
	w.followed(w.push("deploy/v1.yaml", withConfig, "deploy/config.yaml", configMap("config-1", "1"), "deploy/more.yaml", configMap("config-2", "1"),
		"deploy/service.yaml", service, "deploy/rollout.yaml", strings.Replace(rollout, "version: v1", "version: v3", 1)))
	w.setStatus("stable: v1\ntraffic: {stable: {version: v1, subset: v1}, weight: 0}\n")
	sync := w.applied(w.remove("deploy/v1.yaml", "deploy/config.yaml", "deploy/more.yaml"))
	pending := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionPrunePending)
	if want := fmt.Sprintf("ConfigMap %s/config-1: Deployment %s/reviews-v1 needs it", w.namespace, w.namespace); pending == nil || !strings.Contains(pending.Message, want) {
		t.Errorf("%+v does not say %q", pending, want)
	}
	if w.configMapGone("config-1") || !w.configMapGone("config-2") || w.gone(&appsv1.Deployment{}, "reviews-v1") {
		t.Error("want config-1 and the Deployment there, config-2 gone")
	}
	w.setStatus("stable: v3\ntraffic: {stable: {version: v3, subset: v3}, weight: 0}\n")
	w.prunedAll()
	if !w.configMapGone("config-1") || !w.gone(&appsv1.Deployment{}, "reviews-v1") {
		t.Error("want both gone")
	}
}

// Two GitSyncs that want the same object otherwise put it back in turns: both tell of the other.
func TestDisputed(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	w.followed(w.push("deploy/a.yaml", configMap("a", "1"), "other/a.yaml", configMap("a", "2")))
	other := clone(w.get(), "other")
	other.Spec.Path = "other"
	w.must(admin.Create(t.Context(), other))
	told := func(by, of string) func(context.Context) error {
		return func(ctx context.Context) error {
			list := &eventsv1.EventList{}
			w.must(admin.List(ctx, list, client.InNamespace(w.namespace)))
			want := fmt.Sprintf("GitSync %s/%s applies ConfigMap %s/a as well", w.namespace, of, w.namespace)
			for _, event := range list.Items {
				if event.Regarding.Name == by && event.Type == corev1.EventTypeWarning && strings.Contains(event.Note, want) {
					return nil
				}
			}
			return fmt.Errorf("no event %q", want)
		}
	}
	w.eventually("the first to tell of the second", told("sync", "other"))
	w.eventually("the second to tell of the first", told("other", "sync"))
}

// A GitSync that is made in another one's place takes over what that one applied, whichever is worked on first.
func TestRenamedGitSync(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	commit := w.push("deploy/a.yaml", configMap("a", "1"))
	w.followed(commit)
	before, err := w.configMap("a")
	w.must(err)
	old, renamed := w.get(), clone(w.get(), "renamed")
	w.must(admin.Create(t.Context(), renamed))
	w.must(admin.Delete(t.Context(), old))
	w.eventually("the one to go and the other to have it all", func(ctx context.Context) error {
		if err := admin.Get(ctx, client.ObjectKeyFromObject(renamed), renamed); err != nil || renamed.Status.Revision != commit || !w.gone(&v1.GitSync{}, "sync") {
			return fmt.Errorf("%+v, %w", renamed.Status, err)
		}
		return nil
	})
	if after, err := w.configMap("a"); err != nil || after.UID != before.UID {
		t.Errorf("it was deleted in between: %v, %v", after.ObjectMeta, err)
	}
}

// A workload that routes still send to stays, whatever status says: who writes routes may be kept from it.
func TestPruneWaitsForRoutes(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	w.followed(w.push("deploy/v3.yaml", deployment("v3"), "deploy/service.yaml", service, "deploy/rollout.yaml", rollout))
	w.setStatus("stable: v1\nsubsets: [{name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]\ntraffic: {stable: {version: v1, subset: v1}, weight: 0}\n")
	half := w.manifest(strings.Replace(virtualService, "subset: v1}}", "subset: v1}, weight: 50}, {destination: {host: reviews, subset: v3}, weight: 50}", 1))
	w.must(admin.Create(t.Context(), half))
	sync := w.applied(w.remove("deploy/v3.yaml"))
	pending := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionPrunePending)
	if want := "reviews-v3: routes still send to subset v3 of Rollout reviews"; pending == nil || !strings.Contains(pending.Message, want) {
		t.Errorf("%+v does not say %q", pending, want)
	}
	w.must(admin.Delete(t.Context(), half))
	w.prunedAll()
	if !w.gone(&appsv1.Deployment{}, "reviews-v3") {
		t.Error("reviews-v3 is there")
	}
}
