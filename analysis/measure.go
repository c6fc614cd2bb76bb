package analysis

import (
	"context"
	"errors"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// measure asks for the samples that are due of these gates, and does not wait for the answers.
func (a *Analyst) measure(ctx context.Context, due []*gate) {
	r := newRound(a.asker)
	for _, g := range due {
		if g.broken != "" {
			a.wake(g.key)
			continue
		}
		a.mu.Lock()
		times := g.missing(a.config.Clock.Now().Add(-a.config.Settle))
		a.mu.Unlock()
		if len(times) == 0 {
			a.again(g, a.config.Clock.Now().Add(-a.config.Settle))
			continue
		}
		a.work.Go(func() { a.measureGate(ctx, r, g, times) })
	}
}

func (a *Analyst) measureGate(ctx context.Context, r *round, g *gate, times []time.Time) {
	values := r.begin(ctx, g.grid.asks(g.query.value, times))
	counts := func() []reading { return nil }
	if g.query.count != "" {
		counts = r.begin(ctx, g.grid.asks(g.query.count, times))
	}
	out := g.evaluate(times, values(), counts())
	if ctx.Err() != nil {
		return // what was cut off is no evidence
	}
	if a.learn(g, out) {
		a.wake(g.key)
	}
	a.again(g, times[len(times)-1])
}

// learn takes in an outcome, and tells whether that is news.
func (a *Analyst) learn(g *gate, out outcome) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if g.forgotten {
		return false
	}
	news, changed := g.apply(out)
	a.metrics.record(g, news)
	return changed
}

// again makes the appointment for the gate's first sample after last; it may be due already.
func (a *Analyst) again(g *gate, last time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.schedule.add(g.grid.after(last).Add(a.config.Settle), g)
	a.reschedule()
}

// logEvery bounds how often a Prometheus that does not answer is written of.
const logEvery = time.Minute

// report counts a request, and logs that Prometheus does not answer. The error's own words stay out of status and
// events, and so of tenants' sight, but not of the administrator's log.
func (a *Analyst) report(result string, err error) {
	a.metrics.queries.WithLabelValues(result).Inc()
	if errors.Is(err, context.Canceled) || (result != resultError && result != resultTimeout) {
		return
	}
	now := a.config.Clock.Now()
	a.mu.Lock()
	recent := now.Sub(a.logged) < logEvery
	if !recent {
		a.logged = now
	}
	a.mu.Unlock()
	if !recent {
		a.config.Log.Info("Prometheus does not answer; gates wait", "error", tidy(err.Error()))
	}
}

var errNoPrometheus = &promv1.Error{Type: promv1.ErrClient, Msg: "the operator has none to ask; set its flag --prometheus-url"}

// noPrometheus stands for a Prometheus that the operator was not told of.
type noPrometheus struct{}

func (noPrometheus) Query(context.Context, string, time.Time, ...promv1.Option) (model.Value, promv1.Warnings, promv1.Infos, error) {
	return nil, nil, nil, errNoPrometheus
}

func (noPrometheus) QueryRange(context.Context, string, promv1.Range, ...promv1.Option) (model.Value, promv1.Warnings, promv1.Infos, error) {
	return nil, nil, nil, errNoPrometheus
}
