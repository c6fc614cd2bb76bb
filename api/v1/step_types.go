package v1

import (
	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Step is one stage of a run. Weight is inherited from the step before; everything else holds for its own step only.
type Step struct {
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be a name of lower-case letters, digits and '-'"
	Name string `json:"name"`
	// Weight is the canary's share in percent, 0 to 100, never falling.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Weight *int32 `json:"weight,omitempty"`
	// Mirror copies requests to the canary; users never see its answers.
	// +optional
	Mirror *Mirror `json:"mirror,omitempty"`
	// Match sends the matched requests to the canary, all others by weight.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	// +sluice:conditions
	Match HTTPMatches `json:"match,omitempty"`
	// Fault injects a fault for the matched requests.
	// +optional
	Fault *Fault `json:"fault,omitempty"`
	// Probe is a request that the operator sends throughout the step.
	// +optional
	Probe *Probe `json:"probe,omitempty"`
	// Job that must succeed.
	// +optional
	// +sluice:later
	Job *JobTest `json:"job,omitempty"`
	// Call that must answer 2xx.
	// +optional
	// +sluice:later
	Call *CallTest `json:"call,omitempty"`
	// Approval by a person.
	// +optional
	// +sluice:later
	Approval *Approval `json:"approval,omitempty"`
	// Gates of this step, besides the spec's.
	// +optional
	// +kubebuilder:validation:MaxItems=20
	// +listType=map
	// +listMapKey=name
	Gates []Gate `json:"gates,omitempty"`
	// UseGates narrows the spec's gates to these names; an empty list: none of them.
	// +optional
	// +kubebuilder:validation:MaxItems=20
	// +listType=set
	// +kubebuilder:validation:items:MaxLength=63
	UseGates []string `json:"useGates,omitzero"`
	// Hold is the least time that the step lasts once its traffic is applied, default 0.
	// +optional
	Hold *metav1.Duration `json:"hold,omitempty"`
}

// Mirror copies traffic to the canary, or elsewhere.
type Mirror struct {
	// Percentage of requests, an integer from 1 to 100, default 100.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Percentage *int32 `json:"percentage,omitempty"`
	// Host to mirror to instead of the canary: a Service or ServiceEntry of the namespace. Unless it is the canary's own, the
	// canary gets nothing then, and its built-in gates have nothing to judge.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be a host, short (audit) or full (audit.bookinfo.svc.cluster.local)"
	Host string `json:"host,omitempty"`
	// Match narrows what is mirrored, say to GET.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	// +sluice:conditions
	Match HTTPMatches `json:"match,omitempty"`
}

// FaultTraffic tells who gets the canary in a fault step.
type FaultTraffic string

// The values of fault.traffic.
const (
	FaultTrafficCanary    FaultTraffic = "Canary"
	FaultTrafficUnchanged FaultTraffic = "Unchanged"
)

// FaultScope tells which requests get a fault.
type FaultScope string

// The values of fault.scope.
const (
	FaultScopeMatched  FaultScope = "Matched"
	FaultScopeEveryone FaultScope = "Everyone"
)

// Fault is a fault-injection test.
//
// +kubebuilder:validation:XValidation:rule="has(self.match) || (has(self.scope) && self.scope == 'Everyone')",message="a fault needs match: the requests that get it; or scope Everyone"
// +kubebuilder:validation:XValidation:rule="!has(self.scope) || self.scope != 'Everyone' || (!has(self.match) && has(self.traffic) && self.traffic == 'Unchanged')",message="scope Everyone goes with traffic Unchanged and without match"
// +kubebuilder:validation:XValidation:rule="has(self.delay) || has(self.abort)",message="a fault needs delay or abort"
type Fault struct {
	// Host whose route gets the fault; default: the Rollout's own host.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be a host, short (reviews) or full (reviews.bookinfo.svc.cluster.local)"
	Host string `json:"host,omitempty"`
	// Scope: Matched (default) or Everyone, which the operator has to allow by --allow-unscoped-faults.
	// +optional
	// +kubebuilder:validation:Enum=Matched;Everyone
	Scope FaultScope `json:"scope,omitempty"`
	// Traffic: Canary (default: the matched users get the canary, and on another host only its calls get the fault) or
	// Unchanged (all requests go where they go without the fault).
	// +optional
	// +kubebuilder:validation:Enum=Canary;Unchanged
	Traffic FaultTraffic `json:"traffic,omitempty"`
	// Match selects the requests that get the fault.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	// +sluice:conditions
	Match HTTPMatches `json:"match,omitempty"`
	// Delay is Istio's HTTPFaultInjection.Delay. Without percentage (or the deprecated percent) Istio delays nothing.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!has(self.percent) || (self.percent >= 0 && self.percent <= 100)",message="percent must be from 0 to 100"
	// +kubebuilder:validation:XValidation:rule="has(self.fixedDelay)",message="delay needs fixedDelay, such as 7s"
	// +kubebuilder:validation:XValidation:rule="!has(self.percentage) || !has(self.percentage.value) || (self.percentage.value >= 0.0 && self.percentage.value <= 100.0)",message="percentage.value must be from 0 to 100"
	Delay *istio.HTTPFaultInjection_Delay `json:"delay,omitempty"`
	// Abort is Istio's HTTPFaultInjection.Abort. Without percentage Istio aborts nothing.
	// +optional
	// +kubebuilder:validation:XValidation:rule="has(self.httpStatus) || has(self.grpcStatus)",message="abort needs httpStatus, such as 503, or grpcStatus, such as UNAVAILABLE"
	// +kubebuilder:validation:XValidation:rule="!has(self.httpStatus) || (self.httpStatus >= 200 && self.httpStatus <= 599)",message="httpStatus must be from 200 to 599"
	// +kubebuilder:validation:XValidation:rule="!has(self.percentage) || !has(self.percentage.value) || (self.percentage.value >= 0.0 && self.percentage.value <= 100.0)",message="percentage.value must be from 0 to 100"
	Abort *istio.HTTPFaultInjection_Abort `json:"abort,omitempty"`
}

// Probe is an HTTP check that the operator makes each interval from applied + propagation delay to the end of the hold, at least 3 times.
type Probe struct {
	// URL, http or https; its host must be allowed by the operator's --probe-allow.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",message="must be a http or https URL such as http://bookinfo.example.com/productpage"
	URL string `json:"url"`
	// Method, default GET. One of GET, HEAD, POST, PUT, DELETE, OPTIONS.
	// +optional
	// +kubebuilder:validation:Enum=GET;HEAD;POST;PUT;DELETE;OPTIONS
	Method string `json:"method,omitempty"`
	// Headers of the request.
	// +optional
	// +kubebuilder:validation:MaxProperties=20
	Headers map[string]string `json:"headers,omitempty"`
	// Interval between requests, default 1s.
	// +optional
	// +sluice:atLeast="100ms"
	Interval *metav1.Duration `json:"interval,omitempty"`
	// ExpectStatus lists the status codes that count as success, default [200].
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=set
	// +kubebuilder:validation:items:Minimum=100
	// +kubebuilder:validation:items:Maximum=599
	ExpectStatus []int32 `json:"expectStatus,omitempty"`
	// MaxLatency of a successful request, default 10s; also the request's time-out.
	// +optional
	// +sluice:atLeast="1ms"
	MaxLatency *metav1.Duration `json:"maxLatency,omitempty"`
	// MinSuccess is the least share of successful requests, default "100%".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^(100|[0-9]{1,2}([.][0-9]{1,9})?)%$')",message="must be a percentage such as 95%"
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
	// +sluice:atLeast="1s"
	Window *metav1.Duration `json:"window,omitempty"`
	// Interval of the samples, which lie at its multiples since the epoch.
	// +optional
	// +sluice:atLeast="1s"
	Interval *metav1.Duration `json:"interval,omitempty"`
	// Samples that must pass in a row for a step to end.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Samples *int32 `json:"samples,omitempty"`
	// Failures in a row that roll back.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Failures *int32 `json:"failures,omitempty"`
	// MinRequests of the canary in the window; fewer is NoData. For built-in metrics only.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000000
	MinRequests *int32 `json:"minRequests,omitempty"`
	// NoData: Hold or Fail.
	// +optional
	// +kubebuilder:validation:Enum=Hold;Fail
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
//
// +kubebuilder:validation:XValidation:rule="has(self.metric) != has(self.query)",message="a gate needs exactly one of metric and query"
// +kubebuilder:validation:XValidation:rule="has(self.max) || has(self.min)",message="a gate needs max or min"
// +kubebuilder:validation:XValidation:rule="!has(self.quantile) || (has(self.metric) && self.metric == 'latency')",message="quantile goes with metric latency only"
// +kubebuilder:validation:XValidation:rule="!has(self.minRequests) || !has(self.query)",message="minRequests goes with metric only: a query counts no requests"
// +kubebuilder:validation:XValidation:rule="!has(self.metric) || self.metric == 'latency' || ((!has(self.max) || !self.max.matches('[a-z]$')) && (!has(self.min) || !self.min.matches('[a-z]$')))",message="a limit of errorRate or successRate is a percentage (1%) or a share (0.01)"
// +kubebuilder:validation:XValidation:rule="!has(self.metric) || self.metric != 'latency' || ((!has(self.max) || !self.max.endsWith('%')) && (!has(self.min) || !self.min.endsWith('%')))",message="a limit of latency is a duration (500ms) or a number of seconds (0.5)"
type Gate struct {
	GateDefaults `json:",inline"`

	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be a name of lower-case letters, digits and '-'"
	Name string `json:"name"`
	// Metric is built in; exactly one of metric and query is given.
	// +optional
	// +kubebuilder:validation:Enum=errorRate;successRate;latency
	Metric Metric `json:"metric,omitempty"`
	// Query is PromQL that yields one value, a Go template with .Canary, .Stable, .CanaryWorkload, .StableWorkload, .CanaryHost,
	// .StableHost, .Host, .Service, .Namespace and .Window.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Query string `json:"query,omitempty"`
	// Quantile of latency, between 0 and 1, default "0.99".
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:XValidation:rule="self.matches('^0?[.][0-9]{1,9}$') && double(self) > 0.0",message="must be between 0 and 1, such as 0.99"
	Quantile string `json:"quantile,omitempty"`
	// Max is the greatest value that passes: a number ("0.5"), a percentage ("1%") or a duration ("500ms", as seconds).
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^-?([0-9]{1,15}([.][0-9]{1,9})?%?|([0-9]{1,5}([.][0-9]{1,3})?(h|m|s|ms)){1,4})$')",message="must be a number (0.5), a percentage (1%) or a duration (500ms)"
	Max string `json:"max,omitempty"`
	// Min is the least value that passes.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.matches('^-?([0-9]{1,15}([.][0-9]{1,9})?%?|([0-9]{1,5}([.][0-9]{1,3})?(h|m|s|ms)){1,4})$')",message="must be a number (0.5), a percentage (1%) or a duration (500ms)"
	Min string `json:"min,omitempty"`
	// CompareTo: stable.
	// +optional
	// +sluice:later
	CompareTo string `json:"compareTo,omitempty"`
	// MaxRatio of the canary's value to stable's.
	// +optional
	// +sluice:later
	MaxRatio string `json:"maxRatio,omitempty"`
}
