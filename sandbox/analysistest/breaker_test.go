package analysistest

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"sluice.dev/sluice/analysis"
	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// guard watches a breaker on a Service's version v3 from now on, with an Analyst of its own.
func guard(t *testing.T, service string, change func(*pipeline.BreakerWatch)) func() *pipeline.BreakerState {
	t.Helper()
	now := time.Now()
	w := &pipeline.BreakerWatch{
		ID: "1", Signals: []v1.BreakerSignal{v1.SignalOverflow, v1.SignalEjection}, Scope: v1.BreakerCanary, Window: time.Minute,
		Since: now, RunStart: now, Host: service, Namespace: "bookinfo", Subset: "v3",
		Canary: pipeline.GateTarget{Version: "v3", Workload: service + "-v3", Labels: map[string]string{"version": "v3"}},
	}
	if change != nil {
		change(w)
	}
	client, err := analysis.NewClient(prometheusURL, "")
	if err != nil {
		t.Fatal(err)
	}
	a := analysis.New(analysis.Config{Prometheus: client, Clock: clock.RealClock{}, Settle: settle, Log: logr.Discard()}, func(types.NamespacedName) {})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Start(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	key := types.NamespacedName{Namespace: "bookinfo", Name: service}
	a.Set(key, &pipeline.Watch{Breaker: w})
	return func() *pipeline.BreakerState { return a.Breaker(key) }
}

// awaitTrip polls until a signal has tripped.
func awaitTrip(t *testing.T, known func() *pipeline.BreakerState, signal v1.BreakerSignal) pipeline.Trip {
	t.Helper()
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		for _, trip := range known().Trips {
			if trip.Signal == signal {
				return trip
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s did not trip: %+v", signal, known())
	return pipeline.Trip{}
}

// quiet fails if anything trips within some polls.
func quiet(t *testing.T, known func() *pipeline.BreakerState) {
	t.Helper()
	for deadline := time.Now().Add(4 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if s := known(); len(s.Trips) > 0 || !s.BlindSince.IsZero() {
			t.Fatalf("saw %+v", s)
		}
	}
}

// shown is a counter or gauge that a test sets.
func shown(name string, value int64) *atomic.Int64 {
	n := &atomic.Int64{}
	n.Store(value)
	series.show(name, func() float64 { return float64(n.Load()) })
	return n
}

func overflowed(service, version string) string {
	return request(service, "response_code", "503", "response_flags", "UO", "destination_version", "unknown", "destination_workload", service+"-"+version)
}

func lost(service string) string {
	return request(service, "response_code", "503", "response_flags", "UH", "destination_version", "unknown", "destination_workload", "unknown")
}

func cluster(metric, service, subset string) string {
	return fmt.Sprintf("%s{cluster_name=%q}", metric, "outbound|9080|"+subset+"|"+service+".bookinfo.svc.cluster.local")
}

// What overflows for the first time comes in a series that was not there before: it counts, to the last request, and stable's
// never does.
func TestFirstOverflowTrips(t *testing.T) {
	t.Parallel()
	service := newService("overflow")
	series.show(request(service), growing(100))
	awaitPast(t, request(service))
	stable := shown(overflowed(service, "v1"), 1)
	known := guard(t, service, nil)
	for range 3 {
		stable.Add(100)
		time.Sleep(300 * time.Millisecond)
	}
	quiet(t, known)
	shown(overflowed(service, "v3"), 7)
	if trip := awaitTrip(t, known, v1.SignalOverflow); trip.Count != 7 || trip.ByHost || !strings.Contains(trip.Query, "istio_requests_total") {
		t.Errorf("%+v, want 7", trip)
	}
}

// A series that was there before counts by how much it grew since the run's start, exactly.
func TestLaterOverflowsCountExactly(t *testing.T) {
	t.Parallel()
	service := newService("again")
	series.show(request(service), growing(100))
	counter := shown(overflowed(service, "v3"), 1000)
	awaitPast(t, overflowed(service, "v3"))
	known := guard(t, service, func(w *pipeline.BreakerWatch) { w.MaxTrips = 2 })
	quiet(t, known)
	counter.Add(2)
	quiet(t, known)
	counter.Add(1)
	if trip := awaitTrip(t, known, v1.SignalOverflow); trip.Count != 3 {
		t.Errorf("%+v, want 3", trip)
	}
}

// What a fault did may be scraped after it ended: only what comes on top counts.
func TestAfterAFault(t *testing.T) {
	t.Parallel()
	service := newService("fault")
	series.show(request(service), growing(100))
	counter := shown(overflowed(service, "v3"), 10)
	awaitPast(t, overflowed(service, "v3"))
	known := guard(t, service, func(w *pipeline.BreakerWatch) {
		counter.Add(90) // between the last scrape and the fault's end
		time.Sleep(600 * time.Millisecond)
		w.Since, w.Aftermath = time.Now(), true
	})
	quiet(t, known)
	counter.Add(4)
	if trip := awaitTrip(t, known, v1.SignalOverflow); trip.Count != 4 {
		t.Errorf("%+v, want 4", trip)
	}
}

// The same where the fault is what the counter was born of.
func TestBornOfAFault(t *testing.T) {
	t.Parallel()
	service := newService("born")
	series.show(request(service), growing(100))
	awaitPast(t, request(service))
	known := guard(t, service, func(w *pipeline.BreakerWatch) { w.Aftermath = true })
	counter := shown(overflowed(service, "v3"), 90) // which the fault did, and was not scraped before its end
	quiet(t, known)
	counter.Add(4)
	if trip := awaitTrip(t, known, v1.SignalOverflow); trip.Count != 4 {
		t.Errorf("%+v, want 4", trip)
	}
}

// A counter that begins anew just when counting does has no base: that it was greater before tells nothing.
func TestCounterBeginsAnew(t *testing.T) {
	t.Parallel()
	service := newService("anew")
	series.show(request(service), growing(100))
	counter := shown(overflowed(service, "v3"), 1000)
	awaitPast(t, overflowed(service, "v3"))
	counter.Store(0)
	known := guard(t, service, nil)
	counter.Store(3)
	if trip := awaitTrip(t, known, v1.SignalOverflow); trip.Count != 3 {
		t.Errorf("%+v, want 3", trip)
	}
}

func TestEnvoysOwnStatistics(t *testing.T) {
	t.Parallel()
	const overflows, ejections = "envoy_cluster_upstream_rq_pending_overflow", "envoy_cluster_outlier_detection_ejections_active"
	service := newService("envoy")
	counter, ejected := shown(cluster(overflows, service, "v3"), 5), shown(cluster(ejections, service, "v3"), 1)
	stable, other := shown(cluster(overflows, service, "v1"), 5), shown(cluster(ejections, service, "v1"), 0)
	awaitPast(t, cluster(overflows, service, "v3"))
	known := guard(t, service, nil)
	stable.Add(10)
	other.Add(1)
	quiet(t, known) // without any request to the host it sees all the same, and what was ejected before the run is none of its
	ejected.Add(1)
	if trip := awaitTrip(t, known, v1.SignalEjection); trip.Count != 1 || trip.ByHost || !strings.Contains(trip.Query, ejections) {
		t.Errorf("%+v, want 1 by Envoy", trip)
	}
	counter.Add(6)
	if trip := awaitTrip(t, known, v1.SignalOverflow); trip.Count < 6 || !strings.Contains(trip.Query, overflows) {
		t.Errorf("%+v, want 6 by Envoy", trip)
	}
}

// Requests that found no endpoint name no version: they count above the rate of before the run, and only where users are on the canary.
func TestLostByHost(t *testing.T) {
	t.Parallel()
	service := newService("lost")
	series.show(request(service), growing(100))
	counter := shown(lost(service), 500)
	const before = 20 * time.Second
	awaitAgo(t, lost(service), before+long) // the window before the run begins after what is shown here was there
	mirrored := guard(t, service, func(w *pipeline.BreakerWatch) { w.Window = before })
	exposed := guard(t, service, func(w *pipeline.BreakerWatch) { w.Window, w.HostSince = before, w.Since })
	counter.Add(20)
	if trip := awaitTrip(t, exposed, v1.SignalEjection); trip.Count != 20 || !trip.ByHost {
		t.Errorf("%+v, want 20 by host", trip)
	}
	quiet(t, mirrored)
}

func TestBlindWithoutMetrics(t *testing.T) {
	t.Parallel()
	known := guard(t, newService("nothing"), nil)
	for deadline := time.Now().Add(patience); known().BlindSince.IsZero(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is reported, and the breaker is not blind")
		}
	}
	if s := known(); len(s.Trips) > 0 || !strings.Contains(s.Blind, "has no istio_requests_total") {
		t.Errorf("%+v", s)
	}
}

// Of TCP, Istio's metrics name no version for a connection that is refused; Envoy's of the canary's cluster do.
func TestRefusedConnections(t *testing.T) {
	t.Parallel()
	service := newService("tcp")
	series.show(istioSeries("istio_tcp_connections_opened_total", service), growing(100))
	refused := istioSeries("istio_tcp_connections_closed_total", service, "response_flags", "UO", "destination_version", "unknown", "destination_workload", "unknown")
	const overflows = "envoy_cluster_upstream_cx_overflow"
	counter, stable := shown(cluster(overflows, service, "v3"), 5), shown(cluster(overflows, service, "v1"), 5)
	anybodys := shown(refused, 100)
	awaitPast(t, refused)
	awaitPast(t, cluster(overflows, service, "v3"))
	known := guard(t, service, func(w *pipeline.BreakerWatch) { w.Protocol = v1.ProtocolTCP })
	stable.Add(10)
	anybodys.Add(10)
	quiet(t, known)
	counter.Add(4)
	anybodys.Add(4)
	if trip := awaitTrip(t, known, v1.SignalOverflow); trip.Count != 4 || !strings.Contains(trip.Query, overflows) {
		t.Errorf("%+v, want 4 by Envoy", trip)
	}
}
