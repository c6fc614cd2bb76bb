package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/gitserver"
	"sluice.dev/sluice/sandbox/session"
)

// TestWebhook: GitSyncs that fetch by themselves once an hour, and at once when a delivery says so.
func TestWebhook(t *testing.T) {
	t.Parallel()
	s := newStage(t, "webhook")
	s.Interval = "1h"
	s.follow(t)
	s.awaitServing(t, "v1")
	for _, step := range []struct {
		name string
		test func(*testing.T, *stage)
	}{
		{"push to first write", pushToFirstWrite},
		{"refused", refusedDeliveries},
		{"replayed", replayedDelivery},
		{"storm of deliveries", stormOfDeliveries},
		{"storm of strangers", stormOfStrangers},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.test(t, s) }) {
			return
		}
	}
}

// pushToFirstWrite: Rollout applied and the first traffic written within a second and the propagation delay, which is a second
// here. A machine that is busy with other tests gets three tries.
func pushToFirstWrite(t *testing.T, s *stage) {
	const limit, tries = 2 * time.Second, 3
	for try := 1; ; try++ {
		took := s.timeToFirstWrite(t)
		push(t, s, brief("v1", nil))
		s.awaitServing(t, "v1")
		if took <= limit {
			return
		}
		if try == tries {
			t.Fatalf("the first write came %s after the push, want %s at most", took, limit)
		}
	}
}

func (s *stage) timeToFirstWrite(t *testing.T) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	changes, err := s.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	commit, err := s.PushRollout(ctx, "reviews: v3", brief("v3", forGood))
	if err != nil {
		t.Fatal(err)
	}
	var applied, written time.Time
	for written.IsZero() {
		select {
		case <-ctx.Done():
			t.Fatalf("no traffic was written after %s was pushed; Rollout applied: %t", commit, !applied.IsZero())
		case seen := <-changes:
			switch {
			case seen.Rollout != nil && seen.Rollout.Spec.Version == "v3" && applied.IsZero():
				applied = seen.At
			case seen.VirtualService != nil && seen.VirtualService.Name == "reviews" && !applied.IsZero():
				written = seen.At
			}
		}
	}
	delivery, found := s.DeliveryOf(commit)
	if !found || delivery.Status != http.StatusAccepted {
		t.Fatalf("the delivery of %s: %+v", commit, delivery)
	}
	t.Logf("push → webhook answered after %s → Rollout applied after %s → first traffic write after %s",
		delivery.Answered.Sub(delivery.Sent), applied.Sub(delivery.Sent), written.Sub(delivery.Sent))
	return written.Sub(delivery.Sent)
}

// sync reads a GitSync of the stage.
func (s *stage) sync(t *testing.T, name string) *v1.GitSync {
	t.Helper()
	var found v1.GitSync
	if err := s.cluster.Client.Get(t.Context(), s.key(name), &found); err != nil {
		t.Fatal(err)
	}
	return &found
}

// fetches is how often the operator has fetched so far.
func (s *stage) fetches(t *testing.T) float64 {
	t.Helper()
	n, err := s.operator.Metric(t.Context(), "sluice_git_fetch_seconds_count")
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// post delivers a body to a path of the operator's hook port.
func (s *stage) post(t *testing.T, path string, body []byte, header http.Header) (status int, reason string) {
	t.Helper()
	status, reason, err := session.PostHook(t.Context(), s.operator.HookURL+path, body, header)
	if err != nil {
		t.Fatal(err)
	}
	return status, reason
}

var pushed = []byte(`{"ref": "refs/heads/main"}`)

func refusedDeliveries(t *testing.T, s *stage) {
	path := s.sync(t, "bookinfo").Status.WebhookPath
	if want := "/hooks/gitsync/" + s.Namespace + "/bookinfo"; path != want {
		t.Fatalf("status.webhookPath is %q, want %q", path, want)
	}
	before := s.fetches(t)
	for _, to := range []string{path, s.HookPath("nobody")} {
		if status, reason := s.post(t, to, pushed, session.GitHubHeaders("wrong", pushed)); status != http.StatusUnauthorized || reason != "SignatureMismatch" {
			t.Errorf("wrong signature to %s: %d %s", to, status, reason)
		}
		if status, reason := s.post(t, to, pushed, http.Header{}); status != http.StatusUnauthorized || reason != "SignatureMissing" {
			t.Errorf("no signature to %s: %d %s", to, status, reason)
		}
	}
	eventually(t, "status tells what was wrong", func() bool {
		d := s.sync(t, "bookinfo").Status.LastDelivery
		return d != nil && strings.HasPrefix(d.Reason, "Signature") && strings.Contains(d.Message, "X-Hub-Signature-256")
	})
	ping := session.GitHubHeaders(s.HookToken, []byte(`{}`))
	ping.Set("X-GitHub-Event", "ping")
	if status, reason := s.post(t, path, []byte(`{}`), ping); status != http.StatusOK || reason != "Ping" {
		t.Errorf("ping: %d %s", status, reason)
	}
	eventually(t, "status tells of the ping", func() bool {
		d := s.sync(t, "bookinfo").Status.LastDelivery
		return d != nil && d.Reason == "Ping"
	})
	if after := s.fetches(t); after != before {
		t.Errorf("%v fetches of deliveries that ask for none", after-before)
	}
}

// replayedDelivery: the same delivery again only has the same commit looked at again.
func replayedDelivery(t *testing.T, s *stage) {
	path, rollout := s.HookPath("bookinfo"), s.awaitServing(t, "v1")
	for range 2 {
		before := s.fetches(t)
		if status, reason := s.post(t, path, pushed, session.GitHubHeaders(s.HookToken, pushed)); status != http.StatusAccepted {
			t.Fatalf("%d %s", status, reason)
		}
		eventually(t, "it is fetched", func() bool { return s.fetches(t) > before })
	}
	after := s.awaitServing(t, "v1")
	if after.Generation != rollout.Generation || len(after.Status.History) != len(rollout.Status.History) {
		t.Errorf("generation %d and %d runs, before %d and %d", after.Generation, len(after.Status.History), rollout.Generation, len(rollout.Status.History))
	}
	log := s.operatorLog(t)
	if strings.Contains(log, s.HookToken) || strings.Contains(log, session.GitHubHeaders(s.HookToken, pushed).Get("X-Hub-Signature-256")) {
		t.Error("the operator's log holds the webhook's key or a signature")
	}
}

// stormSize is how many requests a storm has.
const stormSize = 2500

// storm sends requests from many senders at once and counts the answers.
func (s *stage) storm(t *testing.T, send func(i int) (path string, header http.Header)) (answers map[int]int, took time.Duration) {
	t.Helper()
	const senders = 32
	work, began := make(chan int), time.Now()
	answers = map[int]int{}
	var mu sync.Mutex
	var wait sync.WaitGroup
	for range senders {
		wait.Go(func() {
			for i := range work {
				path, header := send(i)
				status, _, err := session.PostHook(t.Context(), s.operator.HookURL+path, pushed, header)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				answers[status]++
				mu.Unlock()
			}
		})
	}
	for i := range stormSize {
		work <- i
	}
	close(work)
	wait.Wait()
	return answers, time.Since(began)
}

// stormOfDeliveries: all are genuine, few are looked at, a fetch a second comes of them, and another repository's push is
// applied meanwhile.
func stormOfDeliveries(t *testing.T, s *stage) {
	neighbour := s.addNeighbour(t)
	neighbour.commit(t, "after")
	before := s.fetches(t)
	header := session.GitHubHeaders(s.HookToken, pushed)
	applied := make(chan time.Duration, 1)
	go func() { applied <- neighbour.deliver(t) }()
	answers, took := s.storm(t, func(int) (string, http.Header) { return s.HookPath("bookinfo"), header.Clone() })
	latency := <-applied
	fetches := s.fetches(t) - before
	t.Logf("%d deliveries in %s: answers %v, %.0f fetches; the neighbour's push was applied after %s", stormSize, took, answers, fetches, latency)
	if answers[http.StatusAccepted] == 0 || answers[http.StatusTooManyRequests] < stormSize/2 {
		t.Errorf("answers %v, want some 202 and mostly 429", answers)
	}
	// One at once, one for each second begun, and one for what came last; and the neighbour's.
	if most := took.Seconds() + 4; fetches > most {
		t.Errorf("%.0f fetches, want %.0f at most", fetches, most)
	}
	refused, err := s.operator.Metric(t.Context(), "sluice_webhook_requests_total", `result="TooManyRequests"`)
	if err != nil || refused < float64(answers[http.StatusTooManyRequests]) {
		t.Errorf("sluice_webhook_requests_total counts %v refusals (%v), %d were answered", refused, err, answers[http.StatusTooManyRequests])
	}
}

// stormOfStrangers: nothing is fetched, and a push goes on being applied.
func stormOfStrangers(t *testing.T, s *stage) {
	fetches := func(ctx context.Context) (float64, error) {
		return s.operator.Metric(ctx, "sluice_git_fetch_seconds_count")
	}
	before := counted(t, fetches) // what the storm before asked for has been fetched
	header := session.GitHubHeaders("wrong", pushed)
	answers, took := s.storm(t, func(i int) (string, http.Header) {
		return s.HookPath([]string{"bookinfo", "nobody", fmt.Sprintf("nobody-%d", i)}[i%3]), header.Clone()
	})
	t.Logf("%d deliveries in %s: answers %v", stormSize, took, answers)
	if answers[http.StatusUnauthorized]+answers[http.StatusTooManyRequests] != stormSize || answers[http.StatusTooManyRequests] == 0 {
		t.Errorf("answers %v, want 401 and 429 alone", answers)
	}
	if after := counted(t, fetches); after != before {
		t.Errorf("%.0f fetches for strangers", after-before)
	}
	eventually(t, "a genuine delivery is taken again", func() bool {
		status, _ := s.post(t, s.HookPath("bookinfo"), pushed, session.GitHubHeaders(s.HookToken, pushed))
		return status == http.StatusAccepted
	})
	eventually(t, "it is fetched", func() bool { return s.fetches(t) > before })
}

// neighbour is another repository of the namespace, with a GitSync and a webhook of its own.
type neighbour struct {
	*stage
	work *gitserver.Work
}

func (s *stage) addNeighbour(t *testing.T) *neighbour {
	t.Helper()
	url, err := s.cluster.Git.CreateRepository(t.Context(), s.Namespace+"-neighbour")
	if err != nil {
		t.Fatal(err)
	}
	n := &neighbour{stage: s}
	if n.work, err = gitserver.Clone(t.Context(), url, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	n.commit(t, "before")
	sync := &v1.GitSync{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "neighbour"},
		Spec: v1.GitSyncSpec{
			URL: url, Interval: forGood, ServiceAccountName: "bookinfo-deployer",
			Webhook: &v1.Webhook{Provider: "github", SecretRef: v1.LocalReference{Name: "hook-secret"}},
		},
	}
	if err := s.cluster.Client.Create(t.Context(), sync); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the neighbour is applied", func() bool { return n.value(t) == "before" })
	return n
}

func (n *neighbour) commit(t *testing.T, value string) {
	t.Helper()
	manifest := "apiVersion: v1\nkind: Service\nmetadata:\n  name: neighbour\n  labels: {value: " + value + "}\nspec:\n  ports: [{port: 80}]\n"
	if err := n.work.Write(t.Context(), "service.yaml", manifest); err != nil {
		t.Fatal(err)
	}
	if _, err := n.work.Push(t.Context(), value); err != nil {
		t.Fatal(err)
	}
}

func (n *neighbour) value(t *testing.T) string {
	var service corev1.Service
	if err := n.cluster.Client.Get(t.Context(), n.key("neighbour"), &service); client.IgnoreNotFound(err) != nil {
		t.Error(err)
	}
	return service.Labels["value"]
}

// deliver is the time from the delivery of what was pushed until it is applied.
func (n *neighbour) deliver(t *testing.T) time.Duration {
	began := time.Now()
	status, reason, err := session.PostHook(t.Context(), n.operator.HookURL+n.HookPath("neighbour"), pushed, session.GitHubHeaders(n.HookToken, pushed))
	if err != nil || status != http.StatusAccepted {
		t.Errorf("the neighbour's delivery: %d %s, %v", status, reason, err)
	}
	for n.value(t) != "after" {
		if time.Since(began) > time.Minute {
			t.Error("the neighbour's push is not applied within a minute")
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}
