package simulation

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// becomes updates the Deployment of one version in place: its pods are to be another version's. Its selector takes those of either.
func (w *world) becomes(version, other string) {
	w.store.edit("cluster", deploymentKey(version), func(o map[string]any) {
		_ = unstructured.SetNestedStringMap(o, map[string]string{"app": "reviews"}, "spec", "selector", "matchLabels")
		_ = unstructured.SetNestedField(o, other, "spec", "template", "metadata", "labels", "version")
	})
	w.rebuild(version)
}

// A workload of stable's that is updated in place to the canary, in mid-run and instead of the canary's own, is told as what it is.
func TestUpdatedInPlaceInMidRun(t *testing.T) {
	atHalf(t, func(w *world) {
		w.store.record("cluster", deploymentKey("v3"), nil)
		w.becomes("v1", "v3")
		w.pass(10 * time.Second)
		checkRoutes(t, w, mainKey, toStable)
		const words = "versions v3 and v1 are run by one workload, reviews-v1, which is updated in place"
		if s := w.rollout().Status; s.Phase != v1.PhaseStalled || s.Reason != v1.ReasonVersionsOverlap || !strings.Contains(s.Message, words) || s.Rejected != nil {
			t.Errorf("%s/%s: %s, rejected %v", s.Phase, s.Reason, s.Message, s.Rejected)
		}
		if got := w.rollout().Status.History[0].Verdict; got != v1.ReasonVersionsOverlap {
			t.Errorf("the run's verdict is %s", got)
		}
		checkTold(t, w, 0, "a new run follows")
		checkTold(t, w, 2, words)
	})
}
