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
