package capabilities

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// dialer opens a connection to a place that a test shifts.
type dialer func(context.Context) (net.Conn, error)

// inMesh dials a port of tcp-echo from the client's pod.
func (s *stage) inMesh(port int) dialer {
	return func(ctx context.Context) (net.Conn, error) { return s.DialTCP(ctx, fmt.Sprintf("tcp-echo:%d", port)) }
}

// atPort dials a port of the namespace's gateway from outside.
func (s *stage) atPort(port uint32) dialer {
	return func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", s.IngressAddress(port))
	}
}

// say sends a line over a connection, closes it, and gives the line that came back; "" for none.
func say(conn net.Conn, line string) string {
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // of a connection that is there
	if _, err := fmt.Fprintln(conn, line); err != nil {
		return ""
	}
	answer, _ := bufio.NewReader(conn).ReadString('\n') // what came before an end is looked at by the caller
	return strings.TrimSpace(answer)
}

// answers counts the first words that connections answer with, "" for those that get no answer.
func (d dialer) answers(ctx context.Context, n int) map[string]int {
	seen := map[string]int{}
	for range n {
		conn, err := d(ctx)
		if err != nil {
			seen[""]++
			continue
		}
		word, _, _ := strings.Cut(say(conn, "world"), " ")
		seen[word]++
	}
	return seen
}

// waitShare waits until of many new connections a share is answered by v2, and all are by someone.
func (d dialer) waitShare(t *testing.T, what string, share float64) {
	t.Helper()
	const n, tolerance = 300, 0.08
	eventually(t, fmt.Sprintf("%s: a share of %g to v2", what, share), func() (bool, string) {
		seen := d.answers(t.Context(), n)
		off := math.Abs(float64(seen["two"])/n - share)
		exact := share != 0 && share != 1 || off == 0
		return exact && off <= tolerance && seen["one"]+seen["two"] == n, fmt.Sprint(seen)
	})
}

// keep opens and uses connections, one after the other, until it is stopped; stop tells what they got.
func (d dialer) keep(t *testing.T) (stop func() map[string]int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	all := map[string]int{}
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			for word, n := range d.answers(context.WithoutCancel(ctx), 1) {
				all[word] += n
			}
			time.Sleep(10 * time.Millisecond) // the pace of a client
		}
	})
	stop = sync.OnceValue(func() map[string]int {
		cancel()
		done.Wait()
		return all
	})
	t.Cleanup(func() { stop() })
	return stop
}

// line is a connection that stays open.
type line struct {
	conn    net.Conn
	reader  *bufio.Reader
	version string
}

// open opens connections that stay, and asks each once.
func (d dialer) open(t *testing.T, n int) (lines []*line, versions map[string]int) {
	t.Helper()
	versions = map[string]int{}
	for range n {
		conn, err := d(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		l := &line{conn: conn, reader: bufio.NewReader(conn)}
		l.version = l.ask()
		versions[l.version]++
		lines = append(lines, l)
	}
	return lines, versions
}

// ask sends a line and gives the first word of the answer, "" when the connection is no more.
func (l *line) ask() string {
	_ = l.conn.SetDeadline(time.Now().Add(10 * time.Second)) // of a connection that is there
	if _, err := fmt.Fprintln(l.conn, "again"); err != nil {
		return ""
	}
	answer, _ := l.reader.ReadString('\n') // what came before an end is no answer
	word, _, _ := strings.Cut(answer, " ")
	return word
}

// checkKept: each open connection is answered by whom it was answered before.
func checkKept(t *testing.T, when string, lines []*line) {
	t.Helper()
	kept, other := map[string]int{}, map[string]int{}
	for _, l := range lines {
		if word := l.ask(); word == l.version {
			kept[word]++
		} else {
			other[l.version+" then "+word]++
		}
	}
	t.Logf("open connections %s: kept %v, others %v", when, kept, other)
	if len(other) > 0 {
		t.Errorf("%s open connections changed: %v", when, other)
	}
}

// Test06TCPShift: new connections follow the weights, at the gateway's port and at both ports of the Service; open ones keep their
// version through a rollback and a promotion, and none is refused.
func Test06TCPShift(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "06-tcp-shift", apps: []string{"tcp-echo.yaml"}, gateway: true})
	gateway, first, second := s.atPort(31400), s.inMesh(9000), s.inMesh(9001)
	places := map[string]dialer{"gateway:31400": gateway, "tcp-echo:9000": first, "tcp-echo:9001": second}
	waitAll := func(share float64) {
		t.Helper()
		for name, place := range places {
			place.waitShare(t, name, share)
		}
	}
	waitAll(0)
	outside, inside := gateway.keep(t), second.keep(t)

	s.pushVersion(t, "rollout.yaml", "v2")
	s.stayIn(t, "tcp-echo", "fifth")
	waitAll(0.2)
	lines, versions := gateway.open(t, 60)
	if versions["one"] == 0 || versions["two"] == 0 {
		t.Fatalf("60 open connections are with %v, want some with each", versions)
	}
	s.revert(t)
	s.waitHealthy(t, "tcp-echo", "v1")
	waitAll(0)
	checkKept(t, "after the rollback", lines)

	s.goOn(t, "tcp-echo")
	s.pushVersion(t, "rollout.yaml", "v2")
	r := s.waitHealthy(t, "tcp-echo", "v2")
	waitAll(1)
	checkKept(t, "after the promotion", lines)
	for name, seen := range map[string]map[string]int{"at the gateway": outside(), "in the mesh": inside()} {
		t.Logf("new connections %s: %v", name, seen)
		if seen[""] > 0 {
			t.Errorf("%d new connections %s got no answer", seen[""], name)
		}
	}
	if run := r.Status.History[0]; run.Verdict != v1.ReasonPromoted {
		t.Errorf("the last run: %+v", run)
	}
}

// TestTCPBreaker: connections that v2's pool refuses roll back, and what stable has open stays; no gate is asked.
func TestTCPBreaker(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "06-tcp-shift", apps: []string{"tcp-echo.yaml"}, gateway: true, envoyStats: true})
	s.pushEdit(t, "rollout.yaml", "  steps:\n", "  versions: [{name: v2, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}}]\n  steps:\n")
	s.pushVersion(t, "rollout.yaml", "v2")
	s.stayIn(t, "tcp-echo", "fifth")
	first := s.inMesh(9000)
	var held []*line
	eventually(t, "a connection to v2 is refused", func() (bool, string) {
		lines, versions := first.open(t, 10)
		held = append(held, lines...)
		return versions[""] > 0, fmt.Sprint(versions)
	})
	r := s.waitRolledBack(t, "tcp-echo", v1.ReasonTrip)
	if f := r.Status.LastFailure; f == nil || f.Gate != "breaker Overflow" || !strings.Contains(f.Query, "envoy_cluster_upstream_cx_overflow") {
		t.Errorf("the failure is %+v, want an overflow that Envoy told of", f)
	}
	first.waitShare(t, "tcp-echo:9000", 0)
	var open []*line
	for _, l := range held {
		if l.version != "" {
			open = append(open, l)
		}
	}
	checkKept(t, "after the trip", open)
}
