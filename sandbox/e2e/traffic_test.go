package e2e

import (
	"context"
	"net/http"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/load"
	"sluice.dev/sluice/sandbox/scenario"
)

// stayIn pushes v3 with one step of the example, which lasts until the test ends, and waits until its traffic is applied.
func stayIn(t *testing.T, s *stage, step string) {
	t.Helper()
	if err := s.Follow(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := s.PushRollout(t.Context(), "reviews: v3", func(spec *v1.RolloutSpec) {
		spec.Version = scenario.Canary
		for _, one := range spec.Steps {
			if one.Name == step {
				one.Hold, one.Probe = &metav1.Duration{Duration: time.Hour}, nil
				spec.Steps = []v1.Step{one}
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.WaitRollout(t.Context(), step, func(r *v1.Rollout) bool {
		return r.Status.Step != nil && r.Status.Step.Name == step && r.Status.Step.Applied != nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !condition() {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			t.Fatalf("never: %s", what)
		}
	}
}

// counted reads Prometheus until a counter rests, since scrapes lag behind what was counted.
func counted(t *testing.T, read func(context.Context) (float64, error)) float64 {
	t.Helper()
	last, rests := -1.0, 0
	eventually(t, "a counter rests", func() bool {
		now, err := read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if now == last {
			rests++
		} else {
			last, rests = now, 0
		}
		return rests >= 12 // more than two scrapes
	})
	return last
}

// visit sends a number of users, one after the other, and counts what they saw.
func visit(t *testing.T, s *stage, users int, options load.Options) load.Counts {
	t.Helper()
	options.URL, options.Rate = s.Entry+"/productpage", rate
	options.Duration = time.Duration(users) * time.Second / rate
	generator, err := load.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	return generator.Wait()
}

// TestMirror: v3 receives a copy of all traffic, and no user sees it.
func TestMirror(t *testing.T) {
	t.Parallel()
	s := newStage(t, "mirror")
	stayIn(t, s, "shadow")
	eventually(t, "the proxies mirror", func() bool {
		visit(t, s, 4, load.Options{})
		n, err := s.Received(t.Context(), scenario.Canary)
		return err == nil && n > 0
	})
	canary := func(ctx context.Context) (float64, error) { return s.Received(ctx, scenario.Canary) }
	askedBefore, copiesBefore := counted(t, s.Asked), counted(t, canary)
	seen := visit(t, s, 200, load.Options{User: "jason", UserShare: 0.2})
	copies, asked := counted(t, canary)-copiesBefore, counted(t, s.Asked)-askedBefore
	if seen.Failed > 0 || seen.ByVersion[scenario.Stable] != seen.Total {
		t.Errorf("users saw %v, %d failed; want v1 only", seen.ByVersion, seen.Failed)
	}
	if copies != asked || asked < 190 {
		t.Errorf("v3 received %.0f copies of %.0f requests, want each of about 200", copies, asked)
	}
}

// TestFault: only jason is on v3, and only v3's calls to ratings are slow.
func TestFault(t *testing.T) {
	t.Parallel()
	s := newStage(t, "fault")
	stayIn(t, s, "ratings-slow")
	eventually(t, "the proxies send jason to v3", func() bool {
		return visit(t, s, 1, load.Options{User: "jason", UserShare: 1}).ByVersion[scenario.Canary] == 1
	})
	jason := visit(t, s, 20, load.Options{User: "jason", UserShare: 1})
	others := visit(t, s, 80, load.Options{})
	if jason.ByVersion[scenario.Canary] != jason.Total || jason.Failed > 0 {
		t.Errorf("jason saw %v, %d failed; want v3 only", jason.ByVersion, jason.Failed)
	}
	if others.ByVersion[scenario.Canary] > 0 || others.Failed > 0 {
		t.Errorf("others saw %v, %d failed; want v1 only", others.ByVersion, others.Failed)
	}
	const delay = 2 * time.Second
	if fastest := jason.Quantile(0); fastest < delay {
		t.Errorf("jason's fastest page took %s: v3's call to ratings was not delayed by %s", fastest, delay)
	}
	if median := others.Quantile(0.5); median >= delay {
		t.Errorf("the others' pages took %s", median)
	}
	began := time.Now()
	if status := askRatingsAsJason(t, s); status != http.StatusOK {
		t.Errorf("ratings answered %d to a client that is not v3", status)
	}
	if took := time.Since(began); took >= delay {
		t.Errorf("ratings took %s for a client that is not v3, although it is for jason", took)
	}
}

// askRatingsAsJason asks from a pod that is not the canary's, for the same user.
func askRatingsAsJason(t *testing.T, s *stage) int {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://ratings:9080/ratings/0", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("end-user", "jason")
	response, err := s.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	return response.StatusCode
}
