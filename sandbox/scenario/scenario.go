package scenario

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/load"
	"sluice.dev/sluice/sandbox/session"
)

// Canary is the version that every story pushes; Stable is the one that serves before.
const (
	Stable = "v1"
	Canary = "v3"
)

// noticed is how long a person takes to see that v3 should not have been pushed.
const noticed = 5 * time.Second

// Story is what happens after v3 was pushed.
type Story struct {
	Name string
	// Tells what the story shows, in a line.
	Tells string
	// Phase, StableVersion and Reason are how it ends; Reason is empty where it does not matter.
	Phase         v1.Phase
	StableVersion string
	Reason        string
	// Flawless: no user's request may fail.
	Flawless bool
	// Manifest of the Rollout, from examples/reviews; empty: that one's own.
	Manifest string
	// Slow is how long v3 takes for each request.
	Slow time.Duration
	// atHalf is done once half of the users are on v3.
	atHalf func(ctx context.Context, b *session.Bookinfo) error
}

// Stories by the names that make demo knows.
var Stories = []Story{
	{
		Name: "happy", Tells: "reviews v1 → v3: mirror, fault test, half, full, each step gated; nobody notices",
		Phase: v1.PhaseHealthy, StableVersion: Canary, Flawless: true,
	},
	{
		Name: "errors", Tells: "v3 answers 5% errors once half of the users reach it: the gate rolls it back",
		Phase: v1.PhaseRolledBack, StableVersion: Stable, Reason: v1.ReasonGateFailed,
		atHalf: func(_ context.Context, b *session.Bookinfo) error {
			b.Misbehave("reviews-v3", bookinfo.Misbehaviour{ErrorRate: 0.05})
			return nil
		},
	},
	{
		Name: "revert", Tells: "git revert at half: everything is back on v1 at once, without steps",
		Phase: v1.PhaseHealthy, StableVersion: Stable, Flawless: true,
		atHalf: func(ctx context.Context, b *session.Bookinfo) error {
			select {
			case <-time.After(noticed):
			case <-ctx.Done():
				return ctx.Err()
			}
			_, err := b.Revert(ctx)
			return err
		},
	},
	{
		Name: "breaker", Tells: "v3 comes with a connection pool of one, which overflows: the breaker trips long before the gate could",
		Phase: v1.PhaseRolledBack, StableVersion: Stable, Reason: v1.ReasonTrip, Manifest: "../breaker/rollout.yaml", Slow: 100 * time.Millisecond,
	},
}

// Prepare is done before the Rollout is pushed for the first time.
func (s Story) Prepare(b *session.Bookinfo) {
	if s.Manifest != "" {
		b.Manifest = s.Manifest
	}
	if s.Slow > 0 {
		b.Misbehave("reviews-v3", bookinfo.Misbehaviour{Latency: s.Slow})
	}
}

// StoryNamed finds a story.
func StoryNamed(name string) (Story, error) {
	for _, s := range Stories {
		if s.Name == name {
			return s, nil
		}
	}
	names := make([]string, 0, len(Stories))
	for _, s := range Stories {
		names = append(names, s.Name)
	}
	return Story{}, fmt.Errorf("there is no scenario %q: choose one of %s", name, strings.Join(names, ", "))
}

// Result of a story.
type Result struct {
	Rollout *v1.Rollout
	// Load is what the users saw from before the push of v3 to the end.
	Load load.Counts
	// Steps that were entered, in order, and what was seen in each.
	Steps []StepSeen
	// Pushed is when v3 was pushed; Finished when the end was observed.
	Pushed, Finished time.Time
	// Delivery of the push of v3 to the webhook; Applied is when the Rollout with v3 was seen, and FirstWrite when the
	// VirtualService was, which the run changed first.
	Delivery            session.Delivery
	Applied, FirstWrite time.Time
	// WeightsBack is when the VirtualService was seen with everything on stable after a rollback; zero without one.
	WeightsBack time.Time
	// FirstBadSample and DecidingSample are the times of the samples that rolled back: of the gate, or of Prometheus' first one of
	// an overflow and the breaker's poll; zero without one.
	FirstBadSample, DecidingSample time.Time
	// GateEarliest is when the error rate's gate alone could have rolled back at the soonest; zero where it did.
	GateEarliest time.Time
	// HalfDone is when what the story does at half was done: the revert pushed, the errors begun; zero where it does nothing.
	HalfDone time.Time
}

// StepSeen is what a step showed while its traffic was in force.
type StepSeen struct {
	Name string
	// Seen by users between the moment that the mesh obeyed and the step's end.
	Seen load.Counts
	// Copies is how many mirrored requests v3 received in the step, and Served how many all of reviews answered to users meanwhile.
	Copies, Served float64
}

// Play pushes v3 and follows the Rollout to the story's end. The Rollout must be Healthy on v1.
func Play(ctx context.Context, story Story, b *session.Bookinfo, generator *load.Generator, tell func(string, ...any)) (*Result, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	p := &player{story: story, bookinfo: b, generator: generator, tell: tell, result: &Result{}}
	p.start = generator.Counts()
	watch, err := b.Watch(ctx)
	if err != nil {
		return nil, err
	}
	p.result.Pushed = time.Now()
	sha, err := b.PushRollout(ctx, "reviews: v3", func(spec *v1.RolloutSpec) { spec.Version = Canary })
	if err != nil {
		return nil, err
	}
	p.pushed = sha
	tell("pushed reviews version v3 as %.8s", sha)
	var end <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("scenario %s did not end: %s", story.Name, p.last())
		case <-end:
			return p.finish(ctx)
		case seen := <-watch:
			done, err := p.see(ctx, seen)
			if err != nil {
				return nil, err
			}
			if done && end == nil {
				end = time.After(settled)
			}
		}
	}
}

// Check says where a result differs from how the story should end; empty when it does not.
func (s Story) Check(r *Result) []string {
	var wrong []string
	status := r.Rollout.Status
	if status.Phase != s.Phase || status.Stable != s.StableVersion || (s.Reason != "" && status.Reason != s.Reason) {
		wrong = append(wrong, fmt.Sprintf("ended %s (%s) with stable %s, want %s %s with stable %s",
			status.Phase, status.Reason, status.Stable, s.Phase, s.Reason, s.StableVersion))
	}
	if !r.GateEarliest.IsZero() && !r.WeightsBack.Before(r.GateEarliest) {
		wrong = append(wrong, fmt.Sprintf("the breaker took until %s, the gate alone could have rolled back at %s", r.WeightsBack, r.GateEarliest))
	}
	if s.Flawless && r.Load.Failed > 0 {
		wrong = append(wrong, fmt.Sprintf("%d of %d requests failed for their users (last: %v), want 0", r.Load.Failed, r.Load.Total, r.Load.LastError))
	}
	if r.Load.Total == 0 {
		wrong = append(wrong, "no user came by")
	}
	if t := status.Traffic; t == nil || t.Canary != nil || t.Fault != nil || t.Mirror != nil || len(t.Match) > 0 {
		wrong = append(wrong, "traffic of the run is left in status")
	}
	return wrong
}

// share is the part of answered pages that a version of reviews served, in percent.
func share(counts load.Counts, version string) float64 {
	total := 0
	for v, n := range counts.ByVersion {
		if v != "" {
			total += n
		}
	}
	if total == 0 {
		return 0
	}
	return 100 * float64(counts.ByVersion[version]) / float64(total)
}

// versionsOf lists the versions seen, sorted.
func versionsOf(counts load.Counts) []string {
	var versions []string
	for v, n := range counts.ByVersion {
		if v != "" && n > 0 {
			versions = append(versions, v)
		}
	}
	slices.Sort(versions)
	return versions
}
