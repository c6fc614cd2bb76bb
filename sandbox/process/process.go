package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	defaultReadyTimeout = 30 * time.Second
	defaultStopGrace    = 10 * time.Second
	probeInterval       = 25 * time.Millisecond
	probeTimeout        = 2 * time.Second
)

// Spec says what to run and how to see that it is ready.
type Spec struct {
	// Name names the child in errors and its log file, Name.log.
	Name string
	// Path is the program's file; Args are its arguments without the name.
	Path string
	Args []string
	// Env holds KEY=value pairs that are added to this process's environment.
	Env []string
	// Dir is the working directory; empty means this process's own.
	Dir string
	// LogDir is where Name.log is written, appended to at a restart.
	LogDir string
	// Ready reports nil once the child can be used. Nil: as soon as it runs.
	Ready Probe
	// ReadyTimeout bounds the wait for Ready; 0 means 30 s.
	ReadyTimeout time.Duration
	// StopGrace is the time between SIGTERM and SIGKILL in Stop; 0 means 10 s.
	StopGrace time.Duration
	// OnCrash, if set, is called once for each exit that neither Stop nor Kill
	// asked for, whatever the exit code.
	OnCrash func(error)
}

// Process is a child that can be stopped and started again. Its methods may be
// called from several goroutines; Stop and Kill cut a waiting Start short.
type Process struct {
	spec     Spec
	starting sync.Mutex
	run      atomic.Pointer[run] // the present or last life, never nil once started
}

// run is one life of the child.
type run struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed after err is set
	err    error
	wanted atomic.Bool // Stop or Kill asked for the exit
}

// Start runs the child and waits until it is ready. When it exits early or is
// not ready in time, it is killed and the error quotes the end of its log.
// ctx bounds the wait only, not the child's life.
func Start(ctx context.Context, spec Spec) (*Process, error) {
	p := &Process{spec: spec}
	if err := p.Start(ctx); err != nil {
		return nil, err
	}
	return p, nil
}

// Start runs the child again after Stop, Kill or an exit of its own, with the
// same arguments and log. It is an error when the child still runs.
func (p *Process) Start(ctx context.Context) error {
	p.starting.Lock()
	defer p.starting.Unlock()
	if r := p.run.Load(); r.alive() {
		return fmt.Errorf("start %s: it already runs as process %d", p.spec.Name, r.cmd.Process.Pid)
	}
	r, err := p.spawn()
	if err != nil {
		return err
	}
	p.run.Store(r)
	if err := p.awaitReady(ctx, r); err != nil {
		r.kill()
		return fmt.Errorf("start %s: %w%s", p.spec.Name, err, quoteLog(p.LogPath()))
	}
	return nil
}

// Restart stops the child if it runs and starts it again.
func (p *Process) Restart(ctx context.Context) error {
	if err := p.Stop(); err != nil {
		return err
	}
	return p.Start(ctx)
}

// Stop asks the child to end with SIGTERM and kills it after StopGrace. It
// returns when the child is gone; a child that does not run is no error.
func (p *Process) Stop() error {
	r := p.run.Load()
	if !r.alive() {
		return nil
	}
	r.wanted.Store(true)
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.spec.Name, err)
	}
	timer := time.NewTimer(orDefault(p.spec.StopGrace, defaultStopGrace))
	defer timer.Stop()
	select {
	case <-r.exited:
	case <-timer.C:
		r.kill()
	}
	return nil
}

// Kill ends the child and everything in its process group with SIGKILL and
// returns when it is gone.
func (p *Process) Kill() {
	if r := p.run.Load(); r.alive() {
		r.kill()
	}
}

// Signal sends sig to the child, for instance SIGSTOP and SIGCONT.
func (p *Process) Signal(sig os.Signal) error {
	if err := p.run.Load().cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.spec.Name, err)
	}
	return nil
}

// Running reports whether the child is alive.
func (p *Process) Running() bool { return p.run.Load().alive() }

// Exited is closed when the present life of the child has ended.
func (p *Process) Exited() <-chan struct{} { return p.run.Load().exited }

// ExitCode is the exit code of the life that ended last: -1 when a signal ended
// it or when the child still runs.
func (p *Process) ExitCode() int {
	r := p.run.Load()
	if r.alive() {
		return -1
	}
	return r.cmd.ProcessState.ExitCode()
}

// PID is the process id of the present or last life.
func (p *Process) PID() int { return p.run.Load().cmd.Process.Pid }

// LogPath is the file that holds the child's standard output and error.
func (p *Process) LogPath() string {
	return filepath.Join(p.spec.LogDir, p.spec.Name+".log")
}

// spawn starts one life. The log goes straight to the file descriptor, so a
// stuck reader here can never block the child.
func (p *Process) spawn() (*run, error) {
	log, err := os.OpenFile(p.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log of %s: %w", p.spec.Name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(p.spec.Path, p.spec.Args...) //nolint:noctx // a child outlives the context of its start
	cmd.Env = append(os.Environ(), p.spec.Env...)
	cmd.Dir = p.spec.Dir
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attributes()
	if err := startOnLastingThread(cmd); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.spec.Name, err)
	}
	r := &run{cmd: cmd, exited: make(chan struct{})}
	go p.reap(r)
	return r, nil
}

func (p *Process) reap(r *run) {
	r.err = r.cmd.Wait()
	if r.err == nil {
		r.err = errors.New("exit status 0")
	}
	close(r.exited)
	if !r.wanted.Load() && p.spec.OnCrash != nil {
		p.spec.OnCrash(fmt.Errorf("%s ended by itself: %w%s", p.spec.Name, r.err, quoteLog(p.LogPath())))
	}
}

func (p *Process) awaitReady(ctx context.Context, r *run) error {
	if p.spec.Ready == nil {
		return nil
	}
	limit := orDefault(p.spec.ReadyTimeout, defaultReadyTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not ready after %s", limit))
	defer cancel()
	ticker := time.NewTicker(probeInterval)
	defer ticker.Stop()
	var last error
	for {
		select {
		case <-r.exited:
			return fmt.Errorf("it ended before it was ready: %w", r.err)
		case <-ctx.Done():
			return fmt.Errorf("%w (last probe: %w)", context.Cause(ctx), last)
		case <-ticker.C:
		}
		if last = probe(ctx, p.spec.Ready); last == nil {
			return nil
		}
	}
}

func probe(ctx context.Context, ready Probe) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return ready(ctx)
}

// alive is false for a nil run, which is a child that was never started.
func (r *run) alive() bool {
	if r == nil {
		return false
	}
	select {
	case <-r.exited:
		return false
	default:
		return true
	}
}

// kill takes the whole group, so that no grandchild stays behind.
func (r *run) kill() {
	r.wanted.Store(true)
	_ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) // gone already is as good
	<-r.exited
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}
