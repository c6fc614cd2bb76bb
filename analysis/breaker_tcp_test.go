package analysis

import (
	"slices"
	"strings"
	"testing"
	"time"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// Of TCP and TLS Istio counts connections, and Envoy those that found no place.
func TestPartsOfConnections(t *testing.T) {
	t.Parallel()
	for _, protocol := range []v1.Protocol{v1.ProtocolTCP, v1.ProtocolTLS} {
		w := breakerOf("1")
		w.Protocol = protocol
		parts := lookup{watch: w, at: at(60), hostTaken: at(0)}.parts()
		for part, metric := range map[string]string{
			partRequests: "istio_tcp_connections_closed_total{", partHost: "istio_tcp_connections_closed_total{",
			partSeen: "istio_tcp_connections_opened_total{", partOverflow: "envoy_cluster_upstream_cx_overflow{",
			partEjection: "envoy_cluster_outlier_detection_ejections_active{",
		} {
			if query := parts[part]; !strings.Contains(query, metric) {
				t.Errorf("%s: part %s asks %s, want %s", protocol, part, query, metric)
			}
		}
		if all := joined(parts); strings.Contains(all, "requests_total") || strings.Contains(all, "upstream_rq_") {
			t.Errorf("%s: asks for requests, of which there are none: %s", protocol, all)
		}
		if before := lostBefore(w); !strings.Contains(before, "istio_tcp_connections_closed_total{") {
			t.Errorf("%s: before the run: %s", protocol, before)
		}
	}
}

// A connection that is refused names no version in Istio's metrics, so without Envoy's the breaker says that it is blind, and by
// what it trips all the same.
func TestBlindForConnections(t *testing.T) {
	t.Parallel()
	b := begin(t, Config{})
	key := name("reviews")
	w := breakerOf("1")
	w.Protocol, w.Signals = v1.ProtocolTCP, []v1.BreakerSignal{v1.SignalOverflow, v1.SignalEjection}
	b.Set(key, &pipeline.Watch{Breaker: &w})
	why := func() string {
		if s := b.Breaker(key); s != nil {
			return s.Blind
		}
		return ""
	}
	b.answers(0, lostRequests("UO", "unknown", "unknown", 9))
	b.goTo(1)
	b.until("blind", func() bool {
		return strings.Contains(why(), "has no envoy_cluster_upstream_cx_overflow of version v3's clusters")
	})
	b.answers(0, lostRequests("UH", "unknown", "unknown", 1), partOf(partHost, 2))
	b.goTo(2)
	b.until("an ejection", func() bool { return b.trips("1") == "Ejection 2 @2 by host" })
	b.answers(0, partOf(partOverflow, 3), partOf(partEjection, 0))
	b.goTo(3)
	b.until("an overflow", func() bool { return strings.Contains(b.trips("1"), "Overflow 3 @3") && why() == "" })
	trip := b.Breaker(key).Trips[slices.IndexFunc(b.Breaker(key).Trips, func(t pipeline.Trip) bool { return t.Signal == v1.SignalOverflow })]
	if !strings.Contains(trip.Query, "upstream_cx_overflow") || trip.Within != 30*time.Second {
		t.Errorf("%+v", trip)
	}
}

// Where the whole host counts, no version has to be told.
func TestConnectionsOfTheHost(t *testing.T) {
	t.Parallel()
	b := begin(t, Config{})
	w := breakerOf("1")
	w.Protocol, w.Scope = v1.ProtocolTLS, v1.BreakerHost
	b.Set(name("reviews"), &pipeline.Watch{Breaker: &w})
	b.answers(0, lostRequests("UO", "unknown", "unknown", 9))
	b.goTo(1)
	b.until("an overflow", func() bool { return b.trips("1") == "Overflow 9 @1" })
	if s := b.Breaker(name("reviews")); s.Blind != "" {
		t.Errorf("blind: %s", s.Blind)
	}
}
