package controllers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func after(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

func newNotes() *notes {
	return newMemory().of(rolloutOf(v1.RolloutSpec{}))
}

func TestWrittenIsTheLastAcknowledgedWrite(t *testing.T) {
	n := newNotes()
	traffic := &v1.Traffic{Weight: 50}
	n.about(traffic)
	if w := n.settle(false, after(0)); w != nil {
		t.Fatalf("known as written before it was: %+v", w)
	}
	n.acked = after(1) // a write was acknowledged
	want := &pipeline.Written{At: after(1), Wrote: true}
	for _, now := range []time.Time{after(2), after(9)} {
		if diff := cmp.Diff(want, n.settle(true, now)); diff != "" {
			t.Errorf("at %s (-want +got):\n%s", now, diff)
		}
	}
	if n.settle(false, after(10)); n.settle(true, after(11)).At != after(11) {
		t.Error("traffic that was off and is right again was not right all the time")
	}
	n.about(&v1.Traffic{Weight: 100})
	if w := n.settle(true, after(20)); w.At != after(20) || w.Wrote {
		t.Errorf("another traffic that needed no write: %+v", w)
	}
}

func TestWrittenAfterRestartAndAfterALostAnswer(t *testing.T) {
	restarted := newNotes()
	restarted.about(&v1.Traffic{})
	if w := restarted.settle(true, after(3)); w.At != after(3) || w.Wrote {
		t.Errorf("a restarted process that finds nothing to write knows %+v", w)
	}
	lost := newNotes()
	lost.about(&v1.Traffic{})
	lost.settle(false, after(0))
	lost.touched = true // the write was tried, its answer lost
	if w := lost.settle(true, after(4)); w.At != after(4) || !w.Wrote {
		t.Errorf("a write whose answer was lost may have landed at any time until now: %+v", w)
	}
}

func TestSubsetsAreWaitedFor(t *testing.T) {
	n := newNotes()
	v3 := []v1.Subset{{Name: "v3", Labels: labelled("version", "v3")}}
	delay := 2 * time.Second
	if got := n.untilKnown("v3", v3[0].Labels, false, delay, after(0)); got != delay {
		t.Errorf("a subset that is not there is waited for %s, want the whole delay", got)
	}
	n.observeSubsets(v3, after(0))
	if got := n.untilKnown("v3", v3[0].Labels, false, delay, after(1)); got != time.Second {
		t.Errorf("after 1s: %s more, want 1s", got)
	}
	if got := n.untilKnown("v3", v3[0].Labels, true, delay, after(1)); got != 0 {
		t.Errorf("the way back to what was there before this process waits %s, want 0", got)
	}
	if got := n.untilKnown("v3", v3[0].Labels, false, delay, after(5)); got != 0 {
		t.Errorf("after 5s: %s more, want 0", got)
	}
	n.observeSubsets([]v1.Subset{{Name: "v3", Labels: labelled("version", "other")}}, after(6))
	if got := n.untilKnown("v3", v3[0].Labels, false, delay, after(6)); got != delay {
		t.Errorf("after its labels changed: %s, want the whole delay", got)
	}
	n.observeSubsets(v3, after(7))
	if got := n.untilKnown("v3", v3[0].Labels, true, delay, after(8)); got != time.Second {
		t.Errorf("the way back to what came a second ago waits %s, want 1s", got)
	}
}

func TestSubsetsLeaveAfterTheirLastReference(t *testing.T) {
	n := newNotes()
	delay := 2 * time.Second
	steps := []struct {
		at    int
		named bool
		rest  time.Duration
		goes  bool
	}{
		{0, true, 0, false}, {1, false, delay, true}, {2, false, time.Second, true}, {3, true, 0, false}, {4, false, delay, true}, {6, false, 0, true},
	}
	for _, s := range steps {
		rest, goes := n.untilReleased("v1", s.named, delay, after(s.at))
		if rest != s.rest || goes != s.goes {
			t.Errorf("at %ds, named %v: %s %v, want %s %v", s.at, s.named, rest, goes, s.rest, s.goes)
		}
	}
	n.needed("v1")
	if rest, _ := n.untilReleased("v1", false, delay, after(9)); rest != delay {
		t.Errorf("needed in between: %s more, want the whole delay", rest)
	}
}

func TestNotesOfARecreatedRollout(t *testing.T) {
	m := newMemory()
	rollout := rolloutOf(v1.RolloutSpec{})
	m.of(rollout).conflicts = 3
	if m.of(rollout).conflicts != 3 {
		t.Error("notes were lost")
	}
	rollout.UID = "another"
	if m.of(rollout).conflicts != 0 {
		t.Error("notes of a deleted Rollout were taken over by its namesake")
	}
}
