package e2e

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	coordination "k8s.io/api/coordination/v1"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/session"
)

// How soon another operator acts, at most: after a leader that was killed, and after one that ended in order.
const (
	takeoverKilled = 20 * time.Second
	takeoverClean  = 5 * time.Second
)

// pair is a stage with two operators, of which one leads.
type pair struct {
	*stage
	operators [2]*session.Operator
}

// TestLeaders: the leader ends, is killed, and is suspended in mid-run; the other one goes on with what status says.
func TestLeaders(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.follow(t)
	p.awaitServing(t, "v1")
	for _, step := range []struct {
		name string
		test func(*testing.T, *pair)
	}{
		{"ends", leaderEnds},
		{"killed", leaderKilled},
		{"suspended", leaderSuspended},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.test(t, p) }) {
			return
		}
	}
	assertClean(t, p.stage)
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{stage: newStageIn(t, cluster, "leaders", []string{"mesh.yaml", "rbac.yaml"}, "--leader-elect")}
	second, err := cluster.StartOperator(t.Context(), session.OperatorOptions{
		Binary: operator, Name: "operator-" + p.Namespace + "-second", Namespaces: []string{p.Namespace}, ProbeAllow: p.ProbeHost(), LeaderElect: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	p.operators = [2]*session.Operator{p.stage.operator, second}
	t.Cleanup(func() { (&stage{operator: second}).stopOperator(t) })
	return p
}

// leader waits until one of the operators that run leads, and returns it and the other one.
func (p *pair) leader(t *testing.T) (leads, follows *session.Operator) {
	t.Helper()
	eventually(t, "an operator leads", func() bool {
		for i, o := range p.operators {
			if o.Running() && isLeader(t.Context(), o) {
				leads, follows = o, p.operators[1-i]
				return true
			}
		}
		return false
	})
	return leads, follows
}

func isLeader(ctx context.Context, o *session.Operator) bool {
	n, err := o.Metric(ctx, "leader_election_master_status", `name="sluice-operator"`)
	return err == nil && n == 1
}

// succeeds is the time until an operator leads. What it is to do then is done before this returns.
func succeeds(t *testing.T, next *session.Operator, began time.Time, acted func()) time.Duration {
	t.Helper()
	eventually(t, "the other operator leads", func() bool { return isLeader(t.Context(), next) })
	led := time.Since(began)
	acted()
	t.Logf("the other operator leads after %s, and has acted after %s", led, time.Since(began))
	return led
}

// replace has the leader end in mid-run. What is pushed while nobody leads is delivered to the other one, which acts on it once
// it leads; want is the code of the one that ended. The candidates look at the lease every 2 s with a jitter of as much again, and the machine is busy: three tries.
func replace(t *testing.T, p *pair, limit time.Duration, want int, end func(*session.Operator)) {
	const tries = 3
	for try := 1; ; try++ {
		leads, follows := p.leader(t)
		p.holdAtHalf(t, "v3")
		began := time.Now()
		end(leads)
		push(t, p.stage, brief("v1", nil))
		took := succeeds(t, follows, began, func() { p.awaitServing(t, "v1") })
		<-leads.Exited()
		if code := leads.ExitCode(); code != want {
			t.Errorf("the leader ended with code %d, want %d", code, want)
		}
		if err := leads.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took <= limit {
			return
		}
		if try == tries {
			t.Fatalf("the other operator leads after %s, want %s at most", took, limit)
		}
	}
}

func leaderEnds(t *testing.T, p *pair) {
	replace(t, p, takeoverClean, 0, func(leads *session.Operator) {
		if err := leads.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	})
}

func leaderKilled(t *testing.T, p *pair) {
	replace(t, p, takeoverKilled, -1, func(leads *session.Operator) { leads.Kill() })
}

// leaderSuspended: a leader that was away while another one finished its run wakes up with everything due. Its writes carry
// versions that are long gone; it learns that it no longer leads, and ends.
func leaderSuspended(t *testing.T, p *pair) {
	u := p.users(t)
	leads, follows := p.leader(t)
	p.holdAtHalf(t, "v3")
	began := time.Now()
	if err := leads.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if leads.Running() {
			_ = leads.Signal(syscall.SIGCONT) // or it could not be stopped
		}
	})
	succeeds(t, follows, began, func() { p.finish(t, "v3") })
	before, routes, holder := p.awaitServing(t, "v3"), p.restored(t, "v3"), p.holder(t)
	if err := leads.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-leads.Exited():
	case <-time.After(time.Minute):
		t.Fatal("the operator that was suspended goes on, want it to end")
	}
	if code := leads.ExitCode(); code == 0 {
		t.Error("the operator that lost the lease ended with code 0")
	}
	if log := (&stage{operator: leads}).operatorLog(t); !strings.Contains(log, "leader election lost") {
		t.Error("its log does not say that it lost the leader election")
	}
	after, err := p.Rollout(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a, b := after.Status, before.Status; a.Phase != v1.PhaseHealthy || a.Stable != "v3" || len(a.History) != len(b.History) {
		t.Errorf("the stale leader left the Rollout %s on %s with %d runs, before %s on %s with %d", a.Phase, a.Stable, len(a.History), b.Phase, b.Stable, len(b.History))
	}
	if now := p.routes(t); now != routes {
		t.Errorf("the stale leader wrote the VirtualService: generation %d, before %d", now, routes)
	}
	if now := p.holder(t); now != holder {
		t.Errorf("the lease went from %s to %s", holder, now)
	}
	if err := leads.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	u.sawNothing(t)
}

// restored waits until the route has one destination again, in a version's subset, which is the last write of a run and follows the status
// that says Healthy. It returns the VirtualService's generation.
func (p *pair) restored(t *testing.T, subset string) int64 {
	t.Helper()
	eventually(t, "one destination, "+subset, func() bool {
		var vs networking.VirtualService
		if err := p.cluster.Client.Get(t.Context(), p.key("reviews"), &vs); err != nil {
			t.Fatal(err)
		}
		route := vs.Spec.GetHttp()[0].GetRoute()
		return len(route) == 1 && route[0].GetDestination().GetSubset() == subset
	})
	return p.routes(t)
}

// routes is the generation of the VirtualService.
func (p *pair) routes(t *testing.T) int64 {
	t.Helper()
	var vs networking.VirtualService
	if err := p.cluster.Client.Get(t.Context(), p.key("reviews"), &vs); err != nil {
		t.Fatal(err)
	}
	return vs.Generation
}

func (p *pair) holder(t *testing.T) string {
	t.Helper()
	var lease coordination.Lease
	if err := p.cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: "sluice-system", Name: "sluice-operator"}, &lease); err != nil {
		t.Fatal(err)
	}
	return *lease.Spec.HolderIdentity
}
