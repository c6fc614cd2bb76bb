package e2e

import (
	"context"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/scenario"
)

// TestOperatorKilled: the operator dies in a random step of the run and starts again; the end is the same, and no fault is left.
func TestOperatorKilled(t *testing.T) {
	t.Parallel()
	random := seeded(t)
	step := []string{"shadow", "ratings-slow", "half", "full"}[random.IntN(4)]
	after, down := randomTime(random, 8*time.Second), randomTime(random, 3*time.Second)
	t.Logf("killed %s into step %s, down for %s", after, step, down)
	s := newStage(t, "killed")
	killed := make(chan error, 1)
	go func() {
		killed <- s.killIn(t.Context(), step, after, down)
	}()
	happy, err := scenario.StoryNamed("happy")
	if err != nil {
		t.Fatal(err)
	}
	play(t, s, happy)
	if err := <-killed; err != nil {
		t.Fatal(err)
	}
	assertClean(t, s)
}

// seeded is random by a seed that is printed, or that SLUICE_SEED gives.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("SLUICE_SEED"); given != "" {
		parsed, err := strconv.ParseUint(given, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = parsed
	}
	t.Logf("SLUICE_SEED=%d does it again", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

func randomTime(random *rand.Rand, below time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(below)))
}

// killIn ends the operator with SIGKILL some time after a step of the next run began, and starts it again.
func (s *stage) killIn(ctx context.Context, step string, after, down time.Duration) error {
	_, err := s.WaitRollout(ctx, "step "+step, func(r *v1.Rollout) bool { return r.Status.Step != nil && r.Status.Step.Name == step })
	if err != nil {
		return err
	}
	if err := pause(ctx, after); err != nil {
		return err
	}
	s.operator.Kill()
	if err := pause(ctx, down); err != nil {
		return err
	}
	return s.operator.Start(ctx)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// assertClean: nothing of a run is left on any VirtualService of the namespace. What ends a run is committed before it is written.
func assertClean(t *testing.T, s *stage) {
	t.Helper()
	eventually(t, "nothing of the run is left", func() bool {
		var list networking.VirtualServiceList
		if err := s.cluster.Client.List(t.Context(), &list, client.InNamespace(s.Namespace)); err != nil {
			t.Fatal(err)
		}
		for _, vs := range list.Items {
			for _, route := range vs.Spec.Http {
				if strings.HasPrefix(route.Name, "sluice-") || route.Fault != nil || len(route.Mirrors) > 0 || len(route.Route) > 1 {
					t.Logf("VirtualService %s still has %v", vs.Name, route)
					return false
				}
			}
		}
		return true
	})
}

// TestConditions: what a person reads when a push can not work, and how it goes on by itself once it can.
func TestConditions(t *testing.T) {
	t.Parallel()
	s := newStage(t, "conditions")
	if err := s.Follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Run("missing workload", func(t *testing.T) {
		push(t, s, func(spec *v1.RolloutSpec) { spec.Version = "v9" })
		r := wait(t, s, v1.PhaseStalled, v1.ReasonVersionNotFound)
		if !strings.Contains(r.Status.Message, "version=v9") {
			t.Errorf("message %q does not name the labels that were looked for", r.Status.Message)
		}
		if r.Status.Rejected != nil {
			t.Errorf("a version that is not there was rejected: %v", r.Status.Rejected)
		}
	})
	t.Run("bad query", func(t *testing.T) {
		push(t, s, func(spec *v1.RolloutSpec) {
			spec.Version = scenario.Canary
			spec.Gates = []v1.Gate{{Name: "orders", Query: "sum(rate(orders_total[1m])", Max: "1"}}
		})
		r := wait(t, s, v1.PhaseStalled, v1.ReasonInvalidQuery)
		if !strings.Contains(r.Status.Message, "orders") || !strings.Contains(r.Status.Message, "parse error") {
			t.Errorf("message %q does not name the gate and what Prometheus says", r.Status.Message)
		}
		if r.Status.Step == nil || r.Status.Traffic.Mirror == nil {
			t.Errorf("traffic did not stay in the step: %v", r.Status.Step)
		}
	})
	t.Run("unparsable manifest", func(t *testing.T) {
		before, err := s.Rollout(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.PushFile(t.Context(), "broken", "broken.yaml", "kind: [Deployment\n"); err != nil {
			t.Fatal(err)
		}
		var sync v1.GitSync
		eventually(t, "GitSync says what is wrong", func() bool {
			if err := cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: s.Namespace, Name: "bookinfo"}, &sync); err != nil {
				t.Fatal(err)
			}
			c := meta.FindStatusCondition(sync.Status.Conditions, v1.ConditionReady)
			return c != nil && c.Status == metav1.ConditionFalse && strings.Contains(c.Message, "broken.yaml")
		})
		after, err := s.Rollout(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if after.Generation != before.Generation || after.Annotations[v1.RevisionAnnotation] != before.Annotations[v1.RevisionAnnotation] {
			t.Error("a part of the broken revision was applied")
		}
	})
	t.Run("mended", func(t *testing.T) {
		if _, err := s.PushFile(t.Context(), "mended", "broken.yaml", "# nothing\n"); err != nil {
			t.Fatal(err)
		}
		push(t, s, func(spec *v1.RolloutSpec) { spec.Version = scenario.Stable })
		wait(t, s, v1.PhaseHealthy, v1.ReasonServing)
		assertClean(t, s)
	})
}

func push(t *testing.T, s *stage, change func(*v1.RolloutSpec)) {
	t.Helper()
	if _, err := s.PushRollout(t.Context(), t.Name(), change); err != nil {
		t.Fatal(err)
	}
}

func wait(t *testing.T, s *stage, phase v1.Phase, reason string) *v1.Rollout {
	t.Helper()
	r, err := s.WaitRollout(t.Context(), string(phase)+" "+reason, func(r *v1.Rollout) bool {
		return r.Status.Phase == phase && r.Status.Reason == reason
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}
