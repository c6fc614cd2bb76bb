package bench

import (
	"context"
	"time"
)

// profileLength covers a release of some hundred Rollouts.
const profileLength = 5 * time.Second

// releases measures from the trigger of all N to the last write of each, and what that cost.
func (m *measurement) releases(ctx context.Context) error {
	m.evidence.set(good)
	if err := m.deployAll(ctx, "v2"); err != nil {
		return err
	}
	before, err := m.costAtRest(ctx)
	if err != nil {
		return err
	}
	var times []time.Duration
	err = m.profiled(ctx, "release", profileLength, func() error {
		for _, f := range m.fleets {
			wait := m.watcher.expect(f.keys, healthy("v2"))
			began := time.Now()
			if err := f.patch(ctx, `{"version":"v2"}`); err != nil {
				return err
			}
			at, err := m.watcher.done(ctx, "v2 is promoted", wait)
			if err != nil {
				return err
			}
			for _, t := range at {
				times = append(times, t.Sub(began))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := m.settle(ctx); err != nil {
		return err
	}
	after, err := m.cost(ctx)
	if err != nil {
		return err
	}
	m.report.add(timeFigure("P1", "trigger → promoted", m.n, times, m.limit.release))
	m.report.add(costFigures("P3", "release", m.n, m.n*len(m.fleets), before, after)...)
	return nil
}

// deployAll makes a version of every fleet, and waits until the operator has settled on that.
func (m *measurement) deployAll(ctx context.Context, version string) error {
	for _, f := range m.fleets {
		if err := f.deploy(ctx, version); err != nil {
			return err
		}
	}
	return m.settle(ctx)
}

// settle waits until the operator has sent no request for a while, events included.
func (s *scene) settle(ctx context.Context) error {
	last := -1.0
	for {
		sent, err := s.operatorMetric(ctx, "rest_client_requests_total")
		if err != nil || sent == last {
			return err
		}
		last = sent
		if err := pause(ctx, quiet); err != nil {
			return err
		}
	}
}

// rollbacks measures from each Rollout's first bad answer to the write that gives all traffic to stable.
func (m *measurement) rollbacks(ctx context.Context) error {
	if err := m.deployAll(ctx, "v3"); err != nil {
		return err
	}
	var times []time.Duration
	var before, after *cost
	for _, f := range m.fleets {
		m.evidence.set(good)
		stable := f.stable(m.watcher)
		// The step holds, so that its gate is judged again and again.
		wait := m.watcher.expect(f.keys, func(s *state) bool { return s.step == "half" && s.weights["v3"] == 50 })
		if err := f.patch(ctx, `{"version":"v3","steps":[{"name":"half","weight":50,"hold":"1h"},{"name":"full","weight":100}]}`); err != nil {
			return err
		}
		if _, err := m.watcher.done(ctx, "v3 has half of the traffic", wait); err != nil {
			return err
		}
		if err := m.settle(ctx); err != nil {
			return err
		}
		var err error
		if before, err = m.costAtRest(ctx); err != nil {
			return err
		}
		wait = m.watcher.expect(f.keys, func(s *state) bool { return s.serves(stable) })
		m.evidence.set(bad)
		var at map[key]time.Time
		err = m.profiled(ctx, "rollback", 2*gateInterval, func() (err error) {
			at, err = m.watcher.done(ctx, stable+" has all traffic again", wait)
			return err
		})
		if err != nil {
			return err
		}
		for key, t := range at {
			if first, ok := m.evidence.firstBadOf(key); ok {
				times = append(times, t.Sub(first))
			}
		}
		m.evidence.set(good)
		if err := m.settle(ctx); err != nil {
			return err
		}
		if after, err = m.cost(ctx); err != nil {
			return err
		}
	}
	m.report.add(costFigures("P2", "rollback", m.n, m.n, before, after)...)
	m.report.add(timeFigure("P2", "first bad answer → 100% stable", m.n, times, m.limit.rollback))
	return nil
}

// stable is the version that serves the fleet.
func (f *fleet) stable(w *watcher) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.states[f.keys[0]].stable
}
