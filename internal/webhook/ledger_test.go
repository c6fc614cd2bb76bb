package webhook

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// running serves on a port of its own, as the operator does, until the test ends or stop is called.
func (w *world) running(change func(*Server)) (url string, stop func()) {
	w.t.Helper()
	listener, err := new(net.ListenConfig).Listen(w.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	server := NewServer("", w.dependencies())
	if change != nil {
		change(server)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
	w.t.Cleanup(stop)
	return "http://" + listener.Addr().String(), stop
}

func TestMarksAreCoalesced(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	base, _ := w.running(nil)
	push := func() { w.deliver(base, "reviews", pushBody, asGitHub(pushBody, key)...) }
	push()
	w.eventually("the first delivery is marked", func() bool { return len(w.marked()) == 1 })
	for range 10 {
		push()
	}
	w.eventually("what came meanwhile is marked", func() bool { return len(w.marked()) == 2 })
	marks := w.marked()
	if apart := marks[1].FetchRequested.Sub(marks[0].FetchRequested.Time); apart < spacing {
		t.Errorf("marks are %s apart, want %s at least", apart, spacing)
	}
	for range 50 {
		w.clock.Step(100 * time.Millisecond)
		time.Sleep(time.Millisecond)
	}
	if n := len(w.marked()); n != 2 {
		t.Errorf("%d marks of 11 deliveries, want 2", n)
	}
	if d := marks[0].LastDelivery; d.Reason != ReasonAccepted || !strings.Contains(d.Message, "refs/heads/main") || d.Time.Time.Before(start) {
		t.Errorf("last delivery %+v", d)
	}
}

func TestRefusedDeliveriesAreMarkedSeldom(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	base, _ := w.running(nil)
	w.deliver(base, "reviews", pushBody, asGitHub(pushBody, "?")...)
	w.eventually("the refusal is marked", func() bool { return len(w.marked()) == 1 })
	mark := w.marked()[0]
	if mark.FetchRequested != nil || mark.LastDelivery.Reason != ReasonSignatureMismatch || !strings.Contains(mark.LastDelivery.Message, "X-Hub-Signature-256") {
		t.Errorf("mark %+v", mark)
	}
	w.secret("reviews", nil)
	w.clock.Step(2 * time.Second)
	w.deliver(base, "reviews", pushBody, asGitHub(pushBody, "?")...)
	w.eventually("the next refusal is marked", func() bool { return len(w.marked()) == 2 })
	next := w.marked()[1]
	if apart := w.clock.Since(mark.LastDelivery.Time.Time); apart < refusedSpacing {
		t.Errorf("refusals are marked %s apart, want %s at least", apart, refusedSpacing)
	}
	if next.LastDelivery.Reason != ReasonSecretMissing || !strings.Contains(next.LastDelivery.Message, "there is no Secret reviews") {
		t.Errorf("mark %+v", next)
	}
	w.deliver(base, "reviews", pushBody)
	w.secret("reviews", map[string]string{tokenKey: key})
	w.clock.Step(2 * time.Second)
	w.deliver(base, "reviews", pushBody, asGitHub(pushBody, key)...)
	w.eventually("a push does not wait for it", func() bool { return len(w.marked()) == 3 })
	if last := w.marked()[2]; last.FetchRequested == nil || last.LastDelivery.Reason != ReasonAccepted {
		t.Errorf("mark %+v, want the push", last)
	}
}

func TestMarksSurviveAnAPIServerThatIsAway(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	base, _ := w.running(nil)
	w.deliver(base, "reviews", "{}", "X-GitHub-Event", "ping", "X-Hub-Signature-256", sign("github", "{}", key))
	w.eventually("the key is known", func() bool { return len(w.marked()) == 1 })
	w.setBroken(true)
	if got := w.deliver(base, "reviews", pushBody, asGitHub(pushBody, key)...); got.Status != http.StatusAccepted {
		t.Fatalf("%d %s", got.Status, got.Reason)
	}
	for range 30 {
		w.clock.Step(100 * time.Millisecond)
		time.Sleep(time.Millisecond)
	}
	w.setBroken(false)
	w.eventually("the push is marked", func() bool {
		marks := w.marked()
		return marks[len(marks)-1].FetchRequested != nil
	})
}

// A process that ends marks what it has accepted.
func TestAcceptedIsMarkedBeforeTheEnd(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	base, stop := w.running(nil)
	push := func() { w.deliver(base, "reviews", pushBody, asGitHub(pushBody, key)...) }
	push()
	w.eventually("the first is marked", func() bool { return len(w.marked()) == 1 })
	push() // its turn comes in a second
	stop()
	if n := len(w.marked()); n != 2 {
		t.Errorf("%d marks, want 2", n)
	}
}

func TestAnotherReplicasMarkCounts(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	name := types.NamespacedName{Namespace: "bookinfo", Name: "reviews"}
	l := newLedger(w.find, w.mark, w.clock, w.dependencies().Log)
	for age, want := range map[time.Duration]time.Duration{
		300 * time.Millisecond: 700 * time.Millisecond, 2 * time.Second: -time.Second, -time.Minute: 0,
	} {
		at := metav1.NewMicroTime(start.Add(-age))
		w.syncs[name].Status.FetchRequested = &at
		if got := l.others(t.Context(), name); got != want {
			t.Errorf("a mark %s ago: wait %s, want %s", age, got, want)
		}
	}
	delete(w.syncs, name)
	l.add(name, entry{fetch: true, verified: true})
	if err := l.mark(t.Context(), name); err != nil {
		t.Errorf("a GitSync that is gone: %v", err)
	}
}

// A sender that does not get on is cut off, and does not keep the others waiting.
func TestSlowSender(t *testing.T) {
	w := newWorld(t)
	w.hook("reviews", "github")
	base, _ := w.running(func(s *Server) { s.patience = time.Second })
	connection, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	if _, err := connection.Write([]byte("POST " + route + "bookinfo/reviews HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")); err != nil {
		t.Fatal(err)
	}
	if got := w.deliver(base, "reviews", pushBody, asGitHub(pushBody, key)...); got.Status != http.StatusAccepted {
		t.Errorf("meanwhile: %d %s", got.Status, got.Reason)
	}
	answer := make([]byte, 4096)
	n, err := connection.Read(answer)
	if err != nil || !strings.Contains(string(answer[:n]), "408 Request Timeout") {
		t.Errorf("the slow sender was told %q, %v; want 408", answer[:n], err)
	}
}

func TestHugeHeader(t *testing.T) {
	w := newWorld(t)
	base, _ := w.running(nil)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+route+"bookinfo/reviews", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Padding", strings.Repeat("x", 4*maxHeader))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return // cut off while it was still being sent
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s, want %d", response.Status, http.StatusRequestHeaderFieldsTooLarge)
	}
}
