package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"

	v1 "sluice.dev/sluice/api/v1"
)

// start is when the tests' clock begins.
var start = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)

// world is what a server sees of a cluster: GitSyncs, Secrets and what it marked.
type world struct {
	t     *testing.T
	clock *testclock.FakeClock

	mu      sync.Mutex
	syncs   map[types.NamespacedName]*v1.GitSync
	secrets map[types.NamespacedName]map[string]string
	// reads counts reads of Secrets; broken fails them, and marks.
	reads  int
	broken bool
	marks  []Mark
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, clock: testclock.NewFakeClock(start),
		syncs:   map[types.NamespacedName]*v1.GitSync{},
		secrets: map[types.NamespacedName]map[string]string{},
	}
}

// hook adds a GitSync of namespace bookinfo that has a webhook, and its Secret.
func (w *world) hook(name, from string) {
	sync := &v1.GitSync{Spec: v1.GitSyncSpec{Webhook: &v1.Webhook{Provider: from, SecretRef: v1.LocalReference{Name: name}}}}
	sync.Namespace, sync.Name = "bookinfo", name
	w.syncs[types.NamespacedName{Namespace: "bookinfo", Name: name}] = sync
	w.secret(name, map[string]string{tokenKey: key})
}

// secret sets a Secret's content; nil takes it away.
func (w *world) secret(name string, content map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if content == nil {
		delete(w.secrets, types.NamespacedName{Namespace: "bookinfo", Name: name})
		return
	}
	w.secrets[types.NamespacedName{Namespace: "bookinfo", Name: name}] = content
}

func (w *world) dependencies() Dependencies {
	return Dependencies{Find: w.find, Secret: w.readSecret, Mark: w.mark, Clock: w.clock, Log: logr.Discard()}
}

func (w *world) find(_ context.Context, key types.NamespacedName) (*v1.GitSync, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if sync, found := w.syncs[key]; found {
		return sync.DeepCopy(), nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "gitsyncs"}, key.Name)
}

func (w *world) readSecret(_ context.Context, key types.NamespacedName) (*corev1.Secret, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads++
	if w.broken {
		return nil, errors.New("the API server is away")
	}
	content, found := w.secrets[key]
	if !found {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, key.Name)
	}
	secret := &corev1.Secret{Data: map[string][]byte{}}
	secret.Name = key.Name
	for k, v := range content {
		secret.Data[k] = []byte(v)
	}
	return secret, nil
}

func (w *world) mark(_ context.Context, key types.NamespacedName, m Mark) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken {
		return errors.New("the API server is away")
	}
	sync, found := w.syncs[key]
	if !found {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "gitsyncs"}, key.Name)
	}
	sync.Status.LastDelivery = &m.LastDelivery
	if m.FetchRequested != nil {
		sync.Status.FetchRequested = m.FetchRequested
	}
	w.marks = append(w.marks, m)
	return nil
}

func (w *world) setBroken(broken bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = broken
}

// marked returns what was marked so far.
func (w *world) marked() []Mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]Mark(nil), w.marks...)
}

// eventually lets the clock run until a condition holds.
func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			w.t.Fatalf("never: %s", what)
		}
		w.clock.Step(10 * time.Millisecond)
		time.Sleep(time.Millisecond)
	}
}

// serve runs the receiver behind a real HTTP server until the test ends.
func (w *world) serve() (url string, server *Server) {
	server = NewServer("", w.dependencies())
	http := httptest.NewServer(server.handler)
	w.t.Cleanup(http.Close)
	return http.URL, server
}

// told is an answer as a sender sees it.
type told struct {
	Status  int
	Reason  string `json:"reason"`
	Message string `json:"message"`
	header  http.Header
}

// deliver sends a body to a GitSync of namespace bookinfo, with headers NAME, VALUE, NAME, VALUE …
func (w *world) deliver(base, name, body string, headers ...string) told {
	w.t.Helper()
	return w.send(http.MethodPost, base+route+"bookinfo/"+name, strings.NewReader(body), headers...)
}

func (w *world) send(method, url string, body io.Reader, headers ...string) told {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, url, body)
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer := told{Status: response.StatusCode, header: response.Header}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		w.t.Fatalf("the answer to %s %s is no JSON: %v", method, url, err)
	}
	return answer
}

// asGitHub are the headers of a push from GitHub.
func asGitHub(body, key string) []string {
	return []string{"X-GitHub-Event", "push", "X-Hub-Signature-256", sign("github", body, key)}
}
