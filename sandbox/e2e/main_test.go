package e2e

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"sluice.dev/sluice/sandbox/environment"
	"sluice.dev/sluice/sandbox/session"
	"sluice.dev/sluice/sandbox/setup"
)

// rate of users' requests per second in each test.
const rate = 40

var (
	cluster  *session.Cluster
	operator string
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	setup.Main("e2e", func(ctx context.Context) (int, error) { return run(ctx, m) })
}

func run(ctx context.Context, m *testing.M) (code int, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute) // a first build of the servers takes 10
	defer cancel()
	if operator, err = session.OperatorBinary(ctx); err != nil {
		return 0, err
	}
	if cluster, err = session.StartCluster(ctx, "", os.Stderr); err != nil {
		return 0, err
	}
	defer cluster.Stop()
	return m.Run(), nil
}

// stage is a namespace with bookinfo, and an operator that watches nothing else.
type stage struct {
	*session.Bookinfo
	cluster  *session.Cluster
	operator *session.Operator
}

// newStage brings up a namespace with the team's routes to v1 and rights for Git.
func newStage(t *testing.T, namespace string) *stage {
	t.Helper()
	return newStageIn(t, cluster, namespace, []string{"mesh.yaml", "rbac.yaml"})
}

// newStageIn brings up a namespace of a cluster with some manifests of the example, and an operator with more arguments.
func newStageIn(t *testing.T, cluster *session.Cluster, namespace string, manifests []string, args ...string) *stage {
	t.Helper()
	return newStageWith(t, cluster, setup.UniqueName(namespace), environment.Options{}, manifests, args...)
}

// newGatewayStage brings up a namespace without routes whose users enter by the ingress gateway. Only one test at a time can have it.
func newGatewayStage(t *testing.T, namespace string) *stage {
	t.Helper()
	return newStageWith(t, cluster, setup.UniqueName(namespace), environment.Options{Gateway: true}, []string{"rbac.yaml"})
}

// newStageWith brings up a namespace of that very name.
func newStageWith(t *testing.T, cluster *session.Cluster, namespace string, options environment.Options, manifests []string, args ...string) *stage {
	t.Helper()
	ctx := t.Context()
	bookinfo, err := cluster.Deploy(ctx, namespace, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bookinfo.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := bookinfo.Apply(ctx, manifests...); err != nil {
		t.Fatal(err)
	}
	s := &stage{Bookinfo: bookinfo, cluster: cluster}
	s.operator, err = cluster.StartOperator(ctx, session.OperatorOptions{
		Binary: operator, Name: "operator-" + namespace, Namespaces: []string{namespace}, ProbeAllow: bookinfo.ProbeHost(), Args: args,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stopOperator(t) })
	return s
}

// stopOperator ends the operator and fails the test if it found a data race.
func (s *stage) stopOperator(t *testing.T) {
	if err := s.operator.Stop(); err != nil {
		t.Error(err)
	}
	written := s.operatorLog(t)
	for _, sign := range []string{"DATA RACE", "panic:"} {
		if at := strings.Index(written, sign); at >= 0 {
			t.Errorf("the operator's log has %q:\n%s", sign, written[at:min(len(written), at+4000)])
		}
	}
	if t.Failed() {
		t.Logf("the end of the operator's log:\n%s", written[max(0, len(written)-6000):])
	}
}

// operatorLog is what the operator has written so far.
func (s *stage) operatorLog(t *testing.T) string {
	t.Helper()
	written, err := os.ReadFile(s.operator.LogPath())
	if err != nil {
		t.Error(err)
	}
	return string(written)
}
