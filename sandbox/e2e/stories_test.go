package e2e

import (
	"testing"

	"sluice.dev/sluice/sandbox/scenario"
)

// TestStories plays what make demo tells.
func TestStories(t *testing.T) {
	t.Parallel()
	for _, story := range scenario.Stories {
		t.Run(story.Name, func(t *testing.T) {
			t.Parallel()
			result := play(t, newStage(t, story.Name), story)
			switch story.Name {
			case "happy":
				assertShares(t, result)
			case "errors":
				if r := result.Rollout.Status.Rejected; r == nil || r.Version != scenario.Canary {
					t.Errorf("rejected: %v, want %s", r, scenario.Canary)
				}
				t.Logf("VirtualService written %s after the first bad sample, %s after the one that decided",
					result.WeightsBack.Sub(result.FirstBadSample), result.WeightsBack.Sub(result.DecidingSample))
			case "breaker":
				t.Logf("VirtualService written %s after the first sample of an overflow; the gate alone would have waited %s more",
					result.WeightsBack.Sub(result.FirstBadSample), result.GateEarliest.Sub(result.WeightsBack))
			case "revert":
				if r := result.Rollout.Status.Rejected; r != nil {
					t.Errorf("a revert rejected %v", r)
				}
				t.Logf("VirtualService written %s after the revert was pushed", result.WeightsBack.Sub(result.HalfDone))
			}
		})
	}
}

// play follows the Git repository, sends users, and plays the story to an end that the story checks.
func play(t *testing.T, s *stage, story scenario.Story) *scenario.Result {
	t.Helper()
	story.Prepare(s.Bookinfo)
	if err := s.Follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	generator, err := s.StartLoad(t.Context(), rate)
	if err != nil {
		t.Fatal(err)
	}
	defer generator.Stop()
	result, err := scenario.Play(t.Context(), story, s.Bookinfo, generator, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range story.Check(result) {
		t.Error(wrong)
	}
	t.Logf("%d user requests, %d failed", result.Load.Total, result.Load.Failed)
	return result
}

// assertShares: what users saw in each step of happy.
func assertShares(t *testing.T, r *scenario.Result) {
	t.Helper()
	if r.Load.Total < 2000 {
		t.Errorf("only %d user requests, want thousands", r.Load.Total)
	}
	seen := map[string]scenario.StepSeen{}
	for _, s := range r.Steps {
		seen[s.Name] = s
	}
	for _, step := range []string{"shadow", "ratings-slow", "half", "full"} {
		if _, ok := seen[step]; !ok {
			t.Fatalf("step %s was not seen in %v", step, r.Steps)
		}
	}
	if n := seen["shadow"].Seen.ByVersion[scenario.Canary]; n != 0 {
		t.Errorf("%d users saw v3 in the mirror step", n)
	}
	if s := seen["shadow"]; s.Copies == 0 {
		t.Errorf("v3 received no copies of %.0f requests in the mirror step", s.Served)
	}
	half := seen["half"].Seen
	share := float64(half.ByVersion[scenario.Canary]) / float64(half.Total)
	if share < 0.4 || share > 0.6 {
		t.Errorf("%.0f%% of the users were on v3 at half", 100*share)
	}
	if n := seen["full"].Seen.ByVersion[scenario.Stable]; n != 0 {
		t.Errorf("%d users were on v1 at full", n)
	}
	users := seen["ratings-slow"].Seen.UserVersions
	if users["jason"][scenario.Canary] == 0 || users["jason"][scenario.Stable] != 0 || users[""][scenario.Canary] != 0 {
		t.Errorf("in the fault step users were on %v; only jason belongs on v3", users)
	}
}
