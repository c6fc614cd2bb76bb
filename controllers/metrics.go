package controllers

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// Metrics of the reconciler. What describes a Rollout is collected at scrape time, so that nothing is left of one that is gone.
type Metrics struct {
	steps           *prometheus.CounterVec
	rollbacks       *prometheus.CounterVec
	rollbackSeconds prometheus.Histogram
	decisionSeconds prometheus.Histogram
	meshWrites      *prometheus.CounterVec

	mu     sync.Mutex
	states map[types.NamespacedName]rolloutState
}

type rolloutState struct {
	host, stable, version string
	phase                 v1.Phase
	weight, step          float64
}

var (
	objectLabels = []string{"namespace", "name"}
	infoDesc     = prometheus.NewDesc("sluice_rollout_info", "A Rollout: its host, the version that serves and the one that was asked for. Always 1.",
		append(objectLabels[:2:2], "host", "stable", "version"), nil)
	phaseDesc  = prometheus.NewDesc("sluice_rollout_phase", "The phase that the Rollout is in. Always 1.", append(objectLabels[:2:2], "phase"), nil)
	weightDesc = prometheus.NewDesc("sluice_rollout_weight", "The canary's share of the traffic, in percent.", objectLabels, nil)
	stepDesc   = prometheus.NewDesc("sluice_rollout_step_index", "The step that the run is in, counted from 0; -1 outside a run.", objectLabels, nil)
)

// NewMetrics makes the metrics and registers them; with a nil registerer they are shown nowhere.
func NewMetrics(registerer prometheus.Registerer) *Metrics {
	m := &Metrics{
		steps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_steps_total", Help: "Steps begun.",
		}, objectLabels),
		rollbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_rollbacks_total", Help: "Runs that ended with a rejection, by reason.",
		}, append(objectLabels[:2:2], "reason")),
		rollbackSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_rollback_seconds", Help: "Time from the reconcile that saw the reason to the acknowledged write of all traffic to stable.",
			Buckets: []float64{.005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}),
		decisionSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_decision_seconds", Help: "Time that the pipeline takes to decide.",
			Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .05},
		}),
		meshWrites: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sluice_mesh_writes_total", Help: "Writes of VirtualServices and DestinationRules, by result: success, conflict, refused or error.",
		}, []string{"kind", "result"}),
		states: map[types.NamespacedName]rolloutState{},
	}
	if registerer != nil {
		registerer.MustRegister(m.steps, m.rollbacks, m.rollbackSeconds, m.decisionSeconds, m.meshWrites, m)
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{infoDesc, phaseDesc, weightDesc, stepDesc} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, s := range m.states {
		gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, append([]string{key.Namespace, key.Name}, labels...)...)
		}
		gauge(infoDesc, 1, s.host, s.stable, s.version)
		gauge(phaseDesc, 1, string(s.phase))
		gauge(weightDesc, s.weight)
		gauge(stepDesc, s.step)
	}
}

// observe keeps what the gauges show of a Rollout.
func (m *Metrics) observe(rollout *v1.Rollout) {
	state := rolloutState{
		host: rollout.Spec.Host, stable: rollout.Status.Stable, version: rollout.Spec.Version, phase: rollout.Status.Phase, step: -1,
	}
	if t := rollout.Status.Traffic; t != nil {
		state.weight = float64(t.Weight)
	}
	if s := rollout.Status.Step; s != nil {
		state.step = float64(s.Index)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states[client.ObjectKeyFromObject(rollout)] = state
}

// committed counts what a committed decision did.
func (m *Metrics) committed(before, after *v1.Rollout) {
	if s := after.Status.Step; s != nil && (before.Status.Step == nil || before.Status.Step.Index != s.Index) {
		m.steps.WithLabelValues(after.Namespace, after.Name).Inc()
	}
	rejected := after.Status.Rejected
	if rejected != nil && before.Status.Run != nil && after.Status.Run == nil {
		m.rollbacks.WithLabelValues(after.Namespace, after.Name, rejected.Reason).Inc()
	}
}

// wrote counts a write to the mesh.
func (m *Metrics) wrote(kind string, err error) {
	result := "success"
	var refusal *refusalError
	switch {
	case errors.Is(err, errConflict):
		result = "conflict"
	case errors.As(err, &refusal):
		result = "refused"
	case err != nil:
		result = "error"
	}
	m.meshWrites.WithLabelValues(kind, result).Inc()
}

func (m *Metrics) forget(key types.NamespacedName) {
	m.mu.Lock()
	delete(m.states, key)
	m.mu.Unlock()
	labels := prometheus.Labels{"namespace": key.Namespace, "name": key.Name}
	m.steps.DeletePartialMatch(labels)
	m.rollbacks.DeletePartialMatch(labels)
}
