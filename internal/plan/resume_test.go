package plan

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"sluice.dev/sluice/internal/manifest"
)

// A Rollout that is read in mid-run goes on from there: what is left to write is the rest of the whole plan.
func TestResume(t *testing.T) {
	objects, err := manifest.Load(t.Context(), []string{"../../examples/reviews"}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	in := inputOf(objects)
	whole, err := Make(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := Make(t.Context(), stoppedAt(t, in, "ratings-slow"))
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(whole.Stages, func(s Stage) bool { return s.Name == "3/4 half" })
	var want, got []string
	for _, s := range whole.Stages[at:] {
		want = append(want, writesOf(s)...)
	}
	for _, s := range rest.Stages {
		got = append(got, writesOf(s)...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("writes from step ratings-slow on (-whole plan +resumed):\n%s", diff)
	}
	if rest.From != "v1" || rest.To != "v3" || rest.Problem != nil || rest.Stages[0].Name != "2/4 ratings-slow" {
		t.Errorf("from %s to %s, problem %v, first stage %s", rest.From, rest.To, rest.Problem, rest.Stages[0].Name)
	}
}

// A revert in mid-run goes from the canary back to stable, at once.
func TestRevert(t *testing.T) {
	objects, err := manifest.Load(t.Context(), []string{"../../examples/reviews"}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	then := stoppedAt(t, inputOf(objects), "half")
	then.To = "v1"
	p, err := Make(t.Context(), then)
	if err != nil {
		t.Fatal(err)
	}
	if p.From != "v3" || p.To != "v1" || p.Problem != nil || len(p.Stages) != 1 || p.Stages[0].Step || len(p.Stages[0].Writes) == 0 {
		t.Errorf("from %s to %s, problem %v, %d stages; want v3 to v1 without steps", p.From, p.To, p.Problem, len(p.Stages))
	}
}

func inputOf(objects []manifest.Object) Input {
	in := Input{From: "v1", To: "v3", PropagationDelay: 2 * time.Second, Now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)}
	for _, o := range objects {
		o.SetNamespace("bookinfo")
		if o.GetKind() == "Rollout" {
			in.Rollout = o.Unstructured
		} else {
			in.Objects = append(in.Objects, o.Unstructured)
		}
	}
	return in
}

func writesOf(s Stage) []string {
	var lines []string
	for _, w := range s.Writes {
		line := s.Name + ": " + w.Kind + " " + w.Name
		if w.After == nil {
			line += " deleted"
		} else {
			line += " " + cmp.Diff(nil, w.After.Object["spec"])
		}
		lines = append(lines, line)
	}
	return lines
}

// stoppedAt plays a run until a step's traffic is written, and returns what a cluster would have then.
func stoppedAt(t *testing.T, in Input, step string) Input {
	t.Helper()
	w, err := newWorld(in)
	if err == nil {
		err = w.populate()
	}
	if err == nil {
		err = w.rest(t.Context(), in.From)
	}
	if err == nil {
		err = w.ask(in.To, "version")
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		result, err := w.operator.Reconcile(t.Context(), reconcile.Request{NamespacedName: w.key})
		if err != nil {
			t.Fatal(err)
		}
		rollout, err := w.rollout()
		if err != nil {
			t.Fatal(err)
		}
		if s := rollout.Status.Step; s != nil && s.Name == step && s.Applied != nil {
			then := Input{PropagationDelay: in.PropagationDelay, Now: w.clock.Now()}
			for k, object := range w.store.objects {
				if k.kind == "Rollout" {
					then.Rollout = object
				} else {
					then.Objects = append(then.Objects, object)
				}
			}
			return then
		}
		w.clock.advance(soonest(result.RequeueAfter, w.analyst.next()))
	}
	t.Fatalf("step %s is never applied", step)
	return Input{}
}

// No step of the run that is played takes less than its plan says, and none takes longer than that by more than the waits that no
// manifest can shorten: for a new subset, for the gates' grid and for the judgement of their samples.
func TestLeastIsWhatARunTakes(t *testing.T) {
	objects, err := manifest.Load(t.Context(), []string{"../../examples/reviews"}, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for hold, want := range map[string]time.Duration{"10s": 10 * time.Second, "1s": 10 * time.Second} { // the probe's requests take 8 s
		in := inputOf(objects)
		steps := in.Rollout.Object["spec"].(map[string]any)["steps"].([]any)
		fault := steps[1].(map[string]any)
		fault["hold"], fault["probe"].(map[string]any)["interval"] = hold, "4s"
		w, err := newWorld(in)
		if err != nil {
			t.Fatal(err)
		}
		p, err := w.make(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		rollout, err := w.rollout()
		if err != nil || len(rollout.Status.History) == 0 {
			t.Fatalf("%d runs, error %v", len(rollout.Status.History), err)
		}
		for i, step := range rollout.Status.History[0].Steps {
			stage := p.Stages[i]
			took, slack := step.FinishedAt.Sub(step.StartedAt.Time), in.PropagationDelay+settle+time.Second
			for _, g := range stage.Gates {
				slack = max(slack, in.PropagationDelay+settle+time.Second+g.Interval)
			}
			if took < stage.Least || took > stage.Least+slack {
				t.Errorf("step %s takes %s, planned were at least %s", step.Name, took, stage.Least)
			}
		}
		if got := p.Stages[1].Least; got != want {
			t.Errorf("hold %s: the step with the probe takes at least %s, want %s", hold, got, want)
		}
	}
}
