package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"
)

const (
	// gateInterval is that of the gates' samples after the first, which is off the grid.
	gateInterval = 5 * time.Second
	// quiet is the time after which nothing more is expected to be written, events included.
	quiet = 3 * time.Second
)

// Options of a run.
type Options struct {
	// Sizes are the numbers of Rollouts, one fresh API server each.
	Sizes []int
	// Rows to measure, such as P1; P3 comes with P1.
	Rows []string
	// Operator is its binary, built without the race detector.
	Operator string
	// OperatorArgs are added to the operator's own.
	OperatorArgs []string
	// DataDir of the servers.
	DataDir string
	// Profiles is a folder for profiles of the operator; empty: none are taken.
	Profiles string
	// Idle is how long the idle operator is watched.
	Idle time.Duration
	// Out is told what is going on.
	Out io.Writer
}

func (o *Options) wants(rows ...string) bool {
	return slices.ContainsFunc(rows, func(row string) bool { return slices.Contains(o.Rows, row) })
}

func (o *Options) tell(format string, args ...any) {
	fmt.Fprintf(o.Out, time.Now().Format(time.TimeOnly)+" "+format+"\n", args...)
}

// rounds is how often a small number of Rollouts is measured, so that one number is not mere chance.
func rounds(n int) int {
	if n < 10 {
		return 5
	}
	return 1
}

// Run measures everything that was asked for.
func Run(ctx context.Context, o Options) (*Report, error) {
	report := &Report{}
	for _, n := range o.Sizes {
		if err := o.measure(ctx, n, report); err != nil {
			return nil, fmt.Errorf("%d Rollouts: %w", n, err)
		}
	}
	return report, nil
}

func (o *Options) measure(ctx context.Context, n int, report *Report) error {
	s, err := startScene(ctx, o, n)
	if err != nil {
		return err
	}
	defer s.stop()
	l := &limit{}
	if o.wants("P1", "P2", "P8") {
		if l, err = s.limit(ctx); err != nil {
			return err
		}
		report.add(rateFigure(n, l.rate))
	}
	if err := s.startOperator(ctx); err != nil {
		return err
	}
	var fleets []*fleet
	for i := range rounds(n) {
		o.tell("N=%d: setting up, round %d of %d", n, i+1, rounds(n))
		f, err := s.newFleet(ctx, fmt.Sprintf("bench-%d", i), n)
		if err != nil {
			return err
		}
		fleets = append(fleets, f)
	}
	m := &measurement{scene: s, fleets: fleets, limit: l, report: report}
	return m.all(ctx)
}

// measurement of one number of Rollouts.
type measurement struct {
	*scene
	fleets []*fleet
	limit  *limit
	report *Report
}

func (m *measurement) all(ctx context.Context) error {
	for _, part := range []struct {
		rows []string
		do   func(context.Context) error
	}{
		{[]string{"P1", "P3"}, m.releases},
		{[]string{"P4"}, m.idle},
		{[]string{"P2"}, m.rollbacks},
		{[]string{"P5"}, m.restart},
		{[]string{"P8"}, m.pushes},
		{[]string{"P6"}, m.coldStart},
		{[]string{"P7"}, m.inFlight},
	} {
		if !m.wants(part.rows...) {
			continue
		}
		m.tell("N=%d: %v", m.n, part.rows)
		if err := part.do(ctx); err != nil {
			return fmt.Errorf("%v: %w", part.rows, err)
		}
	}
	return nil
}

// pause lets what is under way end.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
