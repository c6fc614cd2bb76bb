package simulation

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

var update = flag.Bool("update", false, "write the transcripts anew")

// script is a story that people can read: what they and the world do, and when. Everything else is the code under test.
type script struct {
	name  string
	story []act
	// last is how long the story goes on.
	last time.Duration
	// ends is the phase and reason in which it must end, on the version that must serve then.
	ends, stable string
	// breaker of the Rollout.
	breaker *v1.Breaker
}

// act happens at a time since the start; from a minute on, the Rollout is Healthy on v1.
type act struct {
	at time.Duration
	do func(*world)
}

func pushes(at time.Duration, version string) act {
	return act{at, func(w *world) { w.push(version) }}
}

const minute = time.Minute

// undoing is another writer in a loop, who takes the canary's weight away.
func undoing(from, every time.Duration, times int) []act {
	var acts []act
	for i := range times {
		acts = append(acts, act{from + time.Duration(i)*every, func(w *world) {
			w.transcript.line("another writer", "weights 100/0")
			w.editRoutes(mainKey, func(r map[string]any) {
				if list, _ := r["route"].([]any); len(list) == 2 {
					list[0].(map[string]any)["weight"], list[1].(map[string]any)["weight"] = int64(100), int64(0)
				}
			})
		}})
	}
	return acts
}

// half is a time in the middle of the step named half, of a run that was pushed at 1:00.
const half = 2*minute + 5*time.Second

var scripts = []script{
	{name: "happy", last: 6 * minute, ends: "Healthy/Serving", stable: "v3", story: []act{pushes(minute, "v3")}},
	{name: "gate-fails-at-half", last: 6 * minute, ends: "RolledBack/GateFailed", stable: "v1", story: []act{
		pushes(minute, "v3"),
		{half, func(w *world) { w.prometheus.setErrors("v3", 0.05) }},
	}},
	{name: "revert-at-half", last: 6 * minute, ends: "Healthy/Serving", stable: "v1", story: []act{pushes(minute, "v3"), pushes(half, "v1")}},
	{name: "third-version", last: 8 * minute, ends: "Healthy/Serving", stable: "v2", story: []act{pushes(minute, "v3"), pushes(half, "v2")}},
	{name: "edit-of-a-passed-step", last: 9 * minute, ends: "Healthy/Serving", stable: "v3", story: []act{
		pushes(minute, "v3"),
		{half, func(w *world) {
			w.transcript.line("git", "push mirror percentage 50 in the first step")
			w.editSpec(func(s *v1.RolloutSpec) { s.Steps[0].Mirror.Percentage = new(int32(50)) })
		}},
	}},
	{name: "workload-changes", last: 9 * minute, ends: "Healthy/Serving", stable: "v3", story: []act{
		pushes(minute, "v3"),
		{half, func(w *world) { w.rebuild("v3") }},
		{half + 10*time.Second, func(w *world) { w.setReady("v3", true) }},
	}},
	{name: "canary-lost", last: 6 * minute, ends: "RolledBack/Unavailable", stable: "v1", story: []act{
		pushes(minute, "v3"),
		{half, func(w *world) { w.setReady("v3", false) }},
	}},
	{name: "crash-in-the-fault-step", last: 7 * minute, ends: "Healthy/Serving", stable: "v3", story: []act{
		pushes(minute, "v3"),
		{minute + 50*time.Second, func(w *world) { w.crash(w.process, "in the fault step") }},
		pushes(minute+51*time.Second, "v1"),
		pushes(3*minute, "v3"),
	}},
	{name: "crash-between-status-and-mesh", last: 6 * minute, ends: "Healthy/Serving", stable: "v3", story: []act{
		pushes(minute, "v3"),
		{2*minute + 5*time.Second, func(w *world) { w.faults.forced[kindVirtualService] = crashBefore }},
	}},
	{name: "suspend-and-resume", last: 8 * minute, ends: "Healthy/Serving", stable: "v3", story: []act{
		pushes(minute, "v3"),
		{half, func(w *world) {
			w.transcript.line("git", "push suspend: true")
			w.editSpec(func(s *v1.RolloutSpec) { s.Suspend = true })
		}},
		{half + 2*minute, func(w *world) {
			w.transcript.line("git", "push suspend: false")
			w.editSpec(func(s *v1.RolloutSpec) { s.Suspend = false })
		}},
	}},
	{name: "contended-at-half", last: 12 * minute, ends: "Healthy/Serving", stable: "v3", story: append([]act{pushes(minute, "v3")}, undoing(half, 10*time.Second, 8)...)},
	{name: "instant-return", last: 8 * minute, ends: "Healthy/Serving", stable: "v1", story: []act{pushes(minute, "v3"), pushes(7*minute, "v1")}},
	{name: "canary-never-available", last: 6 * minute, ends: "RolledBack/Unavailable", stable: "v1", story: []act{
		{30 * time.Second, func(w *world) { w.setReady("v3", false) }},
		pushes(minute, "v3"),
	}},
	{name: "deleted-at-half", last: 5 * minute, story: []act{
		pushes(minute, "v3"),
		{half, func(w *world) {
			w.transcript.line("people", "delete the Rollout")
			_ = w.store.remove("people", rolloutKey, nil)
		}},
	}},
}

func TestTranscripts(t *testing.T) {
	for _, s := range scripts {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(1)
			w.at(epoch.Add(9*time.Second), func() { w.transcript.on = true })
			synctest.Test(t, func(*testing.T) { s.play(w) })
			if w.violation != nil {
				t.Fatalf("%v\n%s", w.violation, w.transcript.text.String())
			}
			if r := w.rollout(); s.ends != "" && (r == nil || string(r.Status.Phase)+"/"+r.Status.Reason != s.ends || r.Status.Stable != s.stable) {
				t.Errorf("ended %s/%s on %s, want %s on %s", r.Status.Phase, r.Status.Reason, r.Status.Stable, s.ends, s.stable)
			}
			compare(t, filepath.Join("testdata", s.name+".txt"), w.transcript.text.String())
		})
	}
}

func (s *script) play(w *world) {
	spec := parseSpec(baseSpec)
	spec.Breaker = s.breaker
	w.build(setting{mesh: "simple", foundSubsets: []string{"v1"}, spec: spec})
	for _, a := range s.story {
		w.at(epoch.Add(a.at), func() { a.do(w) })
	}
	w.run(epoch.Add(s.last))
	w.oracle.untouched()
}

func compare(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got, -update accepts):\n%s", file, diff)
	}
}
