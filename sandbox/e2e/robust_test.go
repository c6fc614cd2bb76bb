package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/load"
)

// forGood is a hold that lasts until it is taken away by a push.
var forGood = &metav1.Duration{Duration: time.Hour}

// brief is a plan of two short steps, half and full, whose gate has to see traffic. Every version takes the steps anew.
func brief(version string, hold *metav1.Duration) func(*v1.RolloutSpec) {
	seconds := func(n int) *metav1.Duration { return &metav1.Duration{Duration: time.Duration(n) * time.Second} }
	return func(spec *v1.RolloutSpec) {
		spec.InitialVersion, spec.Version = "v1", version
		spec.Steps = []v1.Step{
			{Name: "half", Weight: new(int32(50)), Hold: hold},
			{Name: "full", Weight: new(int32(100))},
		}
		spec.Gates = []v1.Gate{{Name: "errors", Metric: v1.MetricErrorRate, Max: "5%"}}
		spec.GateDefaults = &v1.GateDefaults{
			Window: seconds(3), Interval: seconds(1), Samples: new(int32(2)), Failures: new(int32(2)), MinRequests: new(int32(5)),
		}
		spec.ProgressDeadline = &v1.ProgressDeadline{Duration: seconds(4)}
		spec.RollbackWindow = &v1.RollbackWindow{Revisions: new(int32(0))}
	}
}

// follow lets a GitSync follow the repository, in which the brief plan asks for v1.
func (s *stage) follow(t *testing.T) {
	t.Helper()
	push(t, s, brief("v1", nil))
	if err := s.Apply(t.Context(), "gitsync.yaml"); err != nil {
		t.Fatal(err)
	}
}

// holdAtHalf pushes a version and waits until half of the users have been sent to it, where it stays.
func (s *stage) holdAtHalf(t *testing.T, version string) *v1.Rollout {
	t.Helper()
	push(t, s, brief(version, forGood))
	return s.awaitHalf(t, version, time.Time{})
}

// awaitHalf waits until the step half was applied after a time.
func (s *stage) awaitHalf(t *testing.T, version string, after time.Time) *v1.Rollout {
	t.Helper()
	return s.await(t, "step half of "+version, func(r *v1.Rollout) bool {
		step := r.Status.Step
		return r.Status.Canary == version && step != nil && step.Name == "half" && step.Applied != nil && step.Applied.After(after)
	})
}

// finish lets a version go on from half, and waits until it serves.
func (s *stage) finish(t *testing.T, version string) *v1.Rollout {
	t.Helper()
	push(t, s, brief(version, nil))
	return s.awaitServing(t, version)
}

func (s *stage) awaitServing(t *testing.T, version string) *v1.Rollout {
	t.Helper()
	return s.await(t, version+" to serve", func(r *v1.Rollout) bool {
		return r.Status.Phase == v1.PhaseHealthy && r.Status.Stable == version && r.Status.ObservedGeneration == r.Generation
	})
}

func (s *stage) await(t *testing.T, what string, meets func(*v1.Rollout) bool) *v1.Rollout {
	t.Helper()
	r, err := s.WaitRollout(t.Context(), what, meets)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// awaitTrouble waits for a phase and reason whose message holds all the words, and checks that nothing was rejected for it.
func (s *stage) awaitTrouble(t *testing.T, phase v1.Phase, reason string, words ...string) *v1.Rollout {
	t.Helper()
	r := wait(t, s, phase, reason)
	for _, word := range words {
		if !strings.Contains(r.Status.Message, word) {
			t.Errorf("%s %s: message %q lacks %q", phase, reason, r.Status.Message, word)
		}
	}
	ready := meta.FindStatusCondition(r.Status.Conditions, v1.ConditionReady)
	if ready == nil || ready.Status != metav1.ConditionFalse || ready.Reason != reason {
		t.Errorf("condition Ready is %+v, want False, %s", ready, reason)
	}
	kind := v1.ConditionReconciling
	if phase == v1.PhaseStalled {
		kind = v1.ConditionStalled
	}
	if c := meta.FindStatusCondition(r.Status.Conditions, kind); c == nil || c.Status != metav1.ConditionTrue {
		t.Errorf("condition %s is %+v, want True", kind, c)
	}
	if r.Status.Rejected != nil {
		t.Errorf("%s %s rejected %+v", phase, reason, r.Status.Rejected)
	}
	return r
}

// users who come by while something goes wrong.
type users struct {
	generator *load.Generator
	since     load.Counts
}

func (s *stage) users(t *testing.T) *users {
	t.Helper()
	generator, err := s.StartLoad(t.Context(), rate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { generator.Stop() })
	return &users{generator: generator, since: generator.Counts()}
}

// sawNothing fails the test if a request failed since the last time that this was asked.
func (u *users) sawNothing(t *testing.T) {
	t.Helper()
	now := u.generator.Counts()
	seen := now.Since(u.since)
	u.since = now
	if seen.Failed > 0 || seen.Total == 0 {
		t.Errorf("%d of %d requests failed for their users, want none of many: %v", seen.Failed, seen.Total, seen.LastError)
	}
}

// forget begins to count anew, and returns what was counted before.
func (u *users) forget() load.Counts {
	now := u.generator.Counts()
	seen := now.Since(u.since)
	u.since = now
	return seen
}

func (s *stage) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: name}
}

// virtualService reads the one of reviews.
func (s *stage) virtualService(t *testing.T) *networking.VirtualService {
	t.Helper()
	vs := &networking.VirtualService{}
	if err := s.cluster.Client.Get(t.Context(), s.key("reviews"), vs); err != nil {
		t.Fatal(err)
	}
	return vs
}

// awaitRoutes waits until the VirtualService of reviews is there and gives a version so many percent.
func (s *stage) awaitRoutes(t *testing.T, version string, percent int32) *networking.VirtualService {
	t.Helper()
	var vs *networking.VirtualService
	eventually(t, fmt.Sprintf("%d%% of the routes lead to %s", percent, version), func() bool {
		vs = &networking.VirtualService{}
		err := s.cluster.Client.Get(t.Context(), s.key("reviews"), vs)
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		return err == nil && weights(vs)[version] == percent
	})
	return vs
}

// weights of the subsets in the routes of a VirtualService that lead to reviews.
func weights(vs *networking.VirtualService) map[string]int32 {
	found := map[string]int32{}
	for _, route := range vs.Spec.Http {
		for _, d := range route.Route {
			if d.Destination.Host != "reviews" {
				continue
			}
			found[d.Destination.Subset] += d.Weight
			if len(route.Route) == 1 {
				found[d.Destination.Subset] = 100
			}
		}
	}
	return found
}

func isHalf(vs *networking.VirtualService) bool {
	w := weights(vs)
	return len(w) == 2 && w["v1"] == 50 && w["v3"] == 50
}

// change edits an object as a person does, again when somebody else wrote in between.
func change[T client.Object](t *testing.T, s *stage, obj T, edit func(T)) {
	t.Helper()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := s.cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(obj), obj); err != nil {
			return err
		}
		edit(obj)
		return s.cluster.Client.Update(t.Context(), obj)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// answers waits until a page comes back whole: the proxies have learnt of what was mended.
func (s *stage) answers(t *testing.T) {
	t.Helper()
	eventually(t, "pages come back whole", func() bool {
		seen := visit(t, s, 20, load.Options{})
		return seen.Failed == 0 && seen.Total > 0
	})
}
