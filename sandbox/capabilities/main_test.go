package capabilities

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/session"
	"sluice.dev/sluice/sandbox/setup"
)

// updating makes a run write docs/capabilities.md: SLUICE_CAPABILITIES=update.
var updating = os.Getenv("SLUICE_CAPABILITIES") == "update"

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	setup.Main("capabilities", func(context.Context) (int, error) {
		if err := setup.RunSideBySide(); err != nil {
			return 0, err
		}
		code := m.Run()
		return code, errors.Join(servers.stop(), conclude(code == 0))
	})
}

// servers are started by the first test that needs them.
var servers sandbox

// sandbox is what all tests share: a cluster and an operator for all of its namespaces.
type sandbox struct {
	once     sync.Once
	cluster  *session.Cluster
	operator *session.Operator
	err      error
}

func (s *sandbox) start(t *testing.T) *session.Cluster {
	t.Helper()
	s.once.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute) // a first build of the servers takes 10
		defer cancel()
		s.err = s.run(ctx)
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.cluster
}

func (s *sandbox) run(ctx context.Context) error {
	operator, err := session.OperatorBinary(ctx)
	if err != nil {
		return err
	}
	if s.cluster, err = session.StartClusterWith(ctx, controlplane.Options{Out: os.Stderr, ScopedGateways: true}); err != nil {
		return err
	}
	s.operator, err = s.cluster.StartOperator(ctx, session.OperatorOptions{Binary: operator, ProbeAllow: "*", Args: []string{"--allow-unscoped-faults"}})
	return err
}

// stop ends the operator and the servers; its error tells of a data race or a panic in the operator.
func (s *sandbox) stop() error {
	if s.cluster == nil {
		return nil
	}
	defer s.cluster.Stop()
	if s.operator == nil {
		return nil
	}
	err := s.operator.Stop()
	written := s.operatorLog()
	for _, sign := range []string{"DATA RACE", "panic:"} {
		if at := strings.Index(written, sign); at >= 0 {
			err = errors.Join(err, fmt.Errorf("the operator's log has %q:\n%s", sign, written[at:min(len(written), at+4000)]))
		}
	}
	return err
}

// operatorLog is what the operator has written so far.
func (s *sandbox) operatorLog() string {
	written, err := os.ReadFile(s.operator.LogPath())
	if err != nil {
		return err.Error()
	}
	return string(written)
}

// found are the results of the tests of this run.
var found struct {
	sync.Mutex
	results []Result
}

// record makes a result of the test, once it is over. An example without a number shows none of the catalogue's capabilities.
func record(t *testing.T, e example) {
	t.Helper()
	if e.dir[0] < '0' || e.dir[0] > '9' {
		return
	}
	number, err := NumberOf(e.dir)
	if err != nil {
		t.Fatal(err)
	}
	result := Result{Number: number, Example: e.dir, Test: t.Name(), Verdict: Pass}
	if e.configuration {
		result.Verdict = PassConfiguration
	}
	t.Cleanup(func() {
		if t.Skipped() {
			return
		}
		if t.Failed() {
			result.Verdict = Fail
		}
		found.Lock()
		defer found.Unlock()
		found.results = Merge(found.results, []Result{result})
	})
}

// conclude writes the page of capabilities or, where all tests ran and passed, compares it. What a run left out stays on the page.
func conclude(passed bool) error {
	root, err := binaries.RepositoryRoot()
	if err != nil || len(found.results) == 0 {
		return err
	}
	page := filepath.Join(root, "docs", "capabilities.md")
	written, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	results, whole := found.results, isWholeRun()
	if updating && !whole {
		before, err := Read(string(written))
		if err != nil {
			return err
		}
		results = Merge(before, results)
	}
	if updating {
		return os.WriteFile(page, []byte(Table(results)), 0o644)
	}
	if whole && passed && string(written) != Table(results) {
		return errors.New("docs/capabilities.md is not what the tests found: run make capabilities")
	}
	return nil
}

// isWholeRun tells whether no test was left out.
func isWholeRun() bool {
	for _, name := range []string{"test.run", "test.skip"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return false
		}
	}
	return !testing.Short()
}
