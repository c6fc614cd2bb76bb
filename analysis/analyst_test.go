package analysis

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
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
	// held, when set, is waited for by each request.
	held chan struct{}
}

func (s *scripted) Query(ctx context.Context, query string, ts time.Time, _ ...promv1.Option) (model.Value, promv1.Warnings, promv1.Infos, error) {
	value, err := s.answer(ctx, fmt.Sprintf("%s @%g", query, secondsOf(ts)), query, ts)
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

func TestSamplesComeOneByOneOnTheGrid(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	b.Set(key, watchOf("1", plainGate(10)))
	b.goTo(10.9)
	if got := b.prometheus.requests(); len(got) != 0 {
		t.Fatalf("asked %v before the sample settled", got)
	}
	b.goTo(11)
	b.want(key, "g", "10 Pass 0.5")
	b.prometheus.set(func(string, time.Time) (float64, error) { return 2, nil })
	b.goTo(21)
	b.want(key, "g", "10 Pass 0.5, 20 Fail 2")
	b.until("two wakes", func() bool { return b.wakes(key) == 2 })
	if diff := cmp.Diff([]string{"q 10-10/10s", "q 20-20/10s"}, b.prometheus.requests()); diff != "" {
		t.Error(diff)
	}
	if got := b.Samples(key)["g"]; got.For != "1" || got.Query != "q" || got.InvalidQuery != "" {
		t.Errorf("%+v", got)
	}
}

func TestAfterARestartOneRequestBringsAll(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	b.goTo(42)
	b.Set(key, watchOf("1", plainGate(10)))
	b.want(key, "g", "10 Pass 0.5, 20 Pass 0.5, 30 Pass 0.5, 40 Pass 0.5")
	if diff := cmp.Diff([]string{"q 10-40/10s"}, b.prometheus.requests()); diff != "" {
		t.Error(diff)
	}
}

func TestLongAgoIsLeftOut(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	b.goTo(100_001)
	b.Set(key, watchOf("1", plainGate(10)))
	b.until("samples", func() bool { return len(b.Samples(key)["g"].Samples) == maxSamples })
	b.goTo(100_011)
	b.until("the next", func() bool {
		s := b.Samples(key)["g"].Samples
		return len(s) == maxSamples && s[maxSamples-1].Time.Equal(at(100_010))
	})
	if diff := cmp.Diff([]string{"q 98010-100000/10s", "q 100010-100010/10s"}, b.prometheus.requests()); diff != "" {
		t.Error(diff)
	}
}

func TestOffTheGrid(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	g := plainGate(13.5)
	g.OffGrid = true
	b.Set(key, watchOf("1", g))
	b.goTo(14.5)
	b.want(key, "g", "13.5 Pass 0.5")
	b.goTo(21)
	b.want(key, "g", "13.5 Pass 0.5, 20 Pass 0.5")
	if diff := cmp.Diff([]string{"q @13.5", "q 20-20/10s"}, b.prometheus.requests()); diff != "" {
		t.Error(diff)
	}
}

func TestErrorsAreAskedAgainAndReplaced(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	b.prometheus.set(func(string, time.Time) (float64, error) {
		return 0, &promv1.Error{Type: promv1.ErrServer, Msg: "server error: 503"}
	})
	b.Set(key, watchOf("1", plainGate(10)))
	b.goTo(11)
	b.want(key, "g", "10 Error")
	b.goTo(21)
	b.want(key, "g", "10 Error, 20 Error")
	if got := b.Samples(key)["g"].Samples[0].Message; got != "Prometheus refuses to answer: server error: 503" {
		t.Errorf("message %q", got)
	}
	b.prometheus.set(func(string, time.Time) (float64, error) { return 0.25, nil })
	b.goTo(31)
	b.want(key, "g", "10 Pass 0.25, 20 Pass 0.25, 30 Pass 0.25")
	b.goTo(41)
	b.want(key, "g", "10 Pass 0.25, 20 Pass 0.25, 30 Pass 0.25, 40 Pass 0.25")
	if diff := cmp.Diff([]string{"q 10-10/10s", "q 10-20/10s", "q 10-30/10s", "q 40-40/10s"}, b.prometheus.requests()); diff != "" {
		t.Error(diff)
	}
}

func TestOneFailedSampleIsFinal(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	b.prometheus.set(func(string, time.Time) (float64, error) { return 2, nil })
	b.Set(key, watchOf("1", plainGate(10)))
	b.goTo(11)
	b.want(key, "g", "10 Fail 2")
	b.prometheus.set(func(string, time.Time) (float64, error) { return 0, nil })
	b.goTo(21)
	b.want(key, "g", "10 Fail 2, 20 Pass 0")
}

func TestRefusedQuery(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	b.prometheus.set(func(string, time.Time) (float64, error) {
		return 0, &promv1.Error{Type: promv1.ErrBadData, Msg: "1:5: parse error"}
	})
	b.Set(key, watchOf("1", plainGate(10)))
	b.goTo(11)
	b.until("a refusal", func() bool { return b.Samples(key)["g"].InvalidQuery == "1:5: parse error" })
	b.until("a wake", func() bool { return b.wakes(key) == 1 })
	b.goTo(21)
	b.until("a second request", func() bool { return len(b.prometheus.requests()) == 2 })
	b.prometheus.set(func(string, time.Time) (float64, error) { return 0, nil })
	b.goTo(31)
	b.want(key, "g", "10 Pass 0, 20 Pass 0, 30 Pass 0")
	if got := b.Samples(key)["g"].InvalidQuery; got != "" {
		t.Errorf("still refused: %q", got)
	}
	b.until("only news wakes", func() bool { return b.wakes(key) == 2 })
}

func TestBrokenGateIsToldAtOnce(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	g := plainGate(10_000)
	g.Query = "{{ .Colour }}"
	b.Set(key, watchOf("1", g))
	b.until("a wake", func() bool { return b.wakes(key) == 1 })
	if got := b.Samples(key)["g"]; !strings.Contains(got.InvalidQuery, "Colour") || got.Query != g.Query {
		t.Errorf("%+v", got)
	}
}

func TestEqualQueriesAreAskedOnce(t *testing.T) {
	b := begin(t, Config{Workers: 4})
	const rollouts = 300
	release := make(chan struct{})
	b.prometheus.held = release
	for i := range rollouts {
		b.Set(name(fmt.Sprint(i)), watchOf("1", plainGate(10)))
	}
	b.goTo(11)
	b.until("a request", func() bool { return len(b.prometheus.requests()) == 1 })
	close(release)
	for i := range rollouts {
		b.want(name(fmt.Sprint(i)), "g", "10 Pass 0.5")
	}
	if got := b.prometheus.requests(); len(got) != 1 {
		t.Errorf("%d requests; want 1: %v", len(got), got)
	}
}

func TestNoMoreRequestsAtOnceThanWorkers(t *testing.T) {
	b := begin(t, Config{Workers: 2})
	release := make(chan struct{})
	b.prometheus.held = release
	for i := range 10 {
		g := plainGate(10)
		g.Query = fmt.Sprint("q", i)
		b.Set(name(fmt.Sprint(i)), watchOf("1", g))
	}
	b.goTo(11)
	b.until("two requests", func() bool { return len(b.prometheus.requests()) == 2 })
	if got := len(b.asker.slots); got != 2 {
		t.Errorf("%d under way", got)
	}
	close(release)
	for i := range 10 {
		b.want(name(fmt.Sprint(i)), "g", "10 Pass 0.5")
	}
}

func TestASlowPrometheusIsAnError(t *testing.T) {
	b := begin(t, Config{Timeout: 20 * time.Millisecond})
	key := name("reviews")
	b.prometheus.held = make(chan struct{})
	b.Set(key, watchOf("1", plainGate(10)))
	b.goTo(11)
	b.want(key, "g", "10 Error")
	if got := b.Samples(key)["g"].Samples[0].Message; got != "Prometheus did not answer in time" {
		t.Errorf("message %q", got)
	}
	b.until("it is counted", func() bool { return testutil.ToFloat64(b.metrics.queries.WithLabelValues(resultTimeout)) == 1 })
}

func TestSetKeepsWhatStaysAndForgetsTheRest(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	other := plainGate(10)
	other.Name, other.Query = "h", "r"
	b.Set(key, watchOf("1", plainGate(10), other))
	b.goTo(11)
	b.want(key, "g", "10 Pass 0.5")
	b.want(key, "h", "10 Pass 0.5")

	changed := other
	changed.Max = "0.1"
	local := plainGate(10)
	local.First = local.First.In(time.FixedZone("elsewhere", 3600)) // the same time
	b.Set(key, watchOf("1", local, changed))
	b.want(key, "g", "10 Pass 0.5")
	b.want(key, "h", "10 Fail 0.5") // asked again
	if diff := cmp.Diff(1, count(b.prometheus.requests(), "q 10-10/10s")); diff != "" {
		t.Error("gate g was asked for again", diff)
	}

	b.Set(key, watchOf("2", plainGate(20)))
	if got := b.Samples(key); len(got) != 1 || len(got["g"].Samples) != 0 || got["g"].For != "2" {
		t.Errorf("after another ID: %+v", got)
	}
	b.goTo(21)
	b.want(key, "g", "20 Pass 0.5")
	b.Set(key, nil)
	b.Set(key, nil)
	if got := b.Samples(key); got != nil {
		t.Errorf("after nil: %+v", got)
	}
	if got := testutil.CollectAndCount(b.metrics.limit) + testutil.CollectAndCount(b.metrics.value); got != 0 {
		t.Errorf("%d metrics of a forgotten gate", got)
	}
}

func count(all []string, one string) int {
	n := 0
	for _, s := range all {
		if s == one {
			n++
		}
	}
	return n
}

func TestAnswersForAForgottenGateAreDropped(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	release := make(chan struct{})
	b.prometheus.held = release
	b.Set(key, watchOf("1", plainGate(10)))
	b.goTo(11)
	b.until("a request", func() bool { return len(b.prometheus.requests()) == 1 })
	b.Set(key, watchOf("2", plainGate(20)))
	close(release)
	b.goTo(21)
	b.want(key, "g", "20 Pass 0.5")
	if got := b.wakes(key); got > 1 {
		t.Errorf("%d wakes", got)
	}
}

func TestMetrics(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	b.Set(key, watchOf("1", plainGate(10)))
	b.goTo(11)
	b.want(key, "g", "10 Pass 0.5")
	want := `
# HELP sluice_gate_limit Limit of a gate, in the unit of its value. Bound is max or min.
# TYPE sluice_gate_limit gauge
sluice_gate_limit{bound="max",gate="g",namespace="bookinfo",rollout="reviews"} 1
# HELP sluice_gate_samples_total Samples of gates by verdict: Pass, Fail, NoData or Error.
# TYPE sluice_gate_samples_total counter
sluice_gate_samples_total{verdict="Pass"} 1
# HELP sluice_gate_value Value of a gate's newest sample: a share from 0 to 1, seconds, or what its query yields. Absent while there is none.
# TYPE sluice_gate_value gauge
sluice_gate_value{gate="g",namespace="bookinfo",rollout="reviews"} 0.5
# HELP sluice_prometheus_queries_total Requests to Prometheus by result: success, warning, invalid (bad_data), timeout or error.
# TYPE sluice_prometheus_queries_total counter
sluice_prometheus_queries_total{result="success"} 1
`
	if err := testutil.GatherAndCompare(b.registry, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	b.prometheus.set(func(string, time.Time) (float64, error) { return 0, context.DeadlineExceeded })
	b.goTo(21)
	b.want(key, "g", "10 Pass 0.5, 20 Error")
	if got := testutil.CollectAndCount(b.metrics.value); got != 0 {
		t.Errorf("a value is shown while there is none")
	}
}

func TestWithoutPrometheus(t *testing.T) {
	clock := testclock.NewFakeClock(at(60))
	a := New(Config{Clock: clock}, func(types.NamespacedName) {})
	failed, _ := unanswered(func() error { _, _, _, err := a.config.Prometheus.Query(t.Context(), "", at(0)); return err }())
	if !strings.Contains(failed.message, "--prometheus-url") || failed.verdict != pipeline.Error {
		t.Errorf("%+v", failed)
	}
	if !a.NeedLeaderElection() {
		t.Error("each replica would measure")
	}
}
