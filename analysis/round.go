package analysis

import (
	"context"
	"slices"
	"sync"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// Prometheus is what is used of promv1.API.
type Prometheus interface {
	Query(ctx context.Context, query string, ts time.Time, opts ...promv1.Option) (model.Value, promv1.Warnings, promv1.Infos, error)
	QueryRange(ctx context.Context, query string, r promv1.Range, opts ...promv1.Option) (model.Value, promv1.Warnings, promv1.Infos, error)
}

// asker asks Prometheus, a few requests at a time.
type asker struct {
	prometheus Prometheus
	timeout    time.Duration
	slots      chan struct{}
	// report is told each request's result; err is nil for an answer without warnings.
	report func(result string, err error)
}

// round is the asking of gates that came due together: equal asks are made once.
type round struct {
	asker *asker
	mu    sync.Mutex
	calls map[ask]*call
}

// call is an ask under way; answer and failed are set once done is closed.
type call struct {
	done   chan struct{}
	answer model.Value
	failed *reading
}

func newRound(a *asker) *round { return &round{asker: a, calls: map[ask]*call{}} }

// begin starts what is planned, where it is not under way, and returns how to wait for the readings, in order of time.
func (r *round) begin(ctx context.Context, plan []planned) func() []reading {
	calls := make([]*call, len(plan))
	for i, p := range plan {
		calls[i] = r.call(ctx, p.ask)
	}
	return func() []reading {
		var readings []reading
		for i, c := range calls {
			<-c.done
			readings = append(readings, c.readings(plan[i].times)...)
		}
		return readings
	}
}

func (r *round) call(ctx context.Context, what ask) *call {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.calls[what]; ok {
		return c
	}
	c := &call{done: make(chan struct{})}
	r.calls[what] = c
	go func() {
		defer close(c.done)
		c.answer, c.failed = r.asker.ask(ctx, what)
	}()
	return c
}

func (c *call) readings(times []time.Time) []reading {
	if c.failed != nil {
		return slices.Repeat([]reading{*c.failed}, len(times))
	}
	return read(c.answer, times)
}

// ask makes one request, once a slot is free.
func (a *asker) ask(ctx context.Context, what ask) (model.Value, *reading) {
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		failed, _ := unanswered(ctx.Err())
		return nil, &failed
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	answer, warnings, err := a.request(ctx, what)
	switch {
	case err != nil:
		failed, result := unanswered(err)
		a.report(result, err)
		return nil, &failed
	case len(warnings) > 0:
		failed := warned(warnings)
		a.report(resultWarning, nil)
		return nil, &failed
	}
	a.report(resultSuccess, nil)
	return answer, nil
}

func (a *asker) request(ctx context.Context, what ask) (model.Value, promv1.Warnings, error) {
	start, end := time.Unix(0, what.start), time.Unix(0, what.end)
	if what.step == 0 {
		answer, warnings, _, err := a.prometheus.Query(ctx, what.query, start, promv1.WithTimeout(a.timeout))
		if err == nil && answer != nil && (answer.Type() == model.ValMatrix || answer.Type() == model.ValString) {
			// A range query of it would be refused; so is this, that both kinds of sample mean the same.
			err = &promv1.Error{Type: promv1.ErrBadData, Msg: "the query returns a " + answer.Type().String() + "; one number is expected"}
		}
		return answer, warnings, err
	}
	span := promv1.Range{Start: start, End: end, Step: what.step}
	answer, warnings, _, err := a.prometheus.QueryRange(ctx, what.query, span, promv1.WithTimeout(a.timeout))
	return answer, warnings, err
}
