package gitsynctest

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/gitsync"
)

// A webhook marks the GitSync in the midst of a pass, and the next pass finds another revision: what the first one brought is
// in the inventory all the same, and is pruned.
func TestNothingAppliedIsForgotten(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	w.followed(w.push("deploy/a.yaml", configMap("a", "1")))
	var mu sync.Mutex
	var last string
	var failed error
	steps := []func(context.Context) error{
		func(ctx context.Context) error {
			err := w.work.Write(ctx, "deploy/b.yaml", configMap("b", "1"))
			_, pushed := w.work.Push(ctx, "b comes")
			live := &v1.GitSync{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "sync"}}
			now := metav1.NowMicro()
			base := live.DeepCopy()
			live.Status.FetchRequested = &now
			return errors.Join(err, pushed, admin.Status().Patch(ctx, live, client.MergeFrom(base)))
		},
		func(ctx context.Context) (err error) {
			_, removed := w.work.Git(ctx, "rm", "--quiet", "deploy/b.yaml")
			last, err = w.work.Push(ctx, "b goes")
			return errors.Join(removed, err)
		},
	}
	setFailure(w.namespace, func(git http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/info/refs") && r.URL.Query().Get("service") == "git-upload-pack" {
				mu.Lock()
				if len(steps) > 0 {
					failed = errors.Join(failed, steps[0](context.WithoutCancel(r.Context())))
					steps = steps[1:]
				}
				mu.Unlock()
			}
			git.ServeHTTP(rw, r)
		})
	})
	w.eventually("b to come and go", func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if failed != nil || len(steps) > 0 || w.get().Status.Revision != last {
			return errors.Join(failed, errors.New("it is not at the last commit"))
		}
		return nil
	})
	if !w.configMapGone("b") {
		t.Errorf("b is there; inventory %+v", w.get().Status.Inventory)
	}
}

// A Rollout that came with the push that takes its stable version's workload away has not seen yet which version that is.
func TestPruneWaitsForDiscovery(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	w.followed(w.push("deploy/v1.yaml", deployment("v1"), "deploy/service.yaml", service))
	_, err := w.work.Git(t.Context(), "rm", "--quiet", "deploy/v1.yaml")
	w.must(err)
	sync := w.applied(w.push("deploy/rollout.yaml", strings.Replace(rollout, "version: v1", "version: v3", 1), "deploy/v3.yaml", deployment("v3")))
	pending := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionPrunePending)
	if want := "reviews-v1: may be the stable version, which is not known yet, of Rollout reviews"; pending == nil || !strings.Contains(pending.Message, want) {
		t.Fatalf("conditions %+v do not say %q", sync.Status.Conditions, want)
	}
	w.setStatus("stable: v3\ntraffic: {stable: {version: v3, subset: v3}, weight: 0}\n")
	w.prunedAll()
}

// meddling reads Rollouts, after which somebody else acts, once.
type meddling struct {
	client.Reader
	act func()
}

func (m *meddling) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	err := m.Reader.List(ctx, list, options...)
	if _, rollouts := list.(*v1.RolloutList); rollouts && m.act != nil {
		m.act()
		m.act = nil
	}
	return err
}

func (w *world) manifest(text string) *unstructured.Unstructured {
	w.t.Helper()
	object := &unstructured.Unstructured{}
	w.must(yaml.Unmarshal([]byte(text), &object.Object))
	object.SetNamespace(w.namespace)
	return object
}

// A driven VirtualService that is gone comes back by the Rollout's hand while a push is about to bring it back: the push finds
// that out, and moves no weight.
func TestPushMeetsTheRolloutsOwnCreation(t *testing.T) {
	w := newWorld(t)
	r := &v1.Rollout{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "reviews"}, Spec: v1.RolloutSpec{Host: "reviews", Version: "v3"}}
	w.must(admin.Create(t.Context(), r))
	w.setStatus(half)
	w.must(admin.Create(t.Context(), w.manifest(destinationRule)))
	operator := &meddling{Reader: admin, act: func() {
		vs := w.manifest(strings.Replace(virtualService, "subset: v1}}", "subset: v1}, weight: 50}, {destination: {host: reviews, subset: v3}, weight: 50}", 1))
		w.must(admin.Create(t.Context(), vs, client.FieldOwner("sluice")))
	}}
	routing := &gitsync.Routing{Client: admin, Operator: operator}
	wrote, err := routing.Apply(t.Context(), w.manifest(strings.Replace(virtualService, "1s", "2s", 1)))
	if err != nil || !wrote {
		t.Fatalf("wrote %t, %v", wrote, err)
	}
	w.routesAre("primary 2s v1=50 v3=50; rule v1=v1")
}

// An operator that ends between creating an object and taking over its fields leaves nothing in it that Git can not take out.
func TestCreationCutOff(t *testing.T) {
	w := newWorld(t)
	with := strings.Replace(virtualService, "hosts: [reviews]", "hosts: [reviews]\n  gateways: [mesh]", 1)
	w.must(admin.Create(t.Context(), w.manifest(with), client.FieldOwner(gitsync.FieldManager)))
	routing := &gitsync.Routing{Client: admin, Operator: admin}
	for i, manifest := range []string{with, virtualService} {
		if wrote, err := routing.Apply(t.Context(), w.manifest(manifest)); err != nil || !wrote {
			t.Fatalf("%d: wrote %t, %v", i, wrote, err)
		}
	}
	vs := &networking.VirtualService{}
	w.must(admin.Get(t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "reviews"}, vs))
	if len(vs.Spec.Gateways) > 0 {
		t.Errorf("gateways %v are still there; managedFields %v", vs.Spec.Gateways, vs.ManagedFields)
	}
	if wrote, err := routing.Apply(t.Context(), w.manifest(virtualService)); err != nil || wrote {
		t.Errorf("once more: wrote %t, %v", wrote, err)
	}
}

// Two GitSyncs that apply the same object and are deleted at the same time do not leave it to each other.
func TestTwoGitSyncsGoAtOnce(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	commit := w.push("deploy/a.yaml", configMap("a", "1"))
	w.followed(commit)
	other := clone(w.get(), "other")
	other.Finalizers = []string{"example.com/not-yet"}
	w.must(admin.Create(t.Context(), other))
	read := func(ctx context.Context) error { return admin.Get(ctx, client.ObjectKeyFromObject(other), other) }
	w.eventually("the other GitSync to apply", func(ctx context.Context) error {
		if err := read(ctx); err != nil || other.Status.Revision != commit {
			return errors.Join(err, errors.New("not yet"))
		}
		return nil
	})
	w.must(admin.Delete(t.Context(), other))
	w.eventually("the other GitSync to be on its way out", func(ctx context.Context) error {
		if err := read(ctx); err != nil || len(other.Finalizers) != 1 {
			return errors.Join(err, errors.New("not yet"))
		}
		return nil
	})
	if w.configMapGone("a") {
		t.Error("a is gone, which a GitSync that stays applies")
	}
	w.must(admin.Delete(t.Context(), w.get()))
	w.eventually("both to be gone, with what they applied", func(context.Context) error {
		if !w.gone(&v1.GitSync{}, "sync") {
			return errors.New("sync is there")
		}
		return nil
	})
	if !w.configMapGone("a") {
		t.Error("a was left by both")
	}
	w.must(read(t.Context()))
	other.Finalizers = nil
	w.must(admin.Update(t.Context(), other))
}
