package pipeline

import (
	"strings"
	"testing"

	v1 "sluice.dev/sluice/api/v1"
)

// Who changes one workload instead of adding another is told what to do, by each way of doing so.
func TestInPlaceIsAdvised(t *testing.T) {
	for name, tc := range map[string]struct {
		see    func(w *world)
		reason string
		advice bool
	}{
		"labels and all": {func(w *world) {
			w.see("v1", func(v *Version) { v.Workload = "reviews" }).see("v3", func(v *Version) { v.Workload, v.Overlaps = "reviews", "v1" })
		}, v1.ReasonVersionsOverlap, true},
		"labels of both": {func(w *world) {
			w.see("v1", func(v *Version) { v.Workload = "reviews-v1" }).see("v3", func(v *Version) { v.Workload, v.Overlaps = "reviews-v3", "v1" })
		}, v1.ReasonVersionsOverlap, false},
		"the image alone": {func(w *world) {
			w.see("v1", func(v *Version) { v.Revision = "changed" }).see("v3", func(v *Version) { *v = Version{Labels: v.Labels, Subset: v.Subset} })
		}, v1.ReasonVersionNotFound, true},
		"not deployed": {func(w *world) {
			w.see("v3", func(v *Version) { *v = Version{Labels: v.Labels, Subset: v.Subset} })
		}, v1.ReasonVersionNotFound, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := reviews(t).settle()
			tc.see(w)
			message := w.ask("v3").settle().want(v1.PhaseStalled, tc.reason, "v1", 0).status().Message
			if got := strings.Contains(message, inPlaceAdvice); got != tc.advice {
				t.Errorf("advice %v, want %v: %s", got, tc.advice, message)
			}
		})
	}
}
