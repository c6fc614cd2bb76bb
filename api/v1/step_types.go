package v1

import (
	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Step is one stage of a run. Weight is inherited from the step before; everything else holds for its own step only.
type Step struct {
	// +required
	Name string `json:"name"`
	// Weight is the canary's share in percent, 0 to 100, never falling.
	// +optional
	Weight *int32 `json:"weight,omitempty"`
	// Mirror copies requests to the canary; users never see its answers.
	// +optional
	Mirror *Mirror `json:"mirror,omitempty"`
	// Match sends the matched requests to the canary, all others by weight.
	// +optional
	Match HTTPMatches `json:"match,omitempty"`
	// Fault injects a fault for the matched requests.
	// +optional
	Fault *Fault `json:"fault,omitempty"`
	// Probe is a request that the operator sends throughout the step.
	// +optional
	Probe *Probe `json:"probe,omitempty"`
	// Job that must succeed. +sluice:later
	// +optional
	Job *JobTest `json:"job,omitempty"`
	// Call that must answer 2xx. +sluice:later
	// +optional
	Call *CallTest `json:"call,omitempty"`
	// Approval by a person. +sluice:later
	// +optional
	Approval *Approval `json:"approval,omitempty"`
	// Gates of this step, besides the spec's.
	// +optional
	Gates []Gate `json:"gates,omitempty"`
	// UseGates narrows the spec's gates to these names; an empty list: none of them.
	// +optional
	UseGates []string `json:"useGates,omitzero"`
	// Hold is the least time that the step lasts once its traffic is applied, default 0.
	// +optional
	Hold *metav1.Duration `json:"hold,omitempty"`
}

// Mirror copies traffic to the canary.
type Mirror struct {
	// Percentage of requests, an integer from 1 to 100, default 100.
	// +optional
	Percentage *int32 `json:"percentage,omitempty"`
	// Host to mirror elsewhere. +sluice:later
	// +optional
	Host string `json:"host,omitempty"`
	// Match narrows what is mirrored, say to GET. +sluice:later
	// +optional
	Match HTTPMatches `json:"match,omitempty"`
}

// FaultTraffic tells who gets the canary in a fault step.
type FaultTraffic string

// The values of fault.traffic.
const (
	FaultTrafficCanary    FaultTraffic = "Canary"
	FaultTrafficUnchanged FaultTraffic = "Unchanged"
)

// Fault is a fault-injection test.
type Fault struct {
	// Host whose route gets the fault; default: the Rollout's own host.
	// +optional
	Host string `json:"host,omitempty"`
	// Scope: Matched (default) or Everyone. Everyone: +sluice:later
	// +optional
	Scope string `json:"scope,omitempty"`
	// Traffic: Canary (default: the matched users get the canary) or Unchanged. Unchanged: +sluice:later
	// +optional
	Traffic FaultTraffic `json:"traffic,omitempty"`
	// Match selects the requests that get the fault.
	// +optional
	Match HTTPMatches `json:"match,omitempty"`
	// Delay is Istio's HTTPFaultInjection.Delay.
	// +optional
	Delay *istio.HTTPFaultInjection_Delay `json:"delay,omitempty"`
	// Abort is Istio's HTTPFaultInjection.Abort.
	// +optional
	Abort *istio.HTTPFaultInjection_Abort `json:"abort,omitempty"`
}

// Probe is an HTTP check that the operator makes each interval from applied + propagation delay to the end of the hold, at least 3 times.
type Probe struct {
	// URL, http or https; its host must be allowed by the operator's --probe-allow.
	// +required
	URL string `json:"url"`
	// Method, default GET. One of GET, HEAD, POST, PUT, DELETE, OPTIONS.
	// +optional
	Method string `json:"method,omitempty"`
	// Headers of the request.
	// +optional
	Headers map[string]string `json:"headers,omitempty"`
	// Interval between requests, default 1s.
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`
	// ExpectStatus lists the status codes that count as success, default [200].
	// +optional
	ExpectStatus []int32 `json:"expectStatus,omitempty"`
	// MaxLatency of a successful request, default 10s; also the request's time-out.
	// +optional
	MaxLatency *metav1.Duration `json:"maxLatency,omitempty"`
	// MinSuccess is the least share of successful requests, default "100%".
	// +optional
	MinSuccess string `json:"minSuccess,omitempty"`
}

// JobTest runs a Kubernetes Job.
type JobTest struct {
	// Template is a batch/v1 JobTemplateSpec.
	// +kubebuilder:pruning:PreserveUnknownFields
	// +kubebuilder:validation:Schemaless
	// +required
	Template runtime.RawExtension `json:"template"`
}

// CallTest calls a URL.
type CallTest struct {
	// +required
	URL string `json:"url"`
	// +optional
	Method string `json:"method,omitempty"`
	// +optional
	HeadersFrom *LocalReference `json:"headersFrom,omitempty"`
}

// Approval waits for a person.
type Approval struct {
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// OnTimeout: Return.
	// +optional
	OnTimeout string `json:"onTimeout,omitempty"`
}

// NoDataPolicy tells what a sample without data counts as.
type NoDataPolicy string

// The values of noData.
const (
	NoDataHold NoDataPolicy = "Hold"
	NoDataFail NoDataPolicy = "Fail"
)

// GateDefaults fill in what a gate leaves out. The defaults of the defaults: window 1m, interval 10s, samples 3, failures 2, minRequests 20, noData Hold.
type GateDefaults struct {
	// Window of the built-in metrics and of {{ .Window }}.
	// +optional
	Window *metav1.Duration `json:"window,omitempty"`
	// Interval of the samples, which lie at its multiples since the epoch.
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`
	// Samples that must pass in a row for a step to end.
	// +optional
	Samples *int32 `json:"samples,omitempty"`
	// Failures in a row that roll back.
	// +optional
	Failures *int32 `json:"failures,omitempty"`
	// MinRequests of the canary in the window; fewer is NoData. For built-in metrics only.
	// +optional
	MinRequests *int32 `json:"minRequests,omitempty"`
	// NoData: Hold or Fail.
	// +optional
	NoData NoDataPolicy `json:"noData,omitempty"`
}

// Metric is a built-in metric.
type Metric string

// The built-in metrics: shares of the canary's requests (0 to 1) and its latency in seconds.
const (
	MetricErrorRate   Metric = "errorRate"
	MetricSuccessRate Metric = "successRate"
	MetricLatency     Metric = "latency"
)

// Gate is a limit on a measured value: of a built-in metric, or of a PromQL query.
type Gate struct {
	GateDefaults `json:",inline"`

	// +required
	Name string `json:"name"`
	// Metric is built in; exactly one of metric and query is given.
	// +optional
	Metric Metric `json:"metric,omitempty"`
	// Query is PromQL that yields one value, a Go template with .Canary, .Stable, .Host, .Service, .Namespace and .Window.
	// +optional
	Query string `json:"query,omitempty"`
	// Quantile of latency, between 0 and 1, default "0.99".
	// +optional
	Quantile string `json:"quantile,omitempty"`
	// Max is the greatest value that passes: a number ("0.5"), a percentage ("1%") or a duration ("500ms", as seconds).
	// +optional
	Max string `json:"max,omitempty"`
	// Min is the least value that passes.
	// +optional
	Min string `json:"min,omitempty"`
	// CompareTo: stable. +sluice:later
	// +optional
	CompareTo string `json:"compareTo,omitempty"`
	// MaxRatio of the canary's value to stable's. +sluice:later
	// +optional
	MaxRatio string `json:"maxRatio,omitempty"`
}
