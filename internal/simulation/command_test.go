package simulation

import (
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	v1 "sluice.dev/sluice/api/v1"
)

// A command is told to have no effect, once each, and nothing comes of it.
func TestCommandsAreToldToBeIgnored(t *testing.T) {
	atHalf(t, func(w *world) {
		w.annotate(v1.CommandAnnotation, "rollback v1 17")
		w.pass(10 * time.Second)
		found := meta.FindStatusCondition(w.rollout().Status.Conditions, v1.ConditionCommandIgnored)
		if found == nil || !strings.Contains(found.Message, `annotation sluice.dev/command: "rollback v1 17" has no effect`) {
			t.Fatalf("condition %+v", found)
		}
		checkTold(t, w, 1, `annotation sluice.dev/command: "rollback v1 17" has no effect`)
		checkRoutes(t, w, mainKey, toBoth)
		w.annotate(v1.CommandAnnotation, "rollback v1 18")
		w.pass(10 * time.Second)
		checkTold(t, w, 1, "rollback v1 18")
		w.annotate(v1.CommandAnnotation, "")
		w.pass(5 * time.Second)
		if found := meta.FindStatusCondition(w.rollout().Status.Conditions, v1.ConditionCommandIgnored); found != nil {
			t.Errorf("condition %+v without the annotation", found)
		}
	})
}
