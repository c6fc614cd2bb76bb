package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice.dev/sluice/sandbox/process"
	"sluice.dev/sluice/sandbox/session"
)

const (
	// workers is how many requests the benchmark itself has under way at once, and how many Rollouts the operator works on.
	workers = 16
	// patience is how long anything may take before the benchmark gives up.
	patience = 5 * time.Minute
)

// scene is a fresh API server with an operator, for one number of Rollouts.
type scene struct {
	*session.Cluster
	*Options

	n        int
	evidence *evidence
	watcher  *watcher
	operator *session.Operator
	pprof    string
	stops    []func()
	// weight that the plain client wrote last.
	weight int
}

func startScene(ctx context.Context, o *Options, n int) (*scene, error) {
	s := &scene{Options: o, n: n}
	err := s.start(ctx)
	if err != nil {
		s.stop()
		return nil, fmt.Errorf("setting the scene for %d Rollouts: %w", n, err)
	}
	return s, nil
}

func (s *scene) start(ctx context.Context) (err error) {
	if s.Cluster, err = session.StartCluster(ctx, s.DataDir, io.Discard); err != nil {
		return err
	}
	s.stops = append(s.stops, s.Cluster.Stop)
	// Neither has a part in this, and both would take processor time.
	for _, idle := range []*process.Process{s.Discovery, s.Prometheus} {
		idle.Kill()
	}
	if s.evidence, err = startEvidence(ctx); err != nil {
		return err
	}
	s.stops = append(s.stops, s.evidence.stop)
	s.PrometheusURL = s.evidence.URL
	ctx, cancel := context.WithCancel(ctx)
	s.stops = append(s.stops, cancel)
	s.watcher, err = startWatcher(ctx, s.RESTConfig)
	return err
}

// startOperator starts the operator with its own rights and no more, with everything off that waits for a real mesh.
func (s *scene) startOperator(ctx context.Context) error {
	ports, err := process.FreePorts(1)
	if err != nil {
		return err
	}
	s.pprof = process.Address(ports[0])
	s.operator, err = s.StartOperator(ctx, session.OperatorOptions{
		Binary: s.Operator,
		Args: append([]string{
			"--propagation-delay=0s", "--settle=0s", fmt.Sprintf("--max-concurrent-reconciles=%d", workers), "--pprof-bind-address=" + s.pprof,
		}, s.OperatorArgs...),
	})
	if err == nil {
		s.stops = append(s.stops, s.operator.Kill)
	}
	return err
}

func (s *scene) stop() {
	for i := len(s.stops) - 1; i >= 0; i-- {
		s.stops[i]()
	}
}

// each does something for the numbers below n, several at a time.
func each(ctx context.Context, n int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(workers)
	for i := range n {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// profiled takes a processor profile of the operator while something is measured, where one was asked for.
func (s *scene) profiled(ctx context.Context, name string, length time.Duration, measure func() error) error {
	if s.Profiles == "" {
		return measure()
	}
	done := make(chan error, 1)
	go func() { done <- s.profile(ctx, name, length) }()
	if err := measure(); err != nil {
		return err
	}
	return <-done
}

func (s *scene) profile(ctx context.Context, name string, length time.Duration) error {
	if err := os.MkdirAll(s.Profiles, 0o755); err != nil {
		return err
	}
	what := "heap"
	if length > 0 {
		what = fmt.Sprintf("profile?seconds=%d", int(length.Seconds()))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.pprof+"/debug/pprof/"+what, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("profile of the operator: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	file, err := os.Create(filepath.Join(s.Profiles, fmt.Sprintf("%s-%d.pb.gz", name, s.n)))
	if err != nil {
		return err
	}
	if _, err := io.Copy(file, resp.Body); err != nil {
		return fmt.Errorf("profile of the operator: %w", err)
	}
	return file.Close()
}
