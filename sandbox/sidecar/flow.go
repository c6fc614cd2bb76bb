package sidecar

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// streamLabels are the standard labels without those of a response.
// https://istio.io/latest/docs/reference/config/metrics/
var streamLabels = slices.DeleteFunc(slices.Clone(standardLabels), func(name string) bool {
	return name == "response_code" || name == "grpc_response_status"
})

// flow is one TCP connection as the metrics describe it.
type flow struct {
	reporter            string
	source, destination peer
	service             service
	flags               []string
}

func (f *flow) flag(flags ...string) { f.flags = append(f.flags, flags...) }

func (f *flow) labels() []string {
	values := append([]string{f.reporter}, f.source.labels()...)
	values = append(values, f.destination.labels()...)
	return append(values, f.service.labels()...)
}

func (f *flow) allLabels() []string {
	return append(f.labels(), "tcp", joinFlags(f.flags), securityPolicy(f.reporter))
}

// streamMetrics are Istio's metrics for TCP.
type streamMetrics struct{ connectionsOpened, connectionsClosed, bytesSent, bytesReceived *prometheus.CounterVec }

func newStreamMetrics(registry *prometheus.Registry) streamMetrics {
	counter := func(name, help string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, streamLabels)
		registry.MustRegister(c)
		return c
	}
	return streamMetrics{
		connectionsOpened: counter("istio_tcp_connections_opened_total", "Connections opened, by Istio's standard labels."),
		connectionsClosed: counter("istio_tcp_connections_closed_total", "Connections closed, by Istio's standard labels."),
		bytesSent:         counter("istio_tcp_sent_bytes_total", "Bytes sent to clients, by Istio's standard labels."),
		bytesReceived:     counter("istio_tcp_received_bytes_total", "Bytes received from clients, by Istio's standard labels."),
	}
}

func (m streamMetrics) opened(f *flow) { m.connectionsOpened.WithLabelValues(f.allLabels()...).Inc() }

func (m streamMetrics) closed(f *flow) { m.connectionsClosed.WithLabelValues(f.allLabels()...).Inc() }

// sent and received give functions that count the connection's bytes as they
// pass, where Envoy adds them up every few seconds.
func (m streamMetrics) sent(f *flow) func(int)     { return adding(m.bytesSent, f) }
func (m streamMetrics) received(f *flow) func(int) { return adding(m.bytesReceived, f) }

func adding(v *prometheus.CounterVec, f *flow) func(int) {
	counter := v.WithLabelValues(f.allLabels()...)
	return func(n int) { counter.Add(float64(n)) }
}
