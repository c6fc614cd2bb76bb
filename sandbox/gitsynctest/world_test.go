package gitsynctest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/gitserver"
)

const (
	// fetchTimeout is the manager's; long enough for a busy machine.
	fetchTimeout = 5 * time.Second
	patience     = 30 * time.Second
)

// failures are what the Git server does instead of serving a repository.
var failures struct {
	sync.Mutex
	of map[string]func(git http.Handler) http.Handler
}

func setFailure(repository string, wrap func(git http.Handler) http.Handler) {
	failures.Lock()
	defer failures.Unlock()
	if failures.of == nil {
		failures.of = map[string]func(http.Handler) http.Handler{}
		git.Intercept(func(git http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), ".git")
				failures.Lock()
				wrap := failures.of[name]
				failures.Unlock()
				if wrap != nil {
					wrap(git).ServeHTTP(w, r)
					return
				}
				git.ServeHTTP(w, r)
			})
		})
	}
	failures.of[repository] = wrap
}

// worlds are counted, so that a test can be run again on the same servers.
var worlds atomic.Int32

// world is a namespace and a repository of one test.
type world struct {
	t         *testing.T
	namespace string
	url       string
	work      *gitserver.Work
}

func newWorld(t *testing.T) *world {
	t.Helper()
	t.Parallel()
	name := fmt.Sprintf("%s-%d", strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())), worlds.Add(1))
	w := &world{t: t, namespace: name}
	w.must(server.CreateNamespace(t.Context(), name))
	var err error
	w.url, err = git.CreateRepository(t.Context(), name)
	w.must(err)
	w.work, err = gitserver.Clone(t.Context(), w.url, t.TempDir())
	w.must(err)
	return w
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// allow gives a service account of the namespace all rights in it, on the named resources.
func (w *world) allow(account string, resources ...string) {
	w.t.Helper()
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: account}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"*"}, Resources: resources, Verbs: []string{"*"}},
	}}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: account},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: account},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: w.namespace, Name: account}},
	}
	w.must(admin.Create(w.t.Context(), role))
	w.must(admin.Create(w.t.Context(), binding))
}

// push writes path, content, path, content … and pushes them.
func (w *world) push(pathsAndContents ...string) (commit string) {
	w.t.Helper()
	for i := 0; i < len(pathsAndContents); i += 2 {
		w.must(w.work.Write(w.t.Context(), pathsAndContents[i], pathsAndContents[i+1]))
	}
	commit, err := w.work.Push(w.t.Context(), "change")
	w.must(err)
	return commit
}

// sync creates a GitSync named sync of the path deploy, with an interval of a second.
func (w *world) sync(change func(*v1.GitSync)) {
	w.t.Helper()
	sync := &v1.GitSync{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "sync"}, Spec: v1.GitSyncSpec{
		URL: w.url, Path: "deploy", Interval: &metav1.Duration{Duration: time.Second},
	}}
	if change != nil {
		change(sync)
	}
	w.must(admin.Create(w.t.Context(), sync))
}

func (w *world) get() *v1.GitSync {
	w.t.Helper()
	sync := &v1.GitSync{}
	w.must(admin.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "sync"}, sync))
	return sync
}

// edit changes the GitSync by a merge patch, as a person would.
func (w *world) edit(change func(*v1.GitSync)) {
	w.t.Helper()
	sync := w.get()
	base := sync.DeepCopy()
	change(sync)
	w.must(admin.Patch(w.t.Context(), sync, client.MergeFrom(base)))
}

func (w *world) eventually(what string, check func(ctx context.Context) error) {
	w.t.Helper()
	eventually(w.t, what, check)
}

func eventually(t *testing.T, what string, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		case <-time.After(25 * time.Millisecond):
		}
	}
}

// ready waits until the Ready condition has the reason and mentions text, and returns the GitSync.
func (w *world) ready(reason, text string) *v1.GitSync {
	w.t.Helper()
	var sync *v1.GitSync
	w.eventually("Ready with reason "+reason, func(context.Context) error {
		sync = w.get()
		ready := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionReady)
		if ready == nil {
			return fmt.Errorf("no Ready condition")
		}
		if ready.Reason != reason || !strings.Contains(ready.Message, text) {
			return fmt.Errorf("it is %s: %s", ready.Reason, ready.Message)
		}
		return nil
	})
	return sync
}

// applied waits until a commit is applied.
func (w *world) applied(commit string) *v1.GitSync {
	w.t.Helper()
	sync := w.ready(v1.ReasonApplied, "Applied revision main@"+commit[:7])
	if sync.Status.Revision != commit || sync.Status.AttemptedRevision != commit {
		w.t.Errorf("revision %s, attempted %s, want %s", sync.Status.Revision, sync.Status.AttemptedRevision, commit)
	}
	return sync
}

func (w *world) configMap(name string) (*corev1.ConfigMap, error) {
	object := &corev1.ConfigMap{}
	return object, admin.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: name}, object)
}

// events returns the reasons of the GitSync's events, each with how often it came.
func (w *world) events() map[string]int {
	w.t.Helper()
	list := &eventsv1.EventList{}
	w.must(admin.List(w.t.Context(), list, client.InNamespace(w.namespace)))
	reasons := map[string]int{}
	for _, event := range list.Items {
		if event.Regarding.Kind == "GitSync" {
			reasons[event.Reason]++
			if event.Series != nil {
				reasons[event.Reason] += int(event.Series.Count) - 1
			}
		}
	}
	return reasons
}

func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  key: %q\n", name, value)
}
