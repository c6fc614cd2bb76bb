package analysis

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"
	testclock "k8s.io/utils/clock/testing"

	"sluice.dev/sluice/internal/pipeline"
)

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
