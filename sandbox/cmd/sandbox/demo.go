package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/scenario"
)

// demo tells one story from an empty machine to its end, and fails when it does not end as it should.
func demo(ctx context.Context, name string, out io.Writer) error {
	story, err := scenario.StoryNamed(name)
	if err != nil {
		return err
	}
	began := time.Now()
	fmt.Fprintf(out, "%s: %s\n\nstarting, on loopback:\n", story.Name, story.Tells)
	s, err := start(ctx, true, out)
	if err != nil {
		return err
	}
	defer s.stop()
	generator, err := s.bookinfo.StartLoad(ctx, rate)
	if err != nil {
		return err
	}
	defer generator.Stop()
	tell := teller(out)
	fmt.Fprintf(out, "\n%d requests per second come in, a tenth of them from jason.\n\n", rate)
	story.Prepare(s.bookinfo)
	if err := s.bookinfo.Follow(ctx); err != nil {
		return err
	}
	tell("Git holds reviews version v1; the Rollout is Healthy")
	result, err := scenario.Play(ctx, story, s.bookinfo, generator, tell)
	if err != nil {
		return err
	}
	table, err := s.KubectlRun(ctx, "get", "rollouts", "-n", namespace)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "\n$ kubectl get rollouts -n %s\n%s\n", namespace, table)
	summarize(out, story, result, time.Since(began))
	if wrong := story.Check(result); len(wrong) > 0 {
		return fmt.Errorf("scenario %s: %s", story.Name, strings.Join(wrong, "; "))
	}
	return nil
}

// teller prints a line with the time since it was made.
func teller(out io.Writer) func(string, ...any) {
	began := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(out, "%6.1fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
}

func summarize(out io.Writer, story scenario.Story, r *scenario.Result, took time.Duration) {
	status := r.Rollout.Status
	fmt.Fprintf(out, "summary of %s\n", story.Name)
	fmt.Fprintf(out, "  outcome           %s, %s serves 100%%\n", status.Phase, status.Stable)
	if status.Phase == v1.PhaseRolledBack {
		fmt.Fprintf(out, "  why               %s\n", status.Message)
	}
	fmt.Fprintf(out, "  user requests     %d, of which %d failed\n", r.Load.Total, r.Load.Failed)
	if d := r.Delivery; !d.Sent.IsZero() {
		fmt.Fprintf(out, "  push to traffic   %.2fs from the push's arrival over webhook (%.2fs) and Rollout (%.2fs) to the first write; the propagation delay is 1s of it\n",
			r.FirstWrite.Sub(d.Sent).Seconds(), d.Answered.Sub(d.Sent).Seconds(), r.Applied.Sub(d.Sent).Seconds())
	}
	if !r.FirstBadSample.IsZero() && !r.WeightsBack.IsZero() {
		fmt.Fprintf(out, "  rolled back       VirtualService written %.2fs after the first bad sample, %.2fs after the one that decided\n",
			r.WeightsBack.Sub(r.FirstBadSample).Seconds(), r.WeightsBack.Sub(r.DecidingSample).Seconds())
	}
	if !r.GateEarliest.IsZero() {
		fmt.Fprintf(out, "  the gate alone    would still be waiting: it could not have rolled back for another %.0fs\n", r.GateEarliest.Sub(r.WeightsBack).Seconds())
	}
	if story.Name == "revert" && !r.WeightsBack.IsZero() {
		fmt.Fprintf(out, "  reverted          VirtualService written %.2fs after the revert was pushed\n", r.WeightsBack.Sub(r.HalfDone).Seconds())
	}
	fmt.Fprintf(out, "  from push to end  %.0fs; everything, with the start: %.0fs\n", r.Finished.Sub(r.Pushed).Seconds(), took.Seconds())
}
