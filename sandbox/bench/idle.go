package bench

import (
	"context"
	"time"
)

// idle measures what an operator costs that has nothing to do.
func (m *measurement) idle(ctx context.Context) error {
	if err := m.settle(ctx); err != nil {
		return err
	}
	before, err := m.cost(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, m.Idle); err != nil {
		return err
	}
	after, err := m.cost(ctx)
	if err != nil {
		return err
	}
	memory, file, err := resident(m.operator.PID())
	if err != nil {
		return err
	}
	if m.Profiles != "" {
		if err := m.profile(ctx, "heap", 0); err != nil {
			return err
		}
	}
	minutes := after.at.Sub(before.at).Minutes()
	m.report.add(
		Figure{Row: "P4", Name: "idle: memory", N: m.n, Unit: unitMiB, Value: memory},
		Figure{Row: "P4", Name: "  of that the program's file", N: m.n, Unit: unitMiB, Value: file},
		Figure{Row: "P4", Name: "idle: API requests per minute", N: m.n, Value: (after.operatorRequests - before.operatorRequests) / minutes},
	)
	return nil
}

// restart kills the operator in mid-run and measures from the start of the next one to each Rollout's next write.
func (m *measurement) restart(ctx context.Context) error {
	if err := m.deployAll(ctx, "v4"); err != nil {
		return err
	}
	f := m.all1()
	m.evidence.set(empty) // the gates wait
	wait := m.watcher.expect(f.keys, func(s *state) bool { return s.step == "half" && s.weights["v4"] == 50 })
	if err := f.patch(ctx, `{"version":"v4","steps":[{"name":"half","weight":50},{"name":"full","weight":100}]}`); err != nil {
		return err
	}
	if _, err := m.watcher.done(ctx, "v4 has half of the traffic", wait); err != nil {
		return err
	}
	if err := m.settle(ctx); err != nil {
		return err
	}
	m.operator.Kill()
	m.evidence.set(good)
	next := m.watcher.expect(f.keys, func(*state) bool { return true })
	began := time.Now()
	if err := m.operator.Start(ctx); err != nil {
		return err
	}
	at, err := m.watcher.done(ctx, "the restarted operator has written", next)
	if err != nil {
		return err
	}
	var times []time.Duration
	for _, t := range at {
		times = append(times, t.Sub(began))
	}
	m.report.add(timeFigure("P5", "killed, restarted: next write", m.n, times, nil))
	_, err = m.watcher.done(ctx, "v4 is promoted", m.watcher.reach(f.keys, healthy("v4")))
	return err
}

// all1 is one fleet of all Rollouts.
func (m *measurement) all1() *fleet {
	joined := &fleet{scene: m.scene}
	for _, f := range m.fleets {
		joined.keys = append(joined.keys, f.keys...)
	}
	return joined
}

// coldStart measures from the start of an operator until it has been through every Rollout.
func (m *measurement) coldStart(ctx context.Context) error {
	m.operator.Kill()
	began := time.Now()
	if err := m.operator.Start(ctx); err != nil {
		return err
	}
	total := float64(m.n * len(m.fleets))
	for {
		reconciled, err := m.operatorMetric(ctx, `controller_runtime_reconcile_total{controller="rollout",result="success"`)
		if err != nil {
			return err
		}
		waiting, err := m.operatorMetric(ctx, `workqueue_depth{controller="rollout"`)
		if err != nil {
			return err
		}
		if reconciled >= total && waiting == 0 {
			break
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	m.report.add(Figure{Row: "P6", Name: "cold start → synced", N: m.n, Unit: unitSeconds, Value: time.Since(began).Seconds()})
	if err := pause(ctx, quiet); err != nil {
		return err
	}
	memory, file, err := resident(m.operator.PID())
	m.report.add(
		Figure{Row: "P6", Name: "idle after it: memory", N: m.n, Unit: unitMiB, Value: memory},
		Figure{Row: "P6", Name: "  of that the program's file", N: m.n, Unit: unitMiB, Value: file},
	)
	return err
}

// inFlight measures what Rollouts in a step with a gate each 10 s ask of Prometheus.
func (m *measurement) inFlight(ctx context.Context) error {
	if err := m.deployAll(ctx, "v5"); err != nil {
		return err
	}
	f := m.all1()
	m.evidence.set(good)
	wait := m.watcher.expect(f.keys, func(s *state) bool { return s.step == "half" && s.weights["v5"] == 50 })
	err := f.patch(ctx, `{"version":"v5","gateDefaults":{"interval":"10s"},"gates":[{"name":"errors","metric":"errorRate","max":"1%"}],`+
		`"steps":[{"name":"half","weight":50,"hold":"1h"},{"name":"full","weight":100}]}`)
	if err != nil {
		return err
	}
	if _, err := m.watcher.done(ctx, "v5 has half of the traffic", wait); err != nil {
		return err
	}
	if err := pause(ctx, 75*time.Second); err != nil { // the gates' window
		return err
	}
	before, began := m.evidence.queries.Load(), time.Now()
	if err := pause(ctx, time.Minute); err != nil {
		return err
	}
	m.report.add(Figure{
		Row: "P7", Name: "in flight: Prometheus queries per minute", N: m.n,
		Value: float64(m.evidence.queries.Load()-before) / time.Since(began).Minutes(),
	})
	return nil
}
