package v1

import (
	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Rollout takes a service from the version that serves today to the version that is asked for, step by step.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
type Rollout struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec RolloutSpec `json:"spec"`
	// +optional
	Status RolloutStatus `json:"status,omitempty"`
}

// RolloutList is a list of Rollouts.
//
// +kubebuilder:object:root=true
type RolloutList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Rollout `json:"items"`
}

// Protocol is what the managed routes speak.
type Protocol string

// The protocols of spec.protocol.
const (
	ProtocolHTTP Protocol = "HTTP"
	ProtocolTCP  Protocol = "TCP"
	ProtocolTLS  Protocol = "TLS"
)

// RolloutSpec is the desired state.
type RolloutSpec struct {
	// Host is a Service (later also a ServiceEntry) host of this namespace, as a short name or FQDN. Immutable.
	// +required
	Host string `json:"host"`
	// Port is Istio's PortSelector; needed only when the Service has several ports.
	// +optional
	Port *istio.PortSelector `json:"port,omitempty"`
	// Protocol of the managed routes: HTTP (also gRPC). Immutable. TCP and TLS: +sluice:later
	// +optional
	Protocol Protocol `json:"protocol,omitempty"`
	// Version that should serve all traffic: the one line that CI bumps.
	// +optional
	Version string `json:"version,omitempty"`
	// WorkloadRef instead of version, for one Deployment that is updated in place. +sluice:later
	// +optional
	WorkloadRef *WorkloadVersion `json:"workloadRef,omitempty"`
	// InitialVersion serves today; needed only when that can not be seen from routes and endpoints.
	// +optional
	InitialVersion string `json:"initialVersion,omitempty"`
	// Versions that need more than the default labels {version: NAME}.
	// +optional
	Versions []Version `json:"versions,omitempty"`
	// VirtualServices to manage; default: the one of the namespace that routes to host, created when there is none. More than one: +sluice:later
	// +optional
	VirtualServices []VirtualService `json:"virtualServices,omitempty"`
	// DestinationRule that holds the subsets; default: the namespace's one for the host.
	// +optional
	DestinationRule *DestinationRule `json:"destinationRule,omitempty"`
	// Steps from the stable version to the new one, in order.
	// +optional
	Steps []Step `json:"steps,omitempty"`
	// GateDefaults fill in what a gate leaves out.
	// +optional
	GateDefaults *GateDefaults `json:"gateDefaults,omitempty"`
	// Gates are judged in every step that exposes the canary. Absent: errorRate max 1% for HTTP; an empty list: none.
	// +optional
	Gates []Gate `json:"gates,omitzero"`
	// Breaker trips. +sluice:later
	// +optional
	Breaker *Breaker `json:"breaker,omitempty"`
	// Schedule of change windows and freezes. +sluice:later
	// +optional
	Schedule *Schedule `json:"schedule,omitempty"`
	// DependsOn names Rollouts that must be Ready before a run starts. +sluice:later
	// +optional
	DependsOn []LocalReference `json:"dependsOn,omitempty"`
	// ProgressDeadline bounds how long a run waits for a canary to become available and a step for evidence.
	// +optional
	ProgressDeadline *ProgressDeadline `json:"progressDeadline,omitempty"`
	// Soak is a last step at weight 100 after the others.
	// +optional
	Soak *Soak `json:"soak,omitempty"`
	// RollbackWindow bounds which proven versions may be returned to at once.
	// +optional
	RollbackWindow *RollbackWindow `json:"rollbackWindow,omitempty"`
	// KeepPrevious is how long the version before stays protected from pruning after a run. +sluice:later
	// +optional
	KeepPrevious *metav1.Duration `json:"keepPrevious,omitempty"`
	// Commands from CI. +sluice:later
	// +optional
	Commands *Commands `json:"commands,omitempty"`
	// Previews are standing header routes, outside runs. +sluice:later
	// +optional
	Previews []Preview `json:"previews,omitempty"`
	// Sticky keeps a user who got the canary on it. +sluice:later
	// +optional
	Sticky *Sticky `json:"sticky,omitempty"`
	// Suspend: no start and no advance; reverts and failing gates still act.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// Version describes one version of the service.
type Version struct {
	// Name of the version, as in spec.version.
	// +required
	Name string `json:"name"`
	// Subset of the DestinationRule; default: the name if it is a DNS-1123 label, else sanitised plus six hex digits of a hash.
	// +optional
	Subset string `json:"subset,omitempty"`
	// Labels of the pods or WorkloadEntries; default: those of the found subset of that name, else {version: NAME}.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// Destination is a host of its own for this version, instead of labels. +sluice:later
	// +optional
	Destination *Destination `json:"destination,omitempty"`
	// Workload that runs this version; default: discovered by labels.
	// +optional
	Workload *WorkloadReference `json:"workload,omitempty"`
	// TrafficPolicy of this version's subset (Istio's TrafficPolicy). +sluice:later
	// +optional
	TrafficPolicy *istio.TrafficPolicy `json:"trafficPolicy,omitempty"`
}

// Destination is a host and a port, as Istio's Destination without a subset.
type Destination struct {
	// +required
	Host string `json:"host"`
	// +optional
	Port *istio.PortSelector `json:"port,omitempty"`
}

// WorkloadReference names a workload of the Rollout's namespace.
type WorkloadReference struct {
	// Kind of the workload: Deployment (default), StatefulSet or DaemonSet.
	// +optional
	Kind string `json:"kind,omitempty"`
	// +required
	Name string `json:"name"`
}

// WorkloadVersion takes the version from a workload.
type WorkloadVersion struct {
	// +required
	Kind string `json:"kind"`
	// +required
	Name string `json:"name"`
	// VersionFrom tells where the version stands: ImageTag.
	// +required
	VersionFrom string `json:"versionFrom"`
}

// VirtualService names a VirtualService to manage or describes one to create.
type VirtualService struct {
	// +optional
	Name string `json:"name,omitempty"`
	// Routes to manage. +sluice:later
	// +optional
	Routes []RouteSelector `json:"routes,omitempty"`
	// Gateways of a created VirtualService; default: [mesh]. +sluice:later
	// +optional
	Gateways []string `json:"gateways,omitempty"`
	// Hosts of a created VirtualService; default: [spec.host]. +sluice:later
	// +optional
	Hosts []string `json:"hosts,omitempty"`
	// ExportTo of a created VirtualService. +sluice:later
	// +optional
	ExportTo []string `json:"exportTo,omitempty"`
	// HTTP route templates without `route`. +sluice:later
	// +optional
	HTTP []HTTPRouteTemplate `json:"http,omitempty"`
	// TCP route templates. +sluice:later
	// +optional
	TCP []TCPRouteTemplate `json:"tcp,omitempty"`
	// TLS route templates. +sluice:later
	// +optional
	TLS []TLSRouteTemplate `json:"tls,omitempty"`
}

// RouteSelector picks routes of an adopted VirtualService.
type RouteSelector struct {
	// +optional
	Name string `json:"name,omitempty"`
	// +optional
	Match HTTPMatches `json:"match,omitempty"`
	// +optional
	Port int32 `json:"port,omitempty"`
}

// HTTPRouteTemplate is Istio's HTTPRoute without its destinations.
type HTTPRouteTemplate struct {
	// +optional
	Match HTTPMatches `json:"match,omitempty"`
	// +optional
	Rewrite *istio.HTTPRewrite `json:"rewrite,omitempty"`
	// +optional
	Headers *istio.Headers `json:"headers,omitempty"`
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// +optional
	Retries *istio.HTTPRetry `json:"retries,omitempty"`
	// +optional
	CorsPolicy *istio.CorsPolicy `json:"corsPolicy,omitempty"`
}

// TCPRouteTemplate is Istio's TCPRoute without its destinations.
type TCPRouteTemplate struct {
	// +optional
	Match L4Matches `json:"match,omitempty"`
}

// TLSRouteTemplate is Istio's TLSRoute without its destinations.
type TLSRouteTemplate struct {
	// +optional
	Match TLSMatches `json:"match,omitempty"`
}

// DestinationRule names the DestinationRule and the policies that the Rollout gives.
type DestinationRule struct {
	// +optional
	Name string `json:"name,omitempty"`
	// TrafficPolicy of the host; only the top-level blocks given here are replaced. +sluice:later
	// +optional
	TrafficPolicy *istio.TrafficPolicy `json:"trafficPolicy,omitempty"`
}

// ProgressDeadline bounds waiting.
type ProgressDeadline struct {
	// Duration, default 30m.
	// +optional
	Duration *metav1.Duration `json:"duration,omitempty"`
	// OnNoEvidence: Hold (default: wait and alert) or Rollback.
	// +optional
	OnNoEvidence NoEvidenceAction `json:"onNoEvidence,omitempty"`
}

// NoEvidenceAction tells what a step without evidence does after the progress deadline.
type NoEvidenceAction string

// The actions of spec.progressDeadline.onNoEvidence.
const (
	NoEvidenceHold     NoEvidenceAction = "Hold"
	NoEvidenceRollback NoEvidenceAction = "Rollback"
)

// Soak is the last step, at weight 100.
type Soak struct {
	// Hold, default 0.
	// +optional
	Hold *metav1.Duration `json:"hold,omitempty"`
	// Gates of the soak, besides the spec's.
	// +optional
	Gates []Gate `json:"gates,omitempty"`
}

// RollbackWindow bounds instant returns.
type RollbackWindow struct {
	// Revisions is how many proven versions back a return may reach, default 3.
	// +optional
	Revisions *int32 `json:"revisions,omitempty"`
	// Within is the greatest age of the proof, default 168h.
	// +optional
	Within *metav1.Duration `json:"within,omitempty"`
}

// Breaker trips roll back outside the step cadence.
type Breaker struct {
	// +optional
	Signals []BreakerSignal `json:"signals,omitzero"`
	// Scope: Canary (default) or Host.
	// +optional
	Scope string `json:"scope,omitempty"`
	// +optional
	Window *metav1.Duration `json:"window,omitempty"`
	// +optional
	MaxTrips *int32 `json:"maxTrips,omitempty"`
	// Action: Rollback.
	// +optional
	Action string `json:"action,omitempty"`
}

// BreakerSignal is Overflow, Ejection or RetryLimit.
type BreakerSignal string

// Schedule holds change windows and freezes.
type Schedule struct {
	// +optional
	TimeZone string `json:"timeZone,omitempty"`
	// +optional
	Windows []Window `json:"windows,omitempty"`
	// +optional
	Freezes []ScheduleFreeze `json:"freezes,omitempty"`
	// WhenClosed: Hold (default), Finish or Return.
	// +optional
	WhenClosed string `json:"whenClosed,omitempty"`
}

// Window opens at each time of the cron expression for the duration.
type Window struct {
	// +required
	Start string `json:"start"`
	// +required
	Duration metav1.Duration `json:"duration"`
}

// ScheduleFreeze is a time without changes: from and to, or start and duration.
type ScheduleFreeze struct {
	// +optional
	From *metav1.Time `json:"from,omitempty"`
	// +optional
	To *metav1.Time `json:"to,omitempty"`
	// +optional
	Start string `json:"start,omitempty"`
	// +optional
	Duration *metav1.Duration `json:"duration,omitempty"`
	// +optional
	Reason string `json:"reason,omitempty"`
}

// LocalReference names an object of the same namespace.
type LocalReference struct {
	// +required
	Name string `json:"name"`
}

// Commands allows commands from CI.
type Commands struct {
	// +required
	SecretRef LocalReference `json:"secretRef"`
}

// Preview routes matched users to a version outside runs.
type Preview struct {
	// +required
	Version string `json:"version"`
	// +required
	Match HTTPMatches `json:"match"`
}

// Sticky keeps users on the canary by a cookie.
type Sticky struct {
	// +required
	Cookie StickyCookie `json:"cookie"`
}

// StickyCookie is the cookie's name and life time.
type StickyCookie struct {
	// +required
	Name string `json:"name"`
	// +optional
	TTL *metav1.Duration `json:"ttl,omitempty"`
}
