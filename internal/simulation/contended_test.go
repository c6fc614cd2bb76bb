package simulation

import (
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

func init() {
	deeds = append(deeds, deed{"somebody applies the routes in a loop", 3, (*world).applyInALoop})
	interesting = append(interesting, "phase Waiting/Contended", "rollback while contended", "event Restored")
}

// applyInALoop has somebody else apply the whole VirtualService as it was found, again and again for a while.
func (w *world) applyInALoop() {
	backup := w.setting.backup()
	if backup == "" {
		return
	}
	pause := time.Duration(4+w.rng.IntN(40)) * time.Second
	for i := range 3 + w.rng.IntN(12) {
		w.after(time.Duration(i+1)*pause, func() {
			if w.interleaved == nil {
				return // the world is mended by now
			}
			w.store.edit("people", mainKey, func(o map[string]any) { o["spec"] = load(backup).Object["spec"] })
		})
	}
}

// checkContended: a run takes no step while somebody else is told to undo its writes, and none of its ways back waits for that.
func (o *oracle) checkContended(a, b *v1.RolloutStatus) {
	contended := a.Phase == v1.PhaseWaiting && a.Reason == v1.ReasonContended && b.Reason == v1.ReasonContended
	switch {
	case contended && a.Step != nil && b.Step != nil && a.Step.Index != b.Step.Index:
		o.world.violated(7, "step %s began while the routes are contended", b.Step.Display)
	case a.Reason == v1.ReasonContended && a.Run != nil && b.Run == nil:
		o.world.sometimes["rollback while contended"]++
	}
}
