package analysis

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/internal/pipeline"
)

// metrics that the analysis exports.
type metrics struct {
	queries *prometheus.CounterVec
	samples *prometheus.CounterVec
	value   *prometheus.GaugeVec
	limit   *prometheus.GaugeVec
	signals *prometheus.GaugeVec
	blind   *prometheus.GaugeVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	gateLabels := []string{"namespace", "rollout", "gate"}
	m := &metrics{
		queries: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_prometheus_queries_total",
			Help: "Requests to Prometheus by result: success, warning, invalid (bad_data), timeout or error.",
		}, []string{"result"}),
		samples: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_gate_samples_total",
			Help: "Samples of gates by verdict: Pass, Fail, NoData or Error.",
		}, []string{"verdict"}),
		value: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_gate_value",
			Help: "Value of a gate's newest sample: a share from 0 to 1, seconds, or what its query yields. Absent while there is none.",
		}, gateLabels),
		limit: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_gate_limit",
			Help: "Limit of a gate, in the unit of its value. Bound is max or min.",
		}, append(gateLabels, "bound")),
		signals: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_breaker_signals",
			Help: "How often a breaker's signal came within its window: Overflow, Ejection or RetryLimit.",
		}, []string{"namespace", "rollout", "signal"}),
		blind: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "sluice_breaker_blind",
			Help: "1 while a run's breaker can not see what happens to the canary, else 0.",
		}, []string{"namespace", "rollout"}),
	}
	if registerer != nil {
		registerer.MustRegister(m.queries, m.samples, m.value, m.limit, m.signals, m.blind)
	}
	return m
}

// watch shows a gate's limits.
func (m *metrics) watch(g *gate) {
	for bound, limit := range map[string]*float64{"max": g.rule.limits.max, "min": g.rule.limits.min} {
		if limit != nil {
			m.limit.WithLabelValues(g.key.Namespace, g.key.Name, g.watch.Name, bound).Set(*limit)
		}
	}
}

// record counts new samples and shows the newest value.
func (m *metrics) record(g *gate, news []pipeline.Sample) {
	for _, s := range news {
		m.samples.WithLabelValues(string(s.Verdict)).Inc()
	}
	if len(g.samples) == 0 {
		return
	}
	newest := g.samples[len(g.samples)-1]
	if newest.Value == "" {
		m.value.DeleteLabelValues(g.key.Namespace, g.key.Name, g.watch.Name)
		return
	}
	m.value.WithLabelValues(g.key.Namespace, g.key.Name, g.watch.Name).Set(newest.number)
}

// forget takes a gate out of what is shown.
func (m *metrics) forget(key types.NamespacedName, gate string) {
	labels := prometheus.Labels{"namespace": key.Namespace, "rollout": key.Name, "gate": gate}
	m.value.DeletePartialMatch(labels)
	m.limit.DeletePartialMatch(labels)
}

// breaker shows how often each signal came, and whether anything can be seen.
func (m *metrics) breaker(b *breaker, known counts, l lookup) {
	blind := 0.0
	if b.state.Blind != "" {
		blind = 1
	}
	m.blind.WithLabelValues(b.key.Namespace, b.key.Name).Set(blind)
	for _, signal := range b.watch.Signals {
		_, count := b.count(signal, known, l)
		m.signals.WithLabelValues(b.key.Namespace, b.key.Name, string(signal)).Set(max(count, 0))
	}
}

// forgetBreaker takes a breaker out of what is shown.
func (m *metrics) forgetBreaker(key types.NamespacedName) {
	labels := prometheus.Labels{"namespace": key.Namespace, "rollout": key.Name}
	m.signals.DeletePartialMatch(labels)
	m.blind.DeletePartialMatch(labels)
}
