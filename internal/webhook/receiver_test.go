package webhook

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/types"

	v1 "sluice.dev/sluice/api/v1"
)

func TestAnswers(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	w.hook("paused", "github")
	w.syncs[types.NamespacedName{Namespace: "bookinfo", Name: "paused"}].Spec.Suspend = true
	base, _ := w.serve()
	at := func(path string) string { return base + path }
	here := at(route + "bookinfo/reviews")
	for name, tt := range map[string]struct {
		method, url, body string
		headers           []string
		status            int
		reason            string
	}{
		"push":             {body: pushBody, headers: asGitHub(pushBody, key), status: http.StatusAccepted, reason: ReasonAccepted},
		"ping":             {body: `{}`, headers: []string{"X-GitHub-Event", "ping", "X-Hub-Signature-256", sign("github", `{}`, key)}, status: http.StatusOK, reason: ReasonPing},
		"other event":      {body: `{}`, headers: []string{"X-GitHub-Event", "star", "X-Hub-Signature-256", sign("github", `{}`, key)}, status: http.StatusOK, reason: ReasonOtherEvent},
		"other branch":     {body: `{"ref":"refs/heads/x"}`, headers: asGitHub(`{"ref":"refs/heads/x"}`, key), status: http.StatusOK, reason: ReasonOtherRef},
		"suspended":        {url: at(route + "bookinfo/paused"), body: pushBody, headers: asGitHub(pushBody, key), status: http.StatusOK, reason: ReasonSuspended},
		"malformed":        {body: `{"ref`, headers: asGitHub(`{"ref`, key), status: http.StatusBadRequest, reason: ReasonMalformed},
		"malformed, wrong": {body: `{"ref`, headers: asGitHub(`{"ref`, "?"), status: http.StatusUnauthorized, reason: ReasonSignatureMismatch},
		"no signature":     {body: pushBody, status: http.StatusUnauthorized, reason: ReasonSignatureMissing},
		"wrong signature":  {body: pushBody, headers: asGitHub(pushBody, "?"), status: http.StatusUnauthorized, reason: ReasonSignatureMismatch},
		"other's header":   {body: pushBody, headers: []string{"X-Signature", sign("generic", pushBody, key)}, status: http.StatusUnauthorized, reason: ReasonSignatureMismatch},
		"GET":              {method: http.MethodGet, status: http.StatusMethodNotAllowed, reason: ReasonMethodNotAllowed},
		"GET of nothing":   {method: http.MethodGet, url: at(route + "x/y"), status: http.StatusMethodNotAllowed, reason: ReasonMethodNotAllowed},
		"other path":       {url: at("/hooks/gitsync/bookinfo"), status: http.StatusNotFound, reason: ReasonNotFound},
		"longer path":      {url: at("/hooks/gitsync/bookinfo/reviews/x"), status: http.StatusNotFound, reason: ReasonNotFound},
		"root":             {url: at("/"), status: http.StatusNotFound, reason: ReasonNotFound},
		"1 MiB":            {body: strings.Repeat(" ", maxBody), headers: asGitHub(strings.Repeat(" ", maxBody), key), status: http.StatusBadRequest, reason: ReasonMalformed},
		"more than 1 MiB":  {body: strings.Repeat(" ", maxBody+1), headers: asGitHub("", key), status: http.StatusRequestEntityTooLarge, reason: ReasonTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			w.clock.Step(time.Second) // for the rate limit
			method, url := http.MethodPost, here
			if tt.method != "" {
				method = tt.method
			}
			if tt.url != "" {
				url = tt.url
			}
			got := w.send(method, url, strings.NewReader(tt.body), tt.headers...)
			if got.Status != tt.status || got.Reason != tt.reason || got.Message == "" {
				t.Errorf("%d %s %q, want %d %s and a message", got.Status, got.Reason, got.Message, tt.status, tt.reason)
			}
			if tt.status == http.StatusMethodNotAllowed && got.header.Get("Allow") != http.MethodPost {
				t.Errorf("Allow: %q", got.header.Get("Allow"))
			}
		})
	}
}

func TestBodyOfUnknownLength(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	base, _ := w.serve()
	endless := &endlessReader{}
	if got := w.send(http.MethodPost, base+route+"bookinfo/reviews", endless); got.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("an endless body: %d %s, want %d", got.Status, got.Reason, http.StatusRequestEntityTooLarge)
	}
	if most := int64(16 << 20); endless.given > most {
		t.Errorf("%d bytes were taken, want %d at most", endless.given, most)
	}
}

type endlessReader struct{ given int64 }

func (r *endlessReader) Read(p []byte) (int, error) {
	r.given += int64(len(p))
	return len(p), nil
}

func TestBodiesShareABudget(t *testing.T) {
	b := newBodies()
	var held []func()
	for range maxBodies / maxBody {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(strings.Repeat("x", maxBody-1)))
		if err != nil {
			t.Fatal(err)
		}
		body, release, refused := b.receive(nil, request)
		if refused != nil || len(body) != maxBody-1 {
			t.Fatalf("%d bytes, refused %v", len(body), refused)
		}
		held = append(held, release)
	}
	small := func() *answer {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		_, release, refused := b.receive(nil, request)
		release()
		return refused
	}
	if refused := small(); refused == nil || refused.Reason != ReasonTooManyRequests {
		t.Errorf("beyond the budget: %v, want %s", refused, ReasonTooManyRequests)
	}
	for _, release := range held {
		release()
	}
	if refused := small(); refused != nil {
		t.Errorf("after all was released: %v", refused)
	}
}

// Nobody learns from answers which GitSyncs there are, and no Secret is read for those that are not.
func TestStrangersLearnNothing(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	w.hook("keyless", "generic")
	w.secret("keyless", nil)
	hookless := types.NamespacedName{Namespace: "bookinfo", Name: "hookless"}
	w.syncs[hookless] = &v1.GitSync{}
	base, _ := w.serve()
	for _, headers := range [][]string{nil, asGitHub(pushBody, "?"), {"X-Signature", sign("generic", pushBody, "?")}, {"X-Gitlab-Token", "?"}} {
		want := w.deliver(base, "nobody", pushBody, headers...)
		for _, name := range []string{"reviews", "keyless", "hookless"} {
			got := w.deliver(base, name, pushBody, headers...)
			ignore := cmpopts.IgnoreUnexported(told{})
			if diff := cmp.Diff(want, got, ignore); diff != "" {
				t.Errorf("%s with %v differs from a GitSync that is not there:\n%s", name, headers, diff)
			}
		}
	}
	if w.reads > 4 {
		t.Errorf("%d reads of Secrets, want those of two GitSyncs", w.reads)
	}
}

func TestRotation(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	base, _ := w.serve()
	expect := func(when, key string, status int) {
		t.Helper()
		if got := w.deliver(base, "reviews", pushBody, asGitHub(pushBody, key)...); got.Status != status {
			t.Errorf("%s: %d %s, want %d", when, got.Status, got.Reason, status)
		}
	}
	expect("the key", key, http.StatusAccepted)
	w.secret("reviews", map[string]string{tokenKey: "new\n", previousKey: key})
	w.clock.Step(2 * keysReread)
	expect("the new key at once", "new", http.StatusAccepted)
	expect("the old key meanwhile", key, http.StatusAccepted)
	expect("another key", "other", http.StatusUnauthorized)
	w.secret("reviews", map[string]string{tokenKey: "new"})
	w.clock.Step(2 * keysLast)
	expect("the old key later", key, http.StatusUnauthorized)
	expect("the new key", "new", http.StatusAccepted)
	for what, content := range map[string]map[string]string{
		"no token": {previousKey: "new"}, "empty token": {tokenKey: "", previousKey: "new"}, "newline": {tokenKey: "\n"}, "nothing": nil,
	} {
		w.secret("reviews", content)
		w.clock.Step(2 * keysLast)
		expect(what+": the key", "new", http.StatusUnauthorized)
		expect(what+": an empty key", "", http.StatusUnauthorized)
	}
	w.secret("reviews", map[string]string{tokenKey: "new"})
	w.setBroken(true)
	w.clock.Step(2 * keysLast)
	expect("the API server is away", "new", http.StatusServiceUnavailable)
}

// Wrong signatures do not have a Secret read for each.
func TestSecretsAreReadSeldom(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	base, _ := w.serve()
	for range eachBurst {
		w.deliver(base, "reviews", pushBody, asGitHub(pushBody, "?")...)
	}
	if w.reads != 1 {
		t.Errorf("%d reads within a moment, want 1", w.reads)
	}
}

func TestStormIsLimited(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	w.hook("ratings", "generic")
	base, _ := w.serve()
	counts := map[int]int{}
	for range 200 {
		counts[w.deliver(base, "reviews", pushBody, asGitHub(pushBody, key)...).Status]++
	}
	if diff := cmp.Diff(map[int]int{http.StatusAccepted: eachBurst, http.StatusTooManyRequests: 200 - eachBurst}, counts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := w.deliver(base, "ratings", "", "X-Signature", sign("generic", "", key)); got.Status != http.StatusAccepted {
		t.Errorf("another GitSync's delivery: %d %s", got.Status, got.Reason)
	}
	if got := w.deliver(base, "reviews", pushBody); got.header.Get("Retry-After") == "" {
		t.Errorf("%d without Retry-After", got.Status)
	}
	w.clock.Step(time.Second)
	if got := w.deliver(base, "reviews", pushBody, asGitHub(pushBody, key)...); got.Status != http.StatusAccepted {
		t.Errorf("a second later: %d %s", got.Status, got.Reason)
	}
}

// Paths that strangers make up share one limit in the end.
func TestAllPathsAreLimited(t *testing.T) {
	l := newLimits()
	allowed := 0
	for i := range 10 * allBurst {
		if l.allow(route+"x/"+strings.Repeat("y", i), start) {
			allowed++
		}
	}
	if allowed > allBurst {
		t.Errorf("%d at once, want %d at most", allowed, allBurst)
	}
}
