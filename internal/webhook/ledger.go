package webhook

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"

	v1 "sluice.dev/sluice/api/v1"
)

// How often a GitSync is marked at most: for deliveries that were verified, and for those that were not.
const (
	spacing        = time.Second
	refusedSpacing = 10 * time.Second
)

const (
	scribes      = 4
	markTimeout  = 10 * time.Second
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 10 * time.Second
	// tooManyMarks is how many times of marks are remembered before those that no longer matter are forgotten.
	tooManyMarks = 4096
)

// Mark is what is written to a GitSync's status.
type Mark struct {
	LastDelivery   v1.Delivery       `json:"lastDelivery"`
	FetchRequested *metav1.MicroTime `json:"fetchRequested,omitempty"`
}

// WriteMark writes a mark.
type WriteMark func(context.Context, types.NamespacedName, Mark) error

// entry is a delivery to be marked.
type entry struct {
	delivery        v1.Delivery
	fetch, verified bool
}

// ledger marks GitSyncs, each at most once a second: what comes meanwhile is marked with the next one, so that a push right
// after a mark is fetched all the same.
type ledger struct {
	find  FindSync
	write WriteMark
	clock clock.WithTicker
	log   logr.Logger
	queue workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu      sync.Mutex
	pending map[types.NamespacedName]entry
	marked  map[types.NamespacedName]time.Time
}

func newLedger(find FindSync, write WriteMark, c clock.WithTicker, log logr.Logger) *ledger {
	backoff := workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](firstBackoff, lastBackoff)
	return &ledger{
		find: find, write: write, clock: c, log: log,
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(backoff, workqueue.TypedRateLimitingQueueConfig[types.NamespacedName]{
			Clock: c, Name: "webhook",
		}),
		pending: map[types.NamespacedName]entry{},
		marked:  map[types.NamespacedName]time.Time{},
	}
}

// add has an entry marked as soon as its GitSync's turn comes.
func (l *ledger) add(key types.NamespacedName, e entry) {
	l.mu.Lock()
	if before, waits := l.pending[key]; waits {
		e = joined(before, e)
	}
	l.pending[key] = e
	due := l.due(key, e)
	l.mu.Unlock()
	l.queue.AddAfter(key, due.Sub(l.clock.Now()))
}

// joined is one entry for two: the later delivery, but no stranger's in place of one that was verified.
func joined(before, after entry) entry {
	e := after
	if before.verified && !after.verified || before.fetch && !after.fetch {
		e = before
	}
	e.fetch = before.fetch || after.fetch
	return e
}

// due is when an entry's turn comes; the lock is held.
func (l *ledger) due(key types.NamespacedName, e entry) time.Time {
	last, found := l.marked[key]
	switch {
	case !found:
		return l.clock.Now()
	case e.verified:
		return last.Add(spacing)
	default:
		return last.Add(refusedSpacing)
	}
}

// run marks until the context ends, and then marks what still waits.
func (l *ledger) run(ctx context.Context) {
	var workers sync.WaitGroup
	for range scribes {
		workers.Go(func() {
			for l.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	l.queue.ShutDown()
	workers.Wait()
	l.flush(context.WithoutCancel(ctx))
}

func (l *ledger) next(ctx context.Context) bool {
	key, shutdown := l.queue.Get()
	if shutdown {
		return false
	}
	defer l.queue.Done(key)
	if ctx.Err() != nil {
		return true // flush marks it
	}
	if wait := l.others(ctx, key); wait > 0 {
		l.queue.AddAfter(key, wait)
		return true
	}
	if err := l.mark(ctx, key); err != nil {
		l.log.Error(err, "mark a GitSync", "gitsync", key)
		l.queue.AddRateLimited(key)
		return true
	}
	l.queue.Forget(key)
	return true
}

// others is how long to wait for another replica's mark to be a second old.
func (l *ledger) others(ctx context.Context, key types.NamespacedName) time.Duration {
	sync, err := l.find(ctx, key)
	if err != nil || sync.Status.FetchRequested == nil {
		return 0
	}
	age := l.clock.Since(sync.Status.FetchRequested.Time)
	if age < 0 {
		return 0 // its clock is ahead of ours: no order can be told
	}
	return spacing - age
}

// mark writes what waits for a GitSync, if anything does. What could not be written waits again.
func (l *ledger) mark(ctx context.Context, key types.NamespacedName) error {
	e, waits := l.take(key)
	if !waits {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	mark := Mark{LastDelivery: e.delivery}
	if e.fetch {
		now := metav1.NewMicroTime(l.clock.Now())
		mark.FetchRequested = &now
	}
	err := l.write(ctx, key, mark)
	if apierrors.IsNotFound(err) {
		return nil // deleted meanwhile
	}
	if err != nil {
		l.putBack(key, e)
	}
	return err
}

func (l *ledger) take(key types.NamespacedName) (entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, waits := l.pending[key]
	if !waits {
		return entry{}, false
	}
	delete(l.pending, key)
	now := l.clock.Now()
	if len(l.marked) >= tooManyMarks {
		for other, at := range l.marked {
			if now.Sub(at) >= refusedSpacing {
				delete(l.marked, other)
			}
		}
	}
	l.marked[key] = now
	return e, true
}

func (l *ledger) putBack(key types.NamespacedName, e entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if newer, waits := l.pending[key]; waits {
		e = joined(e, newer)
	}
	l.pending[key] = e
}

// flush marks what waits, for a process that ends. It takes no longer than one mark.
func (l *ledger) flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, markTimeout)
	defer cancel()
	l.mu.Lock()
	var keys []types.NamespacedName
	for key, e := range l.pending {
		if e.fetch {
			keys = append(keys, key)
		}
	}
	l.mu.Unlock()
	for _, key := range keys {
		if err := l.mark(ctx, key); err != nil {
			l.log.Error(err, "mark a GitSync before the end", "gitsync", key)
		}
	}
}
