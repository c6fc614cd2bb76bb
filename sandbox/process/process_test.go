package process_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/process"
)

// childMode makes this test binary play a child process.
const childMode = "PROCESS_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		playChild(mode, os.Args[1:])
		return
	}
	os.Exit(m.Run())
}

func playChild(mode string, args []string) {
	fmt.Println("playing", mode)
	switch mode {
	case "serve": // until SIGTERM
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		go http.ListenAndServe(args[0], http.NotFoundHandler()) //nolint:errcheck // the test notices
		<-signals
		fmt.Println("bye")
	case "deaf":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("deaf now")
		time.Sleep(time.Hour)
	case "fail":
		fmt.Println("cannot open the sluice")
		os.Exit(3)
	case "sleep":
		time.Sleep(time.Hour)
	case "parent": // starts a child of its own and is killed by the test
		if err := os.Setenv(childMode, "sleep"); err != nil {
			panic(err)
		}
		p, err := process.Start(context.Background(), process.Spec{Name: "grandchild", Path: os.Args[0], LogDir: args[0]})
		if err != nil {
			panic(err)
		}
		fmt.Println("grandchild", p.PID())
		time.Sleep(time.Hour)
	}
}

func child(t *testing.T, mode string, args ...string) process.Spec {
	t.Helper()
	return process.Spec{Name: "child", Path: os.Args[0], Args: args, Env: []string{childMode + "=" + mode}, LogDir: t.TempDir()}
}

func address(t *testing.T) string {
	t.Helper()
	ports, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return process.Address(ports[0])
}

func TestStartStopRestart(t *testing.T) {
	at := address(t)
	spec := child(t, "serve", at)
	spec.Ready = process.TCPReady(at)
	spec.OnCrash = func(err error) { t.Errorf("OnCrash without a crash: %v", err) }
	p, err := process.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if err := p.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "already runs") {
		t.Errorf("Start of a running child: %v", err)
	}
	first := p.PID()
	if err := p.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p.PID() == first || !p.Running() {
		t.Errorf("after Restart: process %d (before %d), running %t", p.PID(), first, p.Running())
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if p.Running() || p.ExitCode() != 0 {
		t.Errorf("after Stop: running %t, exit code %d, want a clean end", p.Running(), p.ExitCode())
	}
	if err := p.Stop(); err != nil {
		t.Errorf("Stop twice: %v", err)
	}
	log, err := os.ReadFile(p.LogPath())
	if err != nil || strings.Count(string(log), "bye") != 2 {
		t.Errorf("log of two lives: %q, %v", log, err)
	}
}

func TestStopKillsTheDeaf(t *testing.T) {
	spec := child(t, "deaf")
	spec.StopGrace = 50 * time.Millisecond
	spec.Ready = logHolds(t, spec, "deaf now")
	p, err := process.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	if p.Running() || p.ExitCode() != -1 {
		t.Errorf("running %t, exit code %d, want killed by a signal", p.Running(), p.ExitCode())
	}
}

func TestStartQuotesTheLogOfAChildThatFails(t *testing.T) {
	spec := child(t, "fail")
	spec.Ready = func(context.Context) error { return fmt.Errorf("no answer") }
	_, err := process.Start(t.Context(), spec)
	for _, want := range []string{"start child", "exit status 3", "cannot open the sluice"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v lacks %q", err, want)
		}
	}
}

func TestStartGivesUp(t *testing.T) {
	spec := child(t, "sleep")
	spec.Ready = func(context.Context) error { return fmt.Errorf("no answer") }
	spec.ReadyTimeout = 100 * time.Millisecond
	p, err := process.Start(t.Context(), spec)
	for _, want := range []string{"not ready after 100ms", "no answer"} {
		if p != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Start = %v, %v; want an error with %q", p, err, want)
		}
	}
}

func TestStartOfAMissingProgram(t *testing.T) {
	spec := child(t, "sleep")
	spec.Path = "/nonexistent"
	if _, err := process.Start(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "/nonexistent") {
		t.Errorf("error %v, want one that names the file", err)
	}
}

func TestKillEndsAWaitingStart(t *testing.T) {
	spec := child(t, "sleep")
	calls := 0
	waiting := make(chan struct{})
	spec.Ready = func(context.Context) error { // ready in the first life only
		if calls++; calls == 1 {
			return nil
		}
		if calls == 2 {
			close(waiting)
		}
		return fmt.Errorf("no answer")
	}
	p, err := process.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	started := make(chan error, 1)
	go func() { started <- p.Start(t.Context()) }()
	<-waiting
	p.Kill()
	if err := <-started; err == nil || !strings.Contains(err.Error(), "ended before it was ready") {
		t.Errorf("Start whose child is killed: %v", err)
	}
}

func TestOnCrash(t *testing.T) {
	crashes := make(chan error, 1)
	spec := child(t, "fail")
	spec.OnCrash = func(err error) { crashes <- err }
	p, err := process.Start(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-crashes; !strings.Contains(err.Error(), "cannot open the sluice") {
		t.Errorf("crash %v does not quote the log", err)
	}
	<-p.Exited()
	if p.ExitCode() != 3 {
		t.Errorf("exit code %d, want 3", p.ExitCode())
	}
	if err := p.Signal(syscall.SIGCONT); err == nil {
		t.Error("Signal to an ended child gives no error")
	}
}

func TestChildDiesWithItsParent(t *testing.T) {
	parent := exec.Command(os.Args[0], t.TempDir())
	parent.Env = append(os.Environ(), childMode+"=parent")
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var grandchild int
	for lines := bufio.NewScanner(stdout); grandchild == 0 && lines.Scan(); {
		fmt.Sscanf(lines.Text(), "grandchild %d", &grandchild) //nolint:errcheck // other lines do not match
	}
	if grandchild == 0 {
		t.Fatal("the parent did not start a grandchild")
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // "signal: killed"
	deadline := time.Now().Add(10 * time.Second)
	for alive(grandchild) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d outlives its parent", grandchild)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// alive is false for a zombie too: whoever adopted it may never reap.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestHTTPReady(t *testing.T) {
	status := http.StatusServiceUnavailable
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, "still filling")
	}))
	defer server.Close()
	ready := process.HTTPReady(server.URL)
	if err := ready(t.Context()); err == nil || !strings.Contains(err.Error(), "still filling") {
		t.Errorf("503: %v, want an error with the body", err)
	}
	status = http.StatusOK
	if err := ready(t.Context()); err != nil {
		t.Errorf("200: %v", err)
	}
}

func TestFreePorts(t *testing.T) {
	ports, err := process.FreePorts(50)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for _, port := range ports {
		if seen[port] {
			t.Errorf("port %d twice", port)
		}
		seen[port] = true
		l, err := net.Listen("tcp", process.Address(port))
		if err != nil {
			t.Errorf("port %d is not free: %v", port, err)
			continue
		}
		_ = l.Close()
	}
}

// logHolds is ready when the child's log holds text.
func logHolds(t *testing.T, spec process.Spec, text string) process.Probe {
	t.Helper()
	return func(context.Context) error {
		log, err := os.ReadFile(spec.LogDir + "/" + spec.Name + ".log")
		if err == nil && !strings.Contains(string(log), text) {
			err = fmt.Errorf("the log lacks %q", text)
		}
		return err
	}
}
