package controllers

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"sluice.dev/sluice/internal/pipeline"
)

// unprobed are kinds of which nobody knows yet whether they can be read.
type unprobed struct{}

func (unprobed) Problem(schema.GroupKind) (*pipeline.Problem, bool) { return nil, false }
func (unprobed) Current(schema.GroupKind) bool                      { return false }
func (unprobed) Unwatched() *pipeline.Problem                       { return nil }

// A cache is current once it has seen all that was there when the kind was first found to be readable.
func TestCurrentKinds(t *testing.T) {
	for name, tc := range map[string]struct {
		began, seen string
		want        bool
	}{
		"a consistent list": {"100", "100", true}, "events since": {"100", "120", true}, "an old list": {"100", "90", false},
		"not synced yet": {"100", "", false}, "never probed": {"", "100", false}, "of more digits": {"99", "100", true},
	} {
		w := newKindWatches(nil, nil, Options{}, func() {})
		w.add(watchedKind{kind: kindVirtualService}, nil, func() string { return tc.seen })
		if tc.began != "" {
			w.note(kindVirtualService.GroupKind(), tc.began)
			w.note(kindVirtualService.GroupKind(), "999")
		}
		if got := w.Current(kindVirtualService.GroupKind()); got != tc.want {
			t.Errorf("%s: current is %t, want %t", name, got, tc.want)
		}
		if w.Current(kindDestinationRule.GroupKind()) {
			t.Errorf("%s: a kind that is not watched is current", name)
		}
	}
}

// A probe that keeps failing must not make every Rollout spin; when it succeeds, all that waited are woken.
func TestUnknownKindsAreWaitedForWithoutHaste(t *testing.T) {
	r := NewRolloutReconciler(Dependencies{Kinds: unprobed{}})
	_, err := r.look(t.Context(), atHalf("reviews"), nil)
	result, err := r.outcome(err)
	if err != nil || result.RequeueAfter != staleRetry {
		t.Errorf("reconciled again in %s (error %v), want %s", result.RequeueAfter, err, staleRetry)
	}
	if woken := r.interest.all(); !slices.Contains(woken, keyOf("bookinfo", "reviews")) {
		t.Errorf("the Rollouts to wake are %v, reviews is not among them", woken)
	}
}
