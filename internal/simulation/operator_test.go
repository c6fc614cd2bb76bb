package simulation

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"sluice.dev/sluice/controllers"
)

// newReconciler is the real reconciler on a process's simulated surroundings.
func newReconciler(p *process) reconcile.Reconciler {
	return controllers.NewRolloutReconciler(controllers.Dependencies{
		Client:  &apiClient{process: p, scheme: scheme},
		Live:    &apiClient{process: p, scheme: scheme, isLive: true},
		Clock:   p.world.clock,
		Analyst: p.analyst,
		Events:  recorder{p},
		Config:  config,
	})
}

// recorder puts events into the transcript.
type recorder struct{ process *process }

func (r recorder) Eventf(_, _ runtime.Object, kind, reason, _, note string, args ...any) {
	if !r.process.dead {
		r.process.world.oracle.event(reason)
		r.process.world.transcript.line("event", "%s %s: %s", kind, reason, fmt.Sprintf(note, args...))
	}
}
