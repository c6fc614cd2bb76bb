package simulation

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// process is one life of the operator: its cache, its queue, its analysis and its reconciler.
type process struct {
	world     *world
	dead      bool
	started   time.Time
	positions map[string]int64
	began     map[string]int64 // the positions at the start
	// own are the positions of its acknowledged writes; liveReads those of what it read live in the reconcile that runs.
	own        map[objectKey]int64
	liveReads  map[string]int64
	caughtUp   map[string]time.Time
	due        map[types.NamespacedName]time.Time
	failures   map[types.NamespacedName]int
	analyst    *analyst
	reconciler reconcile.Reconciler
	// wrote and disturbed tell of the pass that runs: what it tried to write, and whether a fault met it.
	wrote     []objectKey
	disturbed bool
	mu        sync.Mutex
	waiting   []waitingWrite
	// serial is never contended; it tells the race detector what the turns order.
	serial sync.Mutex
}

func newProcess(w *world) *process {
	p := &process{
		world: w, started: w.clock.now, positions: map[string]int64{}, own: map[objectKey]int64{}, caughtUp: map[string]time.Time{},
		due: map[types.NamespacedName]time.Time{}, failures: map[types.NamespacedName]int{},
	}
	for _, kind := range []string{
		kindRollout, kindVirtualService, kindDestinationRule, kindServiceEntry, kindWorkloadEntry, kindDeployment, kindPod, kindService,
	} {
		p.positions[kind] = w.store.rv
		if lag, ok := w.faults.lags[kind]; ok && kind != kindRollout {
			p.startBehind(kind, lag)
		}
	}
	p.began = maps.Clone(p.positions)
	p.analyst = newAnalyst(w, p)
	p.reconciler = newReconciler(p)
	return p
}

// startBehind begins with a list from an API server that is behind.
func (p *process) startBehind(kind string, lag time.Duration) {
	w := p.world
	then := int64(0)
	for _, key := range w.store.names[kind] {
		for _, v := range w.store.histories[key] {
			if !v.at.After(w.clock.now.Add(-lag)) {
				then = max(then, v.rv)
			}
		}
	}
	if now := w.store.rv; then > 0 {
		p.positions[kind] = then
		w.after(lag, func() { p.catchUp(kind, now, nil) })
	}
}

// learn brings a change to the cache after a lag; the changes of a kind arrive in order.
func (p *process) learn(c change, lag time.Duration) {
	kind := c.key.kind
	at := p.world.clock.now.Add(lag)
	if at.Before(p.caughtUp[kind]) {
		at = p.caughtUp[kind]
	}
	p.caughtUp[kind] = at
	if lag > time.Second {
		p.world.sometimes["lagging cache"]++
	}
	p.world.at(at, func() { p.catchUp(kind, c.rv, &c) })
}

func (p *process) catchUp(kind string, rv int64, c *change) {
	if p.dead {
		return
	}
	p.positions[kind] = max(p.positions[kind], rv)
	if c == nil || wakes(*c) {
		for _, key := range p.world.store.names[kindRollout] {
			p.enqueue(types.NamespacedName{Namespace: key.namespace, Name: key.name}, 0)
		}
	}
}

// wakes tells whether the operator's watches let a change through: of Rollouts, changes of spec, annotations and deletion only.
func wakes(c change) bool {
	if c.key.kind != kindRollout || c.before == nil || c.after == nil {
		return true
	}
	return c.before.GetGeneration() != c.after.GetGeneration() ||
		!maps.Equal(c.before.GetAnnotations(), c.after.GetAnnotations()) ||
		!equality.Semantic.DeepEqual(c.before.GetFinalizers(), c.after.GetFinalizers())
}

// enqueue asks for a reconcile. As in the real queue, one request stands for all that came before it is served.
func (p *process) enqueue(key types.NamespacedName, delay time.Duration) {
	at := p.world.clock.now.Add(delay)
	if due, ok := p.due[key]; p.dead || (ok && !at.Before(due)) {
		return
	}
	p.due[key] = at
	p.world.at(at, func() {
		if due, ok := p.due[key]; p.dead || !ok || due.After(p.world.clock.now) {
			return
		}
		delete(p.due, key)
		p.reconcile(key)
	})
}

func (p *process) reconcile(key types.NamespacedName) {
	w := p.world
	w.passes++
	p.wrote, p.disturbed, p.liveReads = nil, false, map[string]int64{}
	w.oracle.passBegins(key)
	result, err := p.oneByOne(key)
	if p.dead {
		return
	}
	w.oracle.passEnds(key, err)
	switch {
	case errors.Is(err, reconcile.TerminalError(nil)):
		delete(p.failures, key)
	case err != nil:
		p.failures[key]++
		w.transcript.line("operator", "error: %v", err)
		p.enqueue(key, backoff(p.failures[key]))
	default:
		delete(p.failures, key)
		if result.RequeueAfter > 0 {
			p.enqueue(key, result.RequeueAfter)
		}
	}
}

// oneByOne runs a reconcile whose writes happen one after the other in the order of their objects, even those that it makes
// at the same time: a seed is replayed exactly.
func (p *process) oneByOne(key types.NamespacedName) (result reconcile.Result, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		result, err = p.reconciler.Reconcile(context.Background(), reconcile.Request{NamespacedName: key})
	}()
	for {
		synctest.Wait()
		select {
		case <-done:
			return result, err
		default:
		}
		p.mu.Lock()
		slices.SortFunc(p.waiting, func(a, b waitingWrite) int { return strings.Compare(a.key.String(), b.key.String()) })
		if len(p.waiting) == 0 {
			panic("simulation: the reconcile waits for something that is no write")
		}
		next := p.waiting[0]
		p.waiting = p.waiting[1:]
		p.mu.Unlock()
		close(next.turn)
	}
}

// waitingWrite is a write that waits for its turn.
type waitingWrite struct {
	key  objectKey
	turn chan struct{}
}

// await returns when it is the write's turn.
func (p *process) await(key objectKey) {
	turn := make(chan struct{})
	p.mu.Lock()
	p.waiting = append(p.waiting, waitingWrite{key, turn})
	p.mu.Unlock()
	<-turn
}

// backoff is controller-runtime's: 5 ms, doubled with each failure, up to 1000 s.
func backoff(failures int) time.Duration {
	d := 5 * time.Millisecond
	for range failures - 1 {
		if d *= 2; d > 1000*time.Second {
			return 1000 * time.Second
		}
	}
	return d
}
