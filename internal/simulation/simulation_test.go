package simulation

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// troubled is how long deeds and faults go on in each seed; then the faults stop and everything must come to rest.
const troubled = 12 * time.Minute

// interesting is what must have happened somewhere in the seeds, so that a simulation that does nothing can not pass.
var interesting = []string{
	"promotion", "promotion over TCP", "promotion over TLS", "rollback", "rollback over TCP", "rollback over TLS", "instant return", "step ended", "run began", "deleted", "fault written", "fault for everyone written", "mirror copy written", "route written", "described routes written", "subset removed",
	"return: GateFailed", "return: Probe", "return: Unavailable", "return: Reverted", "return: VersionChanged",
	"return: PlanChanged", "return: WorkloadChanged", "rejected: GateFailed", "rejected: NoEvidence",
	"conflict on Rollout", "conflict on VirtualService", "answer lost: Rollout", "answer lost: VirtualService",
	"answer lost: DestinationRule", "crash before a write of VirtualService", "crash after a write of Rollout",
	"crash after a write of VirtualService", "crash between reconciles", "crashed between status and mesh",
	"crashed between two VirtualServices", "run over two VirtualServices", "ended with two VirtualServices",
	"a skipped route pins what became stable", "live read failed", "lagging cache", "somebody acted between read and write", "write refused: VirtualService",
	"sample Pass", "sample Fail", "sample NoData", "sample Error",
	"phase Waiting/Suspended", "phase Waiting/NoEvidence", "phase Stalled/SubsetInUse", "phase Stalled/VersionNotFound",
	"phase Stalled/StableUnavailable", "phase Stalled/VirtualServiceNotFound", "phase Stalled/RouteNotFound",
	"phase Stalled/InvalidQuery", "event HostConflict", "phase Detached/Detached", "ended Healthy", "ended RolledBack", "ended elsewhere",
}

func TestSeeds(t *testing.T) {
	if text := os.Getenv("SLUICE_SEED"); text != "" {
		replay(t, text)
		return
	}
	seeds := 200
	if raceDetector {
		seeds = 25 // the same code, eight times as slow
	}
	if text := os.Getenv("SLUICE_SEEDS"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatalf("SLUICE_SEEDS=%q: %v", text, err)
		}
		seeds = n
	}
	var mu sync.Mutex
	sometimes := map[string]int{}
	t.Run("all", func(t *testing.T) {
		const batch = 25
		for first := 0; first < seeds; first += batch {
			t.Run(fmt.Sprintf("from %d", first), func(t *testing.T) {
				t.Parallel()
				for seed := first; seed < min(first+batch, seeds); seed++ {
					w := troubledWorld(t, uint64(seed), false)
					mu.Lock()
					for what, n := range w.sometimes {
						sometimes[what] += n
					}
					mu.Unlock()
				}
			})
		}
	})
	if t.Failed() || seeds < 200 {
		return
	}
	for _, what := range interesting {
		if sometimes[what] == 0 {
			t.Errorf("in %d seeds it never happened: %s", seeds, what)
		}
	}
	if testing.Verbose() {
		for _, what := range slices.Sorted(maps.Keys(sometimes)) {
			t.Logf("%8d  %s", sometimes[what], what)
		}
	}
}

func replay(t *testing.T, text string) {
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SLUICE_SEED=%q: %v", text, err)
	}
	troubledWorld(t, seed, true)
}

// troubledWorld runs one seed and reports the invariant that it broke, with the command that replays it.
func troubledWorld(t *testing.T, seed uint64, verbose bool) *world {
	t.Helper()
	w := newWorld(seed)
	w.transcript.on = verbose
	synctest.Test(t, func(*testing.T) {
		w.build(w.drawSetting())
		w.trouble(epoch.Add(time.Minute), epoch.Add(time.Minute+troubled))
		w.run(epoch.Add(time.Minute + troubled))
		w.settle()
	})
	if verbose {
		t.Log("\n" + w.transcript.text.String())
	}
	if w.violation != nil {
		t.Errorf("seed %d: %v\nreplay: SLUICE_SEED=%d go test ./internal/simulation -run TestSeeds -v", seed, w.violation, seed)
	}
	return w
}

// settle ends all faults, mends what was broken, and asserts that everything comes to the rest that it should.
func (w *world) settle() {
	if w.violation != nil {
		return
	}
	w.mend()
	w.rest()
	w.oracle.atRest()
	if w.violation == nil && w.rng.IntN(2) == 0 {
		w.ifAlive(func() {
			w.transcript.line("oracle", "one more push, with nothing in its way")
			w.push(w.anyVersion())
			w.rest()
			w.oracle.atRest()
		})
	}
	w.oracle.fixpoint()
	if w.seed%4 == 0 || raceDetector {
		w.oracle.untouched()
	}
}

// mend puts the world in order: what a rollout needs is there, and nobody disturbs it.
func (w *world) mend() {
	w.transcript.line("oracle", "faults stop, the world is mended")
	w.faults.calm()
	w.interleaved = nil
	w.restoreRoutes()
	w.prometheus.down.set(w.clock.now, false)
	w.prometheus.probes.set(w.clock.now, true)
	w.endStorms()
	w.prometheus.requests.set(w.clock.now, 50)
	for _, v := range versions {
		w.deploy(v)
		w.setReady(v, true)
		w.prometheus.setErrors(v, 0.001)
	}
	if w.store.live(otherKey) != nil {
		_ = w.store.remove("people", otherKey, nil)
	}
	w.ifAlive(func() {
		w.annotate(v1.ReconcileAnnotation, "")
		w.editSpec(func(s *v1.RolloutSpec) {
			s.Gates, s.Versions = w.setting.spec.Gates, w.setting.spec.Versions
			s.Suspend = s.Suspend && w.rng.IntN(4) == 0
		})
	})
	if w.rng.IntN(4) == 0 {
		w.prometheus.setErrors(w.anyVersion(), 0.3)
	}
}

// rest runs until nothing is due any more, two simulated hours at most.
func (w *world) rest() {
	for end := w.clock.now.Add(2 * time.Hour); w.violation == nil && w.clock.now.Before(end); {
		w.run(w.clock.now.Add(time.Minute))
		if p := w.process; p != nil && !p.dead && len(w.agenda) == 0 {
			return
		}
	}
}

func TestPromotesWhenNothingIsWrong(t *testing.T) {
	t.Parallel()
	for seed := range uint64(40) {
		w := newWorld(seed)
		w.transcript.on = testing.Verbose()
		synctest.Test(t, func(*testing.T) {
			w.build(w.drawSetting())
			for _, v := range versions {
				w.deploy(v)
				w.setReady(v, true)
				w.prometheus.setErrors(v, 0.002)
			}
			w.run(epoch.Add(time.Minute))
			w.push("v3")
			w.run(epoch.Add(20 * time.Minute))
		})
		r := w.rollout()
		if w.violation != nil || r.Status.Stable != "v3" || r.Status.Phase != v1.PhaseHealthy {
			t.Fatalf("%s\nseed %d: %v; stable %q, %s/%s: %s", w.transcript.text.String(), seed, w.violation, r.Status.Stable, r.Status.Phase, r.Status.Reason, r.Status.Message)
		}
	}
}
