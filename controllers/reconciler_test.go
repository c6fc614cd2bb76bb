package controllers

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"sluice.dev/sluice/internal/pipeline"
)

// unprobed are kinds of which nobody knows yet whether they can be read.
type unprobed struct{}

func (unprobed) Problem(schema.GroupKind) (*pipeline.Problem, bool) { return nil, false }

// A probe that keeps failing must not make every Rollout spin; when it succeeds, all that waited are woken.
func TestUnknownKindsAreWaitedForWithoutHaste(t *testing.T) {
	k := newCluster(t, interceptor.Funcs{}, reviewsService(), atHalf("reviews"))
	k.Kinds = unprobed{}
	if rest := k.reconciled(); rest != staleRetry {
		t.Errorf("reconciled again in %s, want %s", rest, staleRetry)
	}
	if woken := k.interest.all(); !slices.Contains(woken, keyOf("bookinfo", "reviews")) {
		t.Errorf("the Rollouts to wake are %v, reviews is not among them", woken)
	}
}
