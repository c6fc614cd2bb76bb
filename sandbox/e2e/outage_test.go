package e2e

import (
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/load"
	"sluice.dev/sluice/sandbox/process"
	"sluice.dev/sluice/sandbox/session"
)

// down is how long a server is away, at least.
const down = 3 * time.Second

// TestOutages: everything that Sluice leans on goes away in mid-run, one after the other, and Istio's kinds come late. It has a
// control plane of its own, and one operator, which is never restarted.
func TestOutages(t *testing.T) {
	t.Parallel()
	bare, err := session.StartClusterWith(t.Context(), controlplane.Options{Out: os.Stderr, SkipIstioCRDs: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bare.Stop)
	// The sandbox's pods are WorkloadEntries: the kinds that Sluice writes are the ones that come late.
	late := []string{"virtualservices.networking.istio.io", "destinationrules.networking.istio.io"}
	if err := bare.InstallIstioCRDs(t.Context(), late...); err != nil {
		t.Fatal(err)
	}
	s := newStageIn(t, bare, "outages", []string{"rbac.yaml"})
	first := s.operator.PID()
	u := s.users(t)
	s.follow(t)
	for _, step := range []struct {
		name string
		test func(*testing.T, *stage)
	}{
		{"Istio's kinds come late", kindsComeLate},
		{"API server and etcd restarted", apiRestarted},
		{"Prometheus down for a step", prometheusDown},
		{"Git down for a run", gitDown},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.test(t, s); u.sawNothing(t) }) {
			return // the next one begins where this one should have ended
		}
	}
	t.Run("canary fails while the API server is away", func(t *testing.T) { failsUnseen(t, s) })
	if s.operator.PID() != first || !s.operator.Running() {
		t.Error("the operator was restarted")
	}
	assertClean(t, s)
}

func kindsComeLate(t *testing.T, s *stage) {
	s.awaitTrouble(t, v1.PhaseStalled, v1.ReasonIstioNotInstalled, "networking.istio.io", "CRDs")
	if err := s.cluster.InstallIstioCRDs(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaitServing(t, "v1")
	eventually(t, "users are on v1 alone", func() bool {
		seen := visit(t, s, 20, load.Options{})
		return seen.ByVersion["v1"] == seen.Total
	})
}

// apiRestarted: a run lives through the loss of the API server, and of its store.
func apiRestarted(t *testing.T, s *stage) {
	s.holdAtHalf(t, "v3")
	for _, server := range []*process.Process{s.cluster.APIServer, s.cluster.Etcd} {
		server.Kill()
		visit(t, s, int(down.Seconds())*rate, load.Options{})
		if err := server.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	r := s.finish(t, "v3")
	if len(r.Status.History) != 1 || r.Status.Rejected != nil || r.Status.LastFailure != nil {
		t.Errorf("history %+v, rejected %+v, last failure %+v; want one run that passed", r.Status.History, r.Status.Rejected, r.Status.LastFailure)
	}
}

// prometheusDown: without evidence nothing advances, and nothing is rejected.
func prometheusDown(t *testing.T, s *stage) {
	if err := s.cluster.Prometheus.Stop(); err != nil {
		t.Fatal(err)
	}
	push(t, s, brief("v1", nil))
	r := s.awaitTrouble(t, v1.PhaseWaiting, v1.ReasonNoEvidence, "gate errors", "Prometheus can not be reached")
	if step := r.Status.Step; step.Name != "half" || r.Status.Traffic.Weight != 50 {
		t.Errorf("step %s at weight %d without evidence, want half at 50", step.Name, r.Status.Traffic.Weight)
	}
	if err := s.cluster.Prometheus.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaitServing(t, "v1")
}

// gitDown: a run that has begun needs no Git.
func gitDown(t *testing.T, s *stage) {
	push(t, s, brief("v3", nil))
	s.awaitHalf(t, "v3", time.Time{})
	s.cluster.Git.Stop()
	s.awaitServing(t, "v3")
	sync := s.awaitSync(t, metav1.ConditionFalse, v1.ReasonFetchFailed)
	message := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionReady).Message
	for _, word := range []string{"connection refused", "stays applied"} {
		if !strings.Contains(message, word) {
			t.Errorf("message %q lacks %q", message, word)
		}
	}
	if err := s.cluster.Git.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.awaitSync(t, metav1.ConditionTrue, v1.ReasonApplied)
}

// awaitSync waits for the GitSync's condition Ready.
func (s *stage) awaitSync(t *testing.T, status metav1.ConditionStatus, reason string) *v1.GitSync {
	t.Helper()
	sync := &v1.GitSync{}
	eventually(t, "the GitSync is Ready "+string(status)+", "+reason, func() bool {
		if err := s.cluster.Client.Get(t.Context(), s.key("bookinfo"), sync); err != nil {
			t.Fatal(err)
		}
		ready := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionReady)
		return ready != nil && ready.Status == status && ready.Reason == reason
	})
	return sync
}

// failsUnseen: what turned bad while nobody could write is taken back as soon as somebody can.
func failsUnseen(t *testing.T, s *stage) {
	s.holdAtHalf(t, "v2")
	s.cluster.APIServer.Kill()
	s.Misbehave("reviews-v2", bookinfo.Misbehaviour{ErrorRate: 0.5})
	visit(t, s, 2*int(down.Seconds())*rate, load.Options{}) // the gate fails meanwhile
	if err := s.cluster.APIServer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	r := wait(t, s, v1.PhaseRolledBack, v1.ReasonGateFailed)
	t.Logf("rolled back within %s of the API server's return", time.Since(back))
	if r.Status.Rejected == nil || r.Status.Rejected.Version != "v2" || r.Status.Stable != "v3" {
		t.Errorf("rejected %+v with stable %s, want v2 and v3", r.Status.Rejected, r.Status.Stable)
	}
	s.awaitRoutes(t, "v3", 100)
}
