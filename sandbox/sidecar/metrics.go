package sidecar

import (
	"net/http"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Istio's standard labels, in the order in which values are given to them.
// https://istio.io/latest/docs/reference/config/metrics/
var standardLabels = []string{
	"reporter",
	"source_workload", "source_workload_namespace", "source_app", "source_version",
	"source_canonical_service", "source_canonical_revision", "source_cluster", "source_principal",
	"destination_workload", "destination_workload_namespace", "destination_app", "destination_version",
	"destination_canonical_service", "destination_canonical_revision", "destination_cluster", "destination_principal",
	"destination_service", "destination_service_name", "destination_service_namespace",
	"request_protocol", "response_code", "grpc_response_status", "response_flags", "connection_security_policy",
}

// Envoy's default histogram buckets, in milliseconds.
var durationBuckets = []float64{
	0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000,
	30000, 60000, 300000, 600000, 1800000, 3600000,
}

// Envoy's response flags that this proxy raises.
// https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
const (
	flagNoHealthyUpstream  = "UH"
	flagUpstreamTimeout    = "UT"
	flagConnectFailure     = "UF"
	flagConnectionClosed   = "UC"
	flagOverflow           = "UO"
	flagNoRoute            = "NR"
	flagDelayInjected      = "DI"
	flagFaultInjected      = "FI"
	flagDownstreamClosed   = "DC"
	flagRetryLimitExceeded = "URX"
	flagNoCluster          = "NC"
)

// Envoy joins flags in the order of its enum.
var flagOrder = map[string]int{
	flagNoHealthyUpstream: 1, flagUpstreamTimeout: 2, flagConnectFailure: 3, flagConnectionClosed: 4, flagOverflow: 5,
	flagNoRoute: 6, flagDelayInjected: 7, flagFaultInjected: 8, flagDownstreamClosed: 9, flagRetryLimitExceeded: 10,
	flagNoCluster: 11, flagRateLimited: 12,
}

// exchange is one request as the metrics describe it.
type exchange struct {
	reporter    string
	source      peer
	destination peer
	service     service
	protocol    string
	code        int
	grpcStatus  string
	flags       []string
	started     time.Time
	silent      bool // not to be reported
}

func newExchange(reporter string, r *http.Request) *exchange {
	e := &exchange{reporter: reporter, started: time.Now(), protocol: "http", service: service{Host: r.Host}}
	if isGRPC(r.Header) {
		e.protocol = "grpc"
	}
	return e
}

func (e *exchange) flag(flags ...string) { e.flags = append(e.flags, flags...) }

// joinFlags gives flags as Envoy's access log does.
func joinFlags(flags []string) string {
	if len(flags) == 0 {
		return "-"
	}
	sort.Slice(flags, func(i, j int) bool { return flagOrder[flags[i]] < flagOrder[flags[j]] })
	return strings.Join(flags, ",")
}

func (e *exchange) labels() []string {
	values := append([]string{e.reporter}, e.source.labels()...)
	values = append(values, e.destination.labels()...)
	values = append(values, e.service.labels()...)
	return append(values, e.protocol, strconv.Itoa(e.code), e.grpcStatus, joinFlags(e.flags), securityPolicy(e.reporter))
}

// securityPolicy: the source does not know it, and all traffic here is plain text.
func securityPolicy(reporter string) string {
	if reporter == reporterDestination {
		return "none"
	}
	return unknown
}

func (s service) labels() []string {
	return []string{orUnknown(s.Host), orUnknown(firstOf(s.Name, s.Host)), orUnknown(s.Namespace)}
}

func (p peer) labels() []string {
	values := []string{p.Workload, p.Namespace, p.App, p.Version, p.Service, p.Revision, p.Cluster, ""}
	for i := range values {
		values[i] = orUnknown(values[i])
	}
	return values
}

const (
	reporterSource      = "source"
	reporterDestination = "destination"
)

type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	streamMetrics
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "istio_requests_total", Help: "Requests, by Istio's standard labels.",
		}, standardLabels),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "istio_request_duration_milliseconds", Help: "Duration of requests in milliseconds.", Buckets: durationBuckets,
		}, standardLabels),
	}
	m.registry.MustRegister(m.requests, m.duration)
	m.streamMetrics = newStreamMetrics(m.registry)
	return m
}

func (m *metrics) record(e *exchange) {
	if e.silent {
		return
	}
	labels := e.labels()
	m.requests.WithLabelValues(labels...).Inc()
	m.duration.WithLabelValues(labels...).Observe(float64(time.Since(e.started)) / float64(time.Millisecond))
}

// envoyStats exposes the few of Envoy's own cluster statistics that a breaker
// can be watched by. Istio leaves them out unless a proxy asks for them.
type envoyStats struct{ clusters func() map[string]*cluster }

var (
	overflowDesc = prometheus.NewDesc("envoy_cluster_upstream_rq_pending_overflow",
		"Requests that overflowed the connection pool.", []string{"cluster_name"}, nil)
	refusedDesc = prometheus.NewDesc("envoy_cluster_upstream_cx_overflow",
		"Connections that found no place in the cluster.", []string{"cluster_name"}, nil)
	ejectionsDesc = prometheus.NewDesc("envoy_cluster_outlier_detection_ejections_active",
		"Hosts that are ejected now.", []string{"cluster_name"}, nil)
)

func (s envoyStats) Describe(ch chan<- *prometheus.Desc) {
	ch <- overflowDesc
	ch <- refusedDesc
	ch <- ejectionsDesc
}

func (s envoyStats) Collect(ch chan<- prometheus.Metric) {
	for name, c := range s.clusters() {
		if !strings.HasPrefix(name, "outbound|") {
			continue
		}
		ch <- prometheus.MustNewConstMetric(overflowDesc, prometheus.CounterValue, float64(c.pool.overflows()), name)
		ch <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(c.pool.refusals()), name)
		ch <- prometheus.MustNewConstMetric(ejectionsDesc, prometheus.GaugeValue, float64(c.ejections(time.Now())), name)
	}
}
