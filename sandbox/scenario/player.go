package scenario

import (
	"context"
	"fmt"
	"strings"
	"time"

	eventsv1 "k8s.io/api/events/v1"

	networking "istio.io/client-go/pkg/apis/networking/v1"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/load"
	"sluice.dev/sluice/sandbox/session"
)

// obeyed is how long after the acknowledged write the proxies are taken to have followed it.
const obeyed = time.Second

// settled is how long the end is watched, so that its events are told and what goes wrong right after it is counted.
const settled = 3 * time.Second

// player follows one Rollout through a story.
type player struct {
	story     Story
	bookinfo  *session.Bookinfo
	generator *load.Generator
	tell      func(string, ...any)
	result    *Result
	rollout   *v1.Rollout
	// pushed is the commit of v3.
	pushed string

	start load.Counts
	// step in which the Rollout is, and what was counted when its traffic was in force.
	step    string
	inForce *counters
	// exposed is true once users were sent to the canary by the VirtualService.
	exposed bool
}

// counters are read together.
type counters struct {
	load          load.Counts
	copies, asked float64
}

func (p *player) last() string {
	if p.rollout == nil {
		return "no Rollout was seen"
	}
	s := p.rollout.Status
	return fmt.Sprintf("%s %s: %s", s.Phase, s.Reason, s.Message)
}

// see takes in one change; true when the story is over.
func (p *player) see(ctx context.Context, seen session.Seen) (bool, error) {
	switch {
	case seen.Event != nil:
		p.tellEvent(seen.Event)
	case seen.VirtualService != nil:
		p.seeVirtualService(seen.VirtualService, seen.At)
	case seen.Rollout != nil && seen.Rollout.Name == "reviews":
		p.rollout = seen.Rollout
		if p.result.Applied.IsZero() && seen.Rollout.Spec.Version == Canary {
			p.result.Applied = seen.At
		}
		if err := p.seeRollout(ctx); err != nil {
			return false, err
		}
	}
	return p.rollout != nil && p.over(), nil
}

func (p *player) tellEvent(e *eventsv1.Event) {
	mark := " "
	if session.IsWarning(e) {
		mark = "!"
	}
	p.tell("%s %-16s %s", mark, e.Reason, e.Note)
}

// seeRollout notices where a step begins, is in force, and ends.
func (p *player) seeRollout(ctx context.Context) error {
	step := p.rollout.Status.Step
	name := ""
	if step != nil {
		name = step.Name
	}
	if name != p.step {
		if err := p.leaveStep(ctx); err != nil {
			return err
		}
		p.step = name
	}
	if step == nil || step.Applied == nil || p.inForce != nil {
		return nil
	}
	if p.story.Reason == v1.ReasonTrip {
		p.result.GateEarliest = gateEarliest(step.Applied.Time)
	}
	if err := p.enterForce(ctx, step.Applied.Time); err != nil {
		return err
	}
	if name == "half" && p.story.atHalf != nil {
		if err := p.story.atHalf(ctx, p.bookinfo); err != nil {
			return fmt.Errorf("at half: %w", err)
		}
		p.result.HalfDone = time.Now()
	}
	return nil
}

// gateEarliest is when a gate with all defaults can roll back at the soonest: at its second sample, once that has settled.
func gateEarliest(applied time.Time) time.Time {
	const window, interval, settle = time.Minute, 10 * time.Second, time.Second
	first := applied.Add(obeyed + window).Truncate(interval).Add(interval)
	return first.Add(interval + settle)
}

// enterForce counts from when the proxies obey.
func (p *player) enterForce(ctx context.Context, applied time.Time) error {
	select {
	case <-time.After(time.Until(applied.Add(obeyed))):
	case <-ctx.Done():
		return ctx.Err()
	}
	now, err := p.count(ctx)
	p.inForce = now
	return err
}

func (p *player) leaveStep(ctx context.Context) error {
	if p.step == "" || p.inForce == nil {
		return nil
	}
	now, err := p.count(ctx)
	if err != nil {
		return err
	}
	seen := StepSeen{
		Name: p.step, Seen: now.load.Since(p.inForce.load),
		Copies: now.copies - p.inForce.copies, Served: now.asked - p.inForce.asked,
	}
	p.inForce = nil
	p.result.Steps = append(p.result.Steps, seen)
	p.tell("    measured in %s: %s", seen.Name, seen.words())
	return nil
}

func (p *player) count(ctx context.Context) (*counters, error) {
	copies, err := p.bookinfo.Received(ctx, Canary)
	if err != nil {
		return nil, err
	}
	asked, err := p.bookinfo.Asked(ctx)
	return &counters{load: p.generator.Counts(), copies: copies, asked: asked}, err
}

// words of what users saw: "reviews v1 49.8%, v3 50.2% of 1012 pages, 0 failed; v3 received 510 requests".
func (s StepSeen) words() string {
	var shares []string
	for _, version := range versionsOf(s.Seen) {
		shares = append(shares, fmt.Sprintf("%s %.1f%%", version, share(s.Seen, version)))
	}
	return fmt.Sprintf("%s of %d pages, %d failed; %s received %.0f of %.0f requests to reviews",
		strings.Join(shares, ", "), s.Seen.Total, s.Seen.Failed, Canary, s.Copies, s.Served)
}

// seeVirtualService notes when users are sent to the canary, and when no longer.
func (p *player) seeVirtualService(vs *networking.VirtualService, at time.Time) {
	if vs.Name != "reviews" {
		return
	}
	if p.result.FirstWrite.IsZero() && !p.result.Applied.IsZero() {
		p.result.FirstWrite = at
		p.tellDelivery()
	}
	toCanary := false
	for _, route := range vs.Spec.Http {
		for _, d := range route.Route {
			toCanary = toCanary || (d.Destination.GetSubset() == Canary && (d.Weight > 0 || len(route.Route) == 1))
		}
	}
	if p.exposed && !toCanary {
		p.result.WeightsBack = at
	}
	p.exposed = toCanary
}

// tellDelivery tells the way from the push to the first write of traffic, from when the Git server had taken the push in.
func (p *player) tellDelivery() {
	r := p.result
	d, found := p.bookinfo.DeliveryOf(p.pushed)
	if !found || d.Err != nil {
		return
	}
	r.Delivery = d
	since := func(at time.Time) float64 { return at.Sub(d.Sent).Seconds() }
	p.tell("    push → webhook answered %d %s after %.3fs → Rollout applied after %.3fs → first traffic write after %.3fs",
		d.Status, d.Reason, since(d.Answered), since(r.Applied), since(r.FirstWrite))
}

// over tells whether the run that v3 began has ended as the story says, or otherwise for good.
func (p *player) over() bool {
	status := p.rollout.Status
	if len(status.History) == 0 || status.ObservedGeneration != p.rollout.Generation || status.Run != nil {
		return false
	}
	if p.story.Phase == v1.PhaseRolledBack || p.story.StableVersion == Stable {
		return (status.Phase == v1.PhaseRolledBack || status.Phase == v1.PhaseHealthy) && !p.result.WeightsBack.IsZero()
	}
	return status.Phase == v1.PhaseHealthy || status.Phase == v1.PhaseRolledBack
}

// finish collects the result.
func (p *player) finish(ctx context.Context) (*Result, error) {
	rollout, err := p.bookinfo.Rollout(ctx)
	if err != nil {
		return nil, err
	}
	r := p.result
	r.Rollout, r.Load, r.Finished = rollout, p.generator.Counts().Since(p.start), time.Now().Add(-settled)
	if f := rollout.Status.LastFailure; f != nil && rollout.Status.Reason == v1.ReasonTrip {
		r.DecidingSample = f.Time.Time
		if r.FirstBadSample, err = p.bookinfo.FirstLost(ctx, "UO"); err != nil {
			return nil, err
		}
	} else if f != nil {
		interval, failures := 10*time.Second, int32(2)
		if d := rollout.Spec.GateDefaults; d != nil {
			interval, failures = d.Interval.Duration, *d.Failures
		}
		r.DecidingSample = f.Time.Time
		r.FirstBadSample = f.Time.Add(-time.Duration(failures-1) * interval)
	}
	return r, nil
}
