package analysis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"sluice.dev/sluice/internal/pipeline"
)

// The defaults of Config.
const (
	defaultTimeout = 10 * time.Second
	defaultWorkers = 8
)

// Config is what an Analyst needs. Prometheus may be nil: then every sample is an Error that says so.
type Config struct {
	Prometheus Prometheus
	Clock      clock.Clock
	// Settle is how long after its time a sample is asked for, so that scrapes have arrived.
	Settle time.Duration
	// Timeout of a request to Prometheus, default 10s.
	Timeout time.Duration
	// Workers is how many requests to Prometheus are under way at once, default 8.
	Workers int
	// ProbeAllow says where probes may go; its zero value: nowhere.
	ProbeAllow ProbePolicy
	Log        logr.Logger
	// Registerer for the metrics; nil: they are not exported.
	Registerer prometheus.Registerer
}

// Analyst measures what Rollouts watch.
type Analyst struct {
	config  Config
	wake    func(types.NamespacedName)
	metrics *metrics
	asker   *asker
	prober  *prober
	// kick makes Start look at the schedule again.
	kick chan struct{}
	// work is what Start waits for when it ends.
	work sync.WaitGroup

	mu       sync.Mutex
	running  context.Context // nil unless between the begin and the end of Start
	watches  map[types.NamespacedName]*watched
	schedule schedule
	breakers map[*breaker]bool
	// polled is when they were last asked for.
	polled time.Time
	// logged is when it was last written that Prometheus does not answer.
	logged time.Time
}

// watched is a Watch under way.
type watched struct {
	id      string
	gates   map[string]*gate
	probe   *probe
	breaker *breaker
}

// New makes an Analyst, which measures once it is started. wake is called, with no lock held, whenever there is
// something new for a Rollout: a sample, a refused query, the end of a probe, a trip of a
// breaker.
func New(config Config, wake func(types.NamespacedName)) *Analyst {
	if config.Timeout <= 0 {
		config.Timeout = defaultTimeout
	}
	if config.Workers <= 0 {
		config.Workers = defaultWorkers
	}
	if config.Prometheus == nil {
		config.Prometheus = noPrometheus{}
	}
	a := &Analyst{
		config: config, wake: wake, metrics: newMetrics(config.Registerer),
		kick: make(chan struct{}, 1), watches: map[types.NamespacedName]*watched{}, breakers: map[*breaker]bool{},
		prober: newProber(config.ProbeAllow, config.Clock),
	}
	a.asker = &asker{
		prometheus: config.Prometheus, timeout: config.Timeout,
		slots: make(chan struct{}, config.Workers), report: a.report,
	}
	return a
}

// NeedLeaderElection tells the manager that only the leader measures.
func (a *Analyst) NeedLeaderElection() bool { return true }

// Start measures until ctx ends, and returns once all that it began has ended.
func (a *Analyst) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer a.work.Wait()
	defer cancel()
	if err := a.begin(ctx); err != nil {
		return err
	}
	defer a.end()
	for ctx.Err() == nil {
		a.mu.Lock()
		now := a.config.Clock.Now()
		due, next := a.schedule.due(now)
		a.mu.Unlock()
		a.measure(ctx, due)
		if poll := a.pollBreakers(ctx, now); !poll.IsZero() && (next.IsZero() || poll.Before(next)) {
			next = poll
		}
		a.sleep(ctx, next)
	}
	return nil
}

func (a *Analyst) begin(ctx context.Context) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.running != nil {
		return fmt.Errorf("analysis: already started")
	}
	a.running = ctx
	for key, w := range a.watches {
		a.startProbe(key, w)
	}
	return nil
}

func (a *Analyst) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.running = nil
}

// sleep waits until next (the zero time: for ever), a kick, or the end of ctx.
func (a *Analyst) sleep(ctx context.Context, next time.Time) {
	var alarm <-chan time.Time
	if !next.IsZero() {
		d := next.Sub(a.config.Clock.Now())
		if d <= 0 {
			return
		}
		timer := a.config.Clock.NewTimer(d)
		defer timer.Stop()
		alarm = timer.C()
	}
	select {
	case <-ctx.Done():
	case <-a.kick:
	case <-alarm:
	}
}

func (a *Analyst) reschedule() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// sameTimes compares watches by what they mean: equal times may differ in their location.
var sameTimes = conversion.EqualitiesOrDie(func(a, b time.Time) bool { return a.Equal(b) })

// Set tells what to measure for a Rollout from now on; nil: nothing, and all that is known of it is forgotten.
// Gates and probes that stay as they are, in a watch of the same ID, keep what is known of them, and so does a breaker.
func (a *Analyst) Set(key types.NamespacedName, watch *pipeline.Watch) {
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.watches[key]
	if watch == nil {
		a.forget(key, old, nil)
		delete(a.watches, key)
		return
	}
	w := &watched{id: watch.ID, gates: map[string]*gate{}}
	for _, gw := range watch.Gates {
		if g := old.gate(watch.ID, gw); g != nil {
			w.gates[gw.Name] = g
			continue
		}
		w.gates[gw.Name] = newGate(key, gw)
	}
	if watch.Probe != nil {
		if w.probe = old.sameProbe(watch); w.probe == nil {
			w.probe = newProbe(watch.ID, *watch.Probe)
		}
	}
	if watch.Breaker != nil {
		now := a.config.Clock.Now()
		if w.breaker = old.sameBreaker(watch.Breaker, now); w.breaker == nil {
			w.breaker = newBreaker(key, *watch.Breaker, now)
		}
	}
	a.forget(key, old, w)
	a.watches[key] = w
	a.take(key, w, old)
}

// gate is the one of the watch that stays as it is, or nil.
func (w *watched) gate(id string, watch pipeline.GateWatch) *gate {
	if w == nil || w.id != id {
		return nil
	}
	if g := w.gates[watch.Name]; g != nil && sameTimes.DeepEqual(g.watch, watch) {
		return g
	}
	return nil
}

func (w *watched) sameProbe(watch *pipeline.Watch) *probe {
	if w == nil || w.id != watch.ID || w.probe == nil || !sameTimes.DeepEqual(w.probe.watch, *watch.Probe) {
		return nil
	}
	return w.probe
}

// forget ends what is in old and not in kept.
func (a *Analyst) forget(key types.NamespacedName, old, kept *watched) {
	if old == nil {
		return
	}
	for name, g := range old.gates {
		if kept == nil || kept.gates[name] != g {
			g.forgotten = true
			a.metrics.forget(key, name)
		}
	}
	if old.probe != nil && (kept == nil || kept.probe != old.probe) {
		old.probe.stop()
	}
	if old.breaker != nil && (kept == nil || kept.breaker != old.breaker) {
		old.breaker.forgotten = true
		delete(a.breakers, old.breaker)
		a.metrics.forgetBreaker(key)
	}
}

// take begins what is in w and was not in old.
func (a *Analyst) take(key types.NamespacedName, w, old *watched) {
	for name, g := range w.gates {
		if old != nil && old.gates[name] == g {
			continue
		}
		a.metrics.watch(g)
		first := g.grid.first.Add(a.config.Settle)
		if g.broken != "" {
			first = time.Time{} // at once: there is something to tell
		}
		a.schedule.add(first, g)
		a.reschedule()
	}
	if w.breaker != nil && !a.breakers[w.breaker] {
		a.breakers[w.breaker] = true
		a.reschedule()
	}
	a.startProbe(key, w)
}

// Samples returns what is known of a Rollout's gates, by name. The caller may keep it.
func (a *Analyst) Samples(key types.NamespacedName) map[string]pipeline.GateSamples {
	a.mu.Lock()
	defer a.mu.Unlock()
	w := a.watches[key]
	if w == nil {
		return nil
	}
	out := make(map[string]pipeline.GateSamples, len(w.gates))
	for name, g := range w.gates {
		out[name] = g.snapshot(w.id)
	}
	return out
}

// Probe returns the state of a Rollout's probe; nil when it has none.
func (a *Analyst) Probe(key types.NamespacedName) *pipeline.ProbeResult {
	a.mu.Lock()
	defer a.mu.Unlock()
	if w := a.watches[key]; w != nil && w.probe != nil {
		result := w.probe.result
		return &result
	}
	return nil
}
