package analysis

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/model"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

func breakerOf(id string) pipeline.BreakerWatch {
	return pipeline.BreakerWatch{
		ID: id, Signals: []v1.BreakerSignal{v1.SignalOverflow, v1.SignalEjection, v1.SignalRetryLimit}, Scope: v1.BreakerCanary,
		Window: 30 * time.Second, Since: at(0), RunStart: at(0), HostSince: at(0), Host: "reviews", Namespace: "bookinfo", Subset: "v3",
		Canary: pipeline.GateTarget{Version: "v3", Workload: "reviews-v3", Labels: map[string]string{"version": "v3"}},
	}
}

func lostRequests(flags, version, workload string, count float64) *model.Sample {
	return &model.Sample{Value: model.SampleValue(count), Metric: model.Metric{
		partLabel: partRequests, "response_flags": model.LabelValue(flags),
		"destination_version": model.LabelValue(version), "destination_workload": model.LabelValue(workload),
	}}
}

func partOf(part string, value float64) *model.Sample {
	metric := model.Metric{partLabel: model.LabelValue(part)}
	if part == "" {
		metric = model.Metric{}
	}
	return &model.Sample{Value: model.SampleValue(value), Metric: metric}
}

// answers is a Prometheus that says this now, and that of before the run.
func (b *bench) answers(before float64, now ...*model.Sample) {
	b.prometheus.mu.Lock()
	defer b.prometheus.mu.Unlock()
	b.prometheus.vector = func(query string, _ time.Time) model.Vector {
		if !strings.Contains(query, partSeen) {
			return model.Vector{partOf("", before)}
		}
		return append(model.Vector{partOf(partSeen, 1)}, now...)
	}
}

func (b *bench) trips(id string) string {
	state := b.Breaker(name("reviews"))
	if state == nil || state.For != id {
		return "no state of " + id
	}
	var words []string
	for _, t := range state.Trips {
		word := fmt.Sprintf("%s %d @%g", t.Signal, t.Count, secondsOf(t.Time))
		if t.ByHost {
			word += " by host"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

// answered waits until the poll at a time is over.
func (b *bench) answered(second float64) {
	b.Helper()
	b.until(fmt.Sprintf("the answer at %gs", second), func() bool {
		b.Analyst.mu.Lock()
		defer b.Analyst.mu.Unlock()
		known := b.Analyst.watches[name("reviews")].breaker
		return !known.asking && known.answered.Equal(at(second))
	})
}

func (b *bench) wantTrips(id, want string) {
	b.Helper()
	b.until(fmt.Sprintf("trips %q", want), func() bool { return b.trips(id) == want })
}

func TestBreakerIsPolledEachSecond(t *testing.T) {
	b := begin(t, Config{})
	b.answers(0)
	w := breakerOf("1")
	b.Set(name("reviews"), &pipeline.Watch{Breaker: &w})
	b.Set(name("same"), &pipeline.Watch{Breaker: &w})
	asked := func() (now, before int) {
		for _, q := range b.prometheus.requests() {
			if strings.Contains(q, partSeen) {
				now++
			} else {
				before++
			}
		}
		return now, before
	}
	for i, second := range []float64{0.9, 1, 2, 2.9, 3} {
		b.goTo(second)
		want := []int{0, 1, 2, 2, 3}[i]
		b.until(fmt.Sprintf("%d requests at %gs", want, second), func() bool { now, before := asked(); return now == want && before == min(want, 1) })
		b.until("rest", func() bool {
			b.Analyst.mu.Lock()
			defer b.Analyst.mu.Unlock()
			return !b.Analyst.watches[name("reviews")].breaker.asking
		})
	}
	b.Set(name("reviews"), nil)
	b.Set(name("same"), nil)
	b.goTo(10)
	if now, _ := asked(); now != 3 || b.Breaker(name("reviews")) != nil {
		t.Errorf("%d requests, the last of them for no breaker", now)
	}
}

func TestSlowPollsDoNotPileUp(t *testing.T) {
	b := begin(t, Config{Timeout: time.Hour})
	b.prometheus.held = make(chan struct{})
	w := breakerOf("1")
	w.HostSince = time.Time{}
	b.Set(name("reviews"), &pipeline.Watch{Breaker: &w})
	for second := range 5 {
		b.goTo(float64(second + 1))
	}
	b.until("a request", func() bool { return len(b.prometheus.requests()) > 0 })
	if n := len(b.prometheus.requests()); n != 1 {
		t.Errorf("%d requests at once", n)
	}
}

func TestTrips(t *testing.T) {
	b := begin(t, Config{})
	b.answers(0)
	w := breakerOf("1")
	key := name("reviews")
	b.Set(key, &pipeline.Watch{Breaker: &w})
	b.goTo(1)
	b.wantTrips("1", "")
	b.answers(0, lostRequests("UO", "v1", "reviews-v1", 99), lostRequests("UH", "unknown", "unknown", 7))
	b.goTo(2)
	b.answered(2)
	b.wantTrips("1", "")
	b.answers(0, lostRequests("UO", "unknown", "reviews-v3", 3))
	b.goTo(3)
	b.wantTrips("1", "Overflow 3 @3")
	b.until("a wake", func() bool { return b.wakes(key) == 1 })
	b.answers(0, partOf(partHost, 2))
	b.goTo(4)
	b.wantTrips("1", "Overflow 3 @3, Ejection 2 @4 by host")
	b.answers(0)
	b.goTo(5)
	b.wantTrips("1", "Overflow 3 @3") // what has no version is no news for ever
	if q := b.Breaker(key).Trips[0].Query; !strings.Contains(q, "response_flags") || strings.Contains(q, partLabel) {
		t.Errorf("evidence by %s", q)
	}
	same := w
	b.Set(key, &pipeline.Watch{ID: "another step", Breaker: &same})
	b.wantTrips("1", "Overflow 3 @3")
	other := breakerOf("2")
	b.Set(key, &pipeline.Watch{Breaker: &other})
	b.wantTrips("", "")
	b.goTo(6)
	b.wantTrips("2", "")
}

func TestCounts(t *testing.T) {
	base := func(n float64) *float64 { return &n }
	for what, test := range map[string]struct {
		change func(*pipeline.BreakerWatch)
		before *float64
		answer model.Vector
		want   string
	}{
		// A third of the window has passed.
		"none":                         {},
		"the canary's by version":      {answer: model.Vector{lostRequests("UF,UO", "v3", "other", 2)}, want: "Overflow 2"},
		"the canary's by workload":     {answer: model.Vector{lostRequests("UO", "unknown", "reviews-v3", 2)}, want: "Overflow 2"},
		"stable's":                     {answer: model.Vector{lostRequests("UO", "unknown", "reviews-v1", 2), lostRequests("URX", "v1", "reviews-v1", 1)}},
		"retries used up":              {answer: model.Vector{lostRequests("UF,URX", "v3", "reviews-v3", 1)}, want: "RetryLimit 1"},
		"the whole host":               {change: func(w *pipeline.BreakerWatch) { w.Scope = v1.BreakerHost }, answer: model.Vector{lostRequests("UO", "unknown", "reviews-v1", 2)}, want: "Overflow 2"},
		"Envoy's overflows":            {answer: model.Vector{lostRequests("UO", "unknown", "reviews-v3", 2), partOf(partOverflow, 5)}, want: "Overflow 5 envoy"},
		"Envoy's are the same ones":    {answer: model.Vector{lostRequests("UO", "unknown", "reviews-v3", 2), partOf(partOverflow, 1)}, want: "Overflow 2"},
		"Envoy's ejections":            {before: base(0), answer: model.Vector{partOf(partEjection, 1), partOf(partHost, 9)}, want: "Ejection 1 envoy"},
		"other proxies say none":       {before: base(0), answer: model.Vector{partOf(partEjection, 0), partOf(partHost, 9)}, want: "Ejection 9 by host"},
		"ejections of another subset":  {before: base(0), answer: model.Vector{partOf(partEjection, 0), partOf(partElsewhere, 1), partOf(partHost, 9)}},
		"by host":                      {before: base(0), answer: model.Vector{partOf(partHost, 9)}, want: "Ejection 9 by host"},
		"by host, before is not known": {answer: model.Vector{partOf(partHost, 9)}},
		"by host, as before":           {before: base(27), answer: model.Vector{partOf(partHost, 9)}},
		"by host, more than before":    {before: base(27), answer: model.Vector{partOf(partHost, 10)}, want: "Ejection 1 by host"},
		"maxTrips":                     {change: func(w *pipeline.BreakerWatch) { w.MaxTrips = 2 }, answer: model.Vector{lostRequests("UO", "v3", "", 2)}},
		"more than maxTrips":           {change: func(w *pipeline.BreakerWatch) { w.MaxTrips = 2 }, answer: model.Vector{lostRequests("UO", "v3", "", 3)}, want: "Overflow 3"},
		"a signal that is off":         {change: func(w *pipeline.BreakerWatch) { w.Signals = w.Signals[:1] }, answer: model.Vector{lostRequests("URX", "v3", "", 3)}},
		"no numbers":                   {answer: model.Vector{lostRequests("UO", "v3", "", math.NaN()), partOf(partOverflow, math.Inf(1)), nil}},
		"a canary without marks": {
			change: func(w *pipeline.BreakerWatch) { w.Canary = pipeline.GateTarget{Version: "v3"} },
			answer: model.Vector{lostRequests("UO", "", "", 3)},
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := breakerOf("1")
			if test.change != nil {
				test.change(&w)
			}
			known, ok := readCounts(test.answer, w)
			if !ok {
				t.Fatal("not read")
			}
			b := newBreaker(name("reviews"), w, at(0))
			b.before = test.before
			var words []string
			for _, trip := range b.judge(known, b.lookup(at(10))) {
				word := fmt.Sprintf("%s %d", trip.Signal, trip.Count)
				if trip.ByHost {
					word += " by host"
				}
				if strings.Contains(trip.Query, "envoy_") {
					word += " envoy"
				}
				words = append(words, word)
			}
			if got := strings.Join(words, ", "); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
	if _, ok := readCounts(model.Matrix{}, breakerOf("1")); ok {
		t.Error("a matrix was read")
	}
}

// Requests that found no endpoint while stable had none are not held against the canary once it has one again.
func TestLostByHostCountsAnew(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	w := breakerOf("1")
	b.answers(0, partOf(partHost, 2), lostRequests("UO", "v3", "", 4))
	b.Set(key, &pipeline.Watch{Breaker: &w})
	b.goTo(10)
	b.wantTrips("1", "Overflow 4 @10, Ejection 2 @10 by host")
	none := w
	none.HostSince = time.Time{}
	b.Set(key, &pipeline.Watch{Breaker: &none})
	b.wantTrips("1", "Overflow 4 @10") // the canary's own stay
	b.goTo(29)
	b.answered(29)
	b.Set(key, &pipeline.Watch{Breaker: &w})
	b.goTo(31)
	b.wantTrips("1", "Overflow 4 @10, Ejection 2 @31 by host")
	query := b.Breaker(key).Trips[1].Query
	if !strings.Contains(query, "[2s]") || strings.Contains(query, "unless") || strings.Contains(query, "offset") {
		t.Errorf("counts %s, want what came within 2s, and no value of before", query)
	}
}

// Where one is too many, none slips through while Prometheus does not answer.
func TestPrometheusAwayForLongerThanTheWindow(t *testing.T) {
	for maxTrips, want := range map[int]string{0: "[92s]", 1: "[30s]"} {
		b := begin(t, Config{})
		key := name("reviews")
		w := breakerOf("1")
		w.MaxTrips = maxTrips
		b.answers(0)
		b.Set(key, &pipeline.Watch{Breaker: &w})
		b.goTo(100)
		b.answered(100)
		b.prometheus.set(func(string, time.Time) (float64, error) { return 0, context.DeadlineExceeded })
		b.goTo(110)
		b.until("blind", func() bool { return !b.Breaker(key).BlindSince.IsZero() })
		b.prometheus.set(func(string, time.Time) (float64, error) { return 0, nil })
		b.answers(0, lostRequests("UO", "v3", "", 4))
		b.goTo(190)
		b.wantTrips("1", "Overflow 4 @190")
		trip := b.Breaker(key).Trips[0]
		if !strings.Contains(trip.Query, want) || want != "["+promDuration(trip.Within)+"]" {
			t.Errorf("maxTrips %d: within %s by %s, want %s", maxTrips, trip.Within, trip.Query, want)
		}
	}
}

// Nothing is known of a breaker that was not looked at: neither that it sees, nor that it does not.
func TestNothingIsToldBeforeTheFirstPoll(t *testing.T) {
	b := begin(t, Config{})
	w := breakerOf("1")
	b.answers(0)
	b.Set(name("reviews"), &pipeline.Watch{Breaker: &w})
	if s := b.Breaker(name("reviews")); s.For != "" {
		t.Errorf("told %+v", s)
	}
	b.goTo(1)
	b.wantTrips("1", "")
}

func TestBlind(t *testing.T) {
	b := begin(t, Config{})
	key := name("reviews")
	w := breakerOf("1")
	state := func() (float64, string) {
		s := b.Breaker(key)
		if s.BlindSince.IsZero() {
			return 0, s.Blind
		}
		return secondsOf(s.BlindSince), s.Blind
	}
	b.prometheus.set(func(string, time.Time) (float64, error) { return 0, context.DeadlineExceeded })
	b.Set(key, &pipeline.Watch{Breaker: &w})
	b.goTo(1)
	b.until("blind", func() bool { since, why := state(); return since == 1 && why == "Prometheus did not answer in time" })
	b.until("a wake", func() bool { return b.wakes(key) == 1 })
	b.prometheus.set(func(string, time.Time) (float64, error) { return 0, nil })
	b.prometheus.mu.Lock()
	b.prometheus.vector = func(string, time.Time) model.Vector { return nil }
	b.prometheus.mu.Unlock()
	b.goTo(2)
	b.until("nothing reported", func() bool {
		since, why := state()
		return since == 1 && strings.Contains(why, "has no istio_requests_total of reviews")
	})
	if got := testutil.ToFloat64(b.metrics.blind.WithLabelValues("bookinfo", "reviews")); got != 1 {
		t.Errorf("metric %g", got)
	}
	b.answers(0)
	b.goTo(3)
	b.until("it sees", func() bool { since, why := state(); return since == 0 && why == "" })
	b.until("another wake", func() bool { return b.wakes(key) == 2 })

	unknown := breakerOf("2")
	unknown.Canary = pipeline.GateTarget{Version: "v3"}
	b.Set(key, &pipeline.Watch{Breaker: &unknown})
	b.goTo(4)
	b.until("no marks", func() bool {
		_, why := state()
		return strings.Contains(why, "neither a label `version` nor a workload")
	})
	b.answers(0, partOf(partOverflow, 0))
	b.goTo(5)
	b.until("Envoy's own suffice", func() bool { _, why := state(); return why == "" })
	b.Set(key, nil)
	if n := testutil.CollectAndCount(b.metrics.blind) + testutil.CollectAndCount(b.metrics.signals); n != 0 {
		t.Errorf("%d metrics of a forgotten breaker", n)
	}
}

func TestWindows(t *testing.T) {
	w := breakerOf("1")
	w.Since, w.HostSince = at(100), at(120)
	look := func(second float64) lookup {
		return lookup{watch: w, at: at(second), answered: at(second - 1), hostTaken: at(120)}
	}
	for _, test := range []struct {
		at    float64
		fault bool
		part  string
		has   []string
		lacks []string
	}{
		{110, false, partOverflow, []string{"[10s]", "last_over_time(envoy_cluster_upstream_rq_pending_overflow{" + `cluster_name=~"outbound\\|[0-9]+\\|v3\\|reviews\\.bookinfo\\.svc\\.cluster\\.local(;.*)?"}[300s] offset 10s)`}, nil},
		{200, false, partRequests, []string{"[30s]", "offset 30s", `response_flags=~"(.*,)?(UO|URX)(,.*)?"`, `reporter="source"`}, []string{"[10s]"}},
		{110, true, partOverflow, []string{"min_over_time(envoy_cluster_upstream_rq_pending_overflow{"}, []string{"last_over_time(envoy_cluster_upstream_rq_pending_overflow{" + `cluster_name=~"outbound\\|[0-9]+\\|v3\\|reviews\\.bookinfo\\.svc\\.cluster\\.local(;.*)?"}[300s]`}},
		{140, true, partEjection, []string{"[10s] offset 30s"}, nil},
		{125, false, partHost, []string{"[5s]", `(UH)`}, []string{"[25s]"}},
		{119, false, partHost, nil, []string{"UH"}},
	} {
		w.Aftermath = test.fault
		query := look(test.at).parts()[test.part]
		for _, text := range test.has {
			if !strings.Contains(query, text) {
				t.Errorf("at %g: %s of %s lacks %s", test.at, query, test.part, text)
			}
		}
		for _, text := range test.lacks {
			if strings.Contains(query, text) {
				t.Errorf("at %g: %s of %s has %s", test.at, query, test.part, text)
			}
		}
	}
	w.Scope, w.Host = v1.BreakerHost, "reviews.bookinfo.svc.cluster.local"
	if got := clusterMatcher(w); got != `cluster_name=~"outbound\\|[0-9]+\\|[^|]*\\|reviews\\.bookinfo\\.svc\\.cluster\\.local(;.*)?"` {
		t.Error(got)
	}
	if diff := cmp.Diff(1, strings.Count(joined(look(200).parts()), `"`+partHost+`"`)); diff != "" {
		t.Error(diff)
	}
}

// A canary with a host of its own: what is lost on the way there is the canary's, what is lost on the way to the Rollout's is not.
func TestBreakerElsewhere(t *testing.T) {
	w := breakerOf("w")
	w.Subset, w.Canary = "", pipeline.GateTarget{Version: "v2", Host: "api-v2.partner.com"}
	parts := lookup{watch: w, at: at(60)}.parts()
	for part, want := range map[string]string{
		partRequests: `destination_service_name="api-v2.partner.com",destination_service_namespace="bookinfo"`,
		partOverflow: `cluster_name=~"outbound\\|[0-9]+\\|\\|api-v2\\.partner\\.com(;.*)?"`,
		partSeen:     `destination_service_name=~"reviews|api-v2\\.partner\\.com"`,
	} {
		if !strings.Contains(parts[part], want) {
			t.Errorf("part %s lacks %s:\n%s", part, want, parts[part])
		}
	}
	known, _ := readCounts(model.Vector{lostRequests("UO", "unknown", "unknown", 2)}, w)
	if known.flagged[flagOverflow] != 2 {
		t.Errorf("overflows on the way to the canary's host: %v, want 2", known.flagged)
	}
	if blind, _ := see(&call{answer: model.Vector{partOf(partSeen, 1)}}, w); blind != "" {
		t.Errorf("blind: %s", blind)
	}
	w.Scope = v1.BreakerHost
	parts = lookup{watch: w, at: at(60)}.parts()
	if want := `(reviews\\.bookinfo\\.svc\\.cluster\\.local|api-v2\\.partner\\.com)`; !strings.Contains(parts[partOverflow], want) {
		t.Errorf("of the whole host, %s is missing:\n%s", want, parts[partOverflow])
	}
}

// TestBreakerOfAPort: stable answers on another port of the host, and what is lost there is not the canary's.
func TestBreakerOfAPort(t *testing.T) {
	w := breakerOf("w")
	w.Subset, w.Canary = "", pipeline.GateTarget{Version: "v2", Host: "api.partner.com", SharesHost: true, Port: 8081}
	parts := lookup{watch: w, at: at(60), hostTaken: at(0)}.parts()
	for part, want := range map[string]string{
		partOverflow:  `cluster_name=~"outbound\\|8081\\|\\|api\\.partner\\.com(;.*)?"`,
		partElsewhere: `cluster_name=~"outbound\\|[0-9]+\\|[^|]*\\|api\\.partner\\.com(;.*)?",cluster_name!~"outbound\\|8081\\|`,
	} {
		if !strings.Contains(parts[part], want) {
			t.Errorf("part %s lacks %s:\n%s", part, want, parts[part])
		}
	}
	lost := model.Vector{lostRequests("UO", "v2", "api-v1", 2), partOf(partSeen, 1)}
	if known, _ := readCounts(lost, w); known.flagged[flagOverflow] != 0 {
		t.Errorf("stable's overflows: %v are the canary's", known.flagged)
	}
	if blind, _ := see(&call{answer: lost}, w); !strings.Contains(blind, "can not tell it apart") {
		t.Errorf("without a workload, blind: %q", blind)
	}
	w.Canary.Workload = "api-v1"
	if known, _ := readCounts(lost, w); known.flagged[flagOverflow] != 2 {
		t.Errorf("its workload's overflows: %v", known.flagged)
	}
}
