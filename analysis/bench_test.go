package analysis

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"

	"sluice.dev/sluice/internal/pipeline"
)

// scripted is a Prometheus whose answers are a function, for tests of timing alone. The meaning of queries is tested against the
// real one, in the sandbox.
type scripted struct {
	mu    sync.Mutex
	asked []string
	// value of a query at a time; an error is the answer to the whole request.
	value func(query string, t time.Time) (float64, error)
	// vector, when set, is what an instant query returns.
	vector func(query string, t time.Time) model.Vector
	// held, when set, is waited for by each request.
	held chan struct{}
}

func (s *scripted) Query(ctx context.Context, query string, ts time.Time, _ ...promv1.Option) (model.Value, promv1.Warnings, promv1.Infos, error) {
	value, err := s.answer(ctx, fmt.Sprintf("%s @%g", query, secondsOf(ts)), query, ts)
	s.mu.Lock()
	vector := s.vector
	s.mu.Unlock()
	if vector != nil {
		return vector(query, ts), nil, nil, err
	}
	return model.Vector{{Value: model.SampleValue(value)}}, nil, nil, err
}

func (s *scripted) QueryRange(ctx context.Context, query string, r promv1.Range, _ ...promv1.Option) (model.Value, promv1.Warnings, promv1.Infos, error) {
	stream := &model.SampleStream{}
	what := fmt.Sprintf("%s %g-%g/%s", query, secondsOf(r.Start), secondsOf(r.End), r.Step)
	for t := r.Start; !t.After(r.End); t = t.Add(r.Step) {
		value, err := s.answer(ctx, what, query, t)
		if err != nil {
			return nil, nil, nil, err
		}
		what = ""
		stream.Values = append(stream.Values, model.SamplePair{Timestamp: model.TimeFromUnixNano(t.UnixNano()), Value: model.SampleValue(value)})
	}
	return model.Matrix{stream}, nil, nil, nil
}

func secondsOf(t time.Time) float64 { return t.Sub(at(0)).Seconds() }

func (s *scripted) answer(ctx context.Context, what, query string, t time.Time) (float64, error) {
	s.mu.Lock()
	if what != "" {
		s.asked = append(s.asked, what)
	}
	held, value := s.held, s.value
	s.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return value(query, t)
}

func (s *scripted) set(value func(string, time.Time) (float64, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value = value
}

func (s *scripted) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// bench is an Analyst at work under a clock that stands still.
type bench struct {
	*testing.T
	*Analyst
	clock      *testclock.FakeClock
	prometheus *scripted
	registry   *prometheus.Registry
	mu         sync.Mutex
	woken      map[types.NamespacedName]int
}

func begin(t *testing.T, config Config) *bench {
	b := &bench{
		T: t, clock: testclock.NewFakeClock(at(0)), registry: prometheus.NewRegistry(), woken: map[types.NamespacedName]int{},
		prometheus: &scripted{value: func(string, time.Time) (float64, error) { return 0.5, nil }},
	}
	config.Prometheus, config.Clock, config.Registerer, config.Settle = b.prometheus, b.clock, b.registry, time.Second
	b.Analyst = New(config, func(key types.NamespacedName) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.woken[key]++
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return b
}

// await polls until a condition holds.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("waited in vain for: %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

// until waits for a condition, while time stands still.
func (b *bench) until(what string, condition func() bool) {
	b.Helper()
	await(b.T, what, condition)
}

// goTo lets time come to so many seconds. Steps are small, as a timer may be set while time passes.
func (b *bench) goTo(seconds float64) {
	b.clock.SetTime(at(seconds))
	b.reschedule() // a timer that was just about to be set would not ring in a clock that stands still
}

func (b *bench) wakes(key types.NamespacedName) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.woken[key]
}

// brief writes samples as "10 Pass 0.5".
func (b *bench) brief(key types.NamespacedName, gate string) string {
	var words []string
	for _, s := range b.Samples(key)[gate].Samples {
		words = append(words, strings.TrimSpace(fmt.Sprintf("%g %s %s", secondsOf(s.Time), s.Verdict, s.Value)))
	}
	return strings.Join(words, ", ")
}

func (b *bench) want(key types.NamespacedName, gate, want string) {
	b.Helper()
	b.until(fmt.Sprintf("samples %q", want), func() bool { return b.brief(key, gate) == want })
}

func name(s string) types.NamespacedName { return types.NamespacedName{Namespace: "bookinfo", Name: s} }

func plainGate(first float64) pipeline.GateWatch {
	return pipeline.GateWatch{Name: "g", Query: "q", Max: "1", Interval: 10 * time.Second, First: at(first), Samples: 3, Failures: 2}
}

func watchOf(id string, gates ...pipeline.GateWatch) *pipeline.Watch {
	return &pipeline.Watch{ID: id, Gates: gates}
}
