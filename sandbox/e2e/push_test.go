package e2e

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/load"
)

// TestPushesThroughARun: the team's routing comes from the same repository as its Rollout, sends everything to v1 for ever, and
// is edited and pushed again and again. What is edited arrives at once; no push moves a weight, and none undoes a rollback.
func TestPushesThroughARun(t *testing.T) {
	t.Parallel()
	s := newStageIn(t, cluster, "pushes", []string{"rbac.yaml"})
	p := &pushes{stage: s}
	if err := s.Repository.Write(t.Context(), "deploy/mesh.yaml", p.manifest(t)); err != nil {
		t.Fatal(err)
	}
	s.follow(t) // routing and Rollout in one first revision
	s.awaitServing(t, "v1")
	u := s.users(t)

	s.finish(t, "v2")
	eventually(t, "users see v2", func() bool { return u.forget().ByVersion["v1"] == 0 && u.generator.Counts().ByVersion["v2"] > 0 })
	p.push(t, 3, map[string]int32{"v2": 100})
	if seen := u.forget(); seen.Failed > 0 || seen.ByVersion["v2"] != seen.Total {
		t.Errorf("after v2 was promoted users saw %v, %d of %d failed", seen.ByVersion, seen.Failed, seen.Total)
	}

	s.holdAtHalf(t, "v3")
	u.forget()
	p.push(t, 6, map[string]int32{"v2": 50, "v3": 50})
	seen := u.forget()
	if share := float64(seen.ByVersion["v3"]) / float64(seen.Total); seen.Failed > 0 || seen.ByVersion["v1"] > 0 || share < 0.3 || share > 0.7 {
		t.Errorf("at half users saw %v, %d of %d failed", seen.ByVersion, seen.Failed, seen.Total)
	}

	s.Misbehave("reviews-v3", bookinfo.Misbehaviour{ErrorRate: 1})
	wait(t, s, v1.PhaseRolledBack, v1.ReasonGateFailed)
	s.awaitRoutes(t, "v2", 100)
	p.push(t, 3, map[string]int32{"v2": 100})
	eventually(t, "users see v2 alone again", func() bool {
		seen := visit(t, s, 20, load.Options{})
		return seen.Failed == 0 && seen.ByVersion["v2"] == seen.Total
	})
	assertClean(t, s)
}

// pushes of the routing, each with another time-out.
type pushes struct {
	*stage
	seconds int
}

func (p *pushes) manifest(t *testing.T) string {
	t.Helper()
	mesh, err := p.Example("mesh.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(mesh), "timeout: 10s", fmt.Sprintf("timeout: %ds", 20+p.seconds), 1)
	if text == string(mesh) {
		t.Fatal("examples/reviews/mesh.yaml has no time-out of 10s to edit")
	}
	return text
}

// push pushes some times, waits for each to arrive, and sees that every state of the routes had the weights.
func (p *pushes) push(t *testing.T, times int, want map[string]int32) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen, err := p.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for range times {
		p.seconds++
		if _, err := p.PushFile(ctx, "a time-out", "mesh.yaml", p.manifest(t)); err != nil {
			t.Fatal(err)
		}
		for arrived := false; !arrived; {
			select {
			case change := <-seen:
				vs := change.VirtualService
				if vs == nil || vs.Name != "reviews" {
					continue
				}
				if got := weights(vs); !maps.Equal(got, want) {
					t.Fatalf("the weights are %v, want %v", got, want)
				}
				arrived = vs.Spec.Http[0].Timeout.AsDuration() == time.Duration(20+p.seconds)*time.Second
			case <-ctx.Done():
				t.Fatalf("the time-out of %ds never arrived", 20+p.seconds)
			}
		}
	}
}
