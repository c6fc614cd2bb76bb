package simulation

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

const namespace = "bookinfo"

var (
	rolloutKey = objectKey{kindRollout, namespace, "reviews"}
	otherKey   = objectKey{kindRollout, namespace, "reviews-too"}
	rolloutRef = types.NamespacedName{Namespace: namespace, Name: "reviews"}
	epoch      = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	config     = pipeline.Config{PropagationDelay: 2 * time.Second, Settle: time.Second, UnscopedFaults: true}
	errDead    = errors.New("simulation: this process was killed")
	scheme     = newScheme()
)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(s), v1.AddToScheme(s)); err != nil {
		panic(err)
	}
	return s
}

// simClock is the only time there is. It moves with the agenda, and a little with each write.
type simClock struct{ now time.Time }

func (c *simClock) Now() time.Time                  { return c.now }
func (c *simClock) Since(t time.Time) time.Duration { return c.now.Sub(t) }
func (c *simClock) advance(d time.Duration)         { c.now = c.now.Add(d) }

// errand is something that happens at a time.
type errand struct {
	at  time.Time
	seq int
	do  func()
}

type agenda []errand

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	if !a[i].at.Equal(a[j].at) {
		return a[i].at.Before(a[j].at)
	}
	return a[i].seq < a[j].seq
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(errand)) }
func (a *agenda) Pop() any {
	old := *a
	last := old[len(old)-1]
	*a = old[:len(old)-1]
	return last
}

// world is everything around the code under test, and the code under test.
type world struct {
	seed       uint64
	rng        *rand.Rand
	namespace  string
	clock      *simClock
	store      *store
	agenda     agenda
	seq        int
	faults     *faults
	process    *process
	processes  int
	passes     int
	prometheus *prometheus
	oracle     *oracle
	transcript *transcript
	setting    setting
	// sometimes counts the interesting things that happened.
	sometimes map[string]int
	violation error
	// people may act between any read and any write of the operator.
	interleaved func()
	inInterlude bool
	// pushing while GitSync applies; pushes counts what was pushed.
	pushing bool
	pushes  int
}

func newWorld(seed uint64) *world {
	rng := rand.New(rand.NewPCG(seed, 0x5105))
	clock := &simClock{now: epoch}
	w := &world{
		seed: seed, rng: rng, namespace: namespace, clock: clock, store: newStore(clock),
		sometimes: map[string]int{},
	}
	w.faults = &faults{rng: rng, forced: map[string]fate{}}
	w.prometheus = newPrometheus(w)
	w.oracle = newOracle(w)
	w.transcript = &transcript{world: w}
	w.store.observers = []func(change){w.oracle.observe, w.prometheus.observe, w.transcript.observe, w.notify}
	return w
}

// violated notes the first invariant that was broken; the seed ends there.
func (w *world) violated(invariant int, format string, args ...any) {
	if w.violation == nil {
		w.violation = fmt.Errorf("invariant %d at %s: %s", invariant, w.elapsed(), fmt.Sprintf(format, args...))
		w.transcript.line("oracle", "VIOLATED %v", w.violation)
	}
}

func (w *world) elapsed() string {
	return fmt.Sprint(w.clock.now.Sub(epoch).Round(time.Millisecond))
}

// at puts an errand on the agenda.
func (w *world) at(t time.Time, do func()) {
	w.seq++
	heap.Push(&w.agenda, errand{at: t, seq: w.seq, do: do})
}

func (w *world) after(d time.Duration, do func()) { w.at(w.clock.now.Add(d), do) }

// run does what is on the agenda up to a time, or until an invariant breaks.
func (w *world) run(until time.Time) {
	for w.violation == nil && len(w.agenda) > 0 && !w.agenda[0].at.After(until) {
		next := heap.Pop(&w.agenda).(errand)
		if next.at.After(w.clock.now) {
			w.clock.now = next.at
		}
		next.do()
		w.oracle.afterEvent()
	}
	if w.clock.now.Before(until) {
		w.clock.now = until
	}
}

// notify brings a change to the cache of the process that runs, after the kind's lag.
func (w *world) notify(c change) {
	if p := w.process; p != nil && !p.dead {
		p.learn(c, w.faults.lag(c.key.kind))
	}
}

// crash kills the process; another one starts after a while.
func (w *world) crash(p *process, when string) {
	if p.dead {
		return
	}
	p.dead = true
	w.sometimes["crash "+when]++
	w.transcript.line("operator", "is killed %s", when)
	w.after(w.faults.downtime(), w.start)
}

// start runs a new process, which knows nothing but what it reads.
func (w *world) start() {
	if w.process != nil && !w.process.dead {
		return
	}
	w.processes++
	w.process = newProcess(w)
	if w.processes > 1 {
		w.transcript.line("operator", "starts again")
	}
	for _, v := range w.store.list(kindRollout, namespace, w.process.positions[kindRollout]) {
		w.process.enqueue(types.NamespacedName{Namespace: namespace, Name: v.object.GetName()}, 0)
	}
}

// interleave lets somebody act right before one of the operator's writes.
func (w *world) interleave() {
	if w.interleaved == nil || w.inInterlude || !w.faults.draw(w.faults.interlude) {
		return
	}
	w.inInterlude = true
	w.sometimes["somebody acted between read and write"]++
	w.interleaved()
	w.inInterlude = false
}

// rollout returns the live Rollout, or nil.
func (w *world) rollout() *v1.Rollout { return w.rolloutAt(rolloutKey, w.store.rv) }

func (w *world) rolloutAt(key objectKey, position int64) *v1.Rollout {
	v := w.store.at(key, position)
	if v == nil {
		return nil
	}
	return v.decode(&v1.Rollout{}).(*v1.Rollout)
}
