package v1

import (
	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Rollout takes a service from the version that serves today to the version that is asked for, step by step.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=rollouts,shortName=slr,categories=sluice
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="Stable",type=string,JSONPath=`.status.stable`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.spec.version`
// +kubebuilder:printcolumn:name="Step",type=string,JSONPath=`.status.step.display`
// +kubebuilder:printcolumn:name="Weight",type=integer,JSONPath=`.status.weight`
// +kubebuilder:printcolumn:name="Since",type=date,JSONPath=`.status.since`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Mode",type=string,priority=1,JSONPath=`.status.mode`
// +kubebuilder:printcolumn:name="Revision",type=string,priority=1,JSONPath=`.status.revision`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.message`
// +kubebuilder:printcolumn:name="Age",type=date,priority=1,JSONPath=`.metadata.creationTimestamp`
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
//
// +kubebuilder:validation:XValidation:rule="has(self.version) != has(self.workloadRef)",message="version is needed: the version that should serve all traffic"
// +kubebuilder:validation:XValidation:rule="!has(self.steps) || self.steps.all(s, !has(s.useGates) || s.useGates.all(n, has(self.gates) ? self.gates.exists(g, g.name == n) : n == 'errors' && (!has(self.protocol) || self.protocol == 'HTTP')))",message="useGates must name gates of spec.gates (without spec.gates there is one for HTTP, named errors, and none for TCP and TLS)"
// +kubebuilder:validation:XValidation:rule="!has(self.steps) || self.steps.all(s, !has(s.gates) || s.gates.all(g, has(self.gates) ? !self.gates.exists(h, h.name == g.name) : g.name != 'errors' || (has(self.protocol) && self.protocol != 'HTTP')))",message="a gate of a step needs another name than the gates of spec.gates (without spec.gates there is one for HTTP, named errors)"
// +kubebuilder:validation:XValidation:rule="!has(self.soak) || !has(self.soak.gates) || self.soak.gates.all(g, has(self.gates) ? !self.gates.exists(h, h.name == g.name) : g.name != 'errors' || (has(self.protocol) && self.protocol != 'HTTP'))",message="a gate of the soak needs another name than the gates of spec.gates (without spec.gates there is one for HTTP, named errors)"
// +kubebuilder:validation:XValidation:rule="!has(self.virtualServices) || self.virtualServices.all(v, !has(v.hosts) || (has(v.gateways) && !('mesh' in v.gateways)) || v.hosts.all(h, h == self.host || h.startsWith(self.host + '.') || self.host.startsWith(h + '.')))",message="a VirtualService for other hosts than spec.host needs gateways without mesh, such as gateways: [bookinfo-gateway]: give sidecars' and gateways' hosts an entry each"
// +kubebuilder:validation:XValidation:rule="!has(self.virtualServices) || self.virtualServices.all(v, (!has(v.http) || !has(self.protocol) || self.protocol == 'HTTP') && (!has(v.tcp) || (has(self.protocol) && self.protocol == 'TCP')) && (!has(v.tls) || (has(self.protocol) && self.protocol == 'TLS')))",message="routes are given in the list of spec.protocol: http for HTTP, tcp for TCP, tls for TLS"
// +kubebuilder:validation:XValidation:rule="(has(self.protocol) ? self.protocol : 'HTTP') == (has(oldSelf.protocol) ? oldSelf.protocol : 'HTTP')",message="protocol is immutable: make another Rollout for another protocol"
// +kubebuilder:validation:XValidation:rule="!has(self.protocol) || self.protocol == 'HTTP' || !has(self.steps) || self.steps.all(s, !has(s.mirror))",message="protocol TCP and TLS have no mirror: a mirror copies requests, and a connection has none to copy; take mirror out of the steps"
// +kubebuilder:validation:XValidation:rule="!has(self.protocol) || self.protocol == 'HTTP' || !has(self.steps) || self.steps.all(s, !has(s.match))",message="protocol TCP and TLS have no match: a connection has no headers or paths by which to tell users apart; move them by weight"
// +kubebuilder:validation:XValidation:rule="!has(self.protocol) || self.protocol == 'HTTP' || !has(self.steps) || self.steps.all(s, !has(s.fault) || (has(s.fault.host) && s.fault.host != self.host && has(s.fault.traffic) && s.fault.traffic == 'Unchanged'))",message="protocol TCP and TLS have no fault of their own, and no match that sends users to the canary: a fault needs the host of an HTTP service and traffic: Unchanged"
// +kubebuilder:validation:XValidation:rule="!has(self.protocol) || self.protocol == 'HTTP' || ((!has(self.gates) || self.gates.all(g, !has(g.metric))) && (!has(self.steps) || self.steps.all(s, !has(s.gates) || s.gates.all(g, !has(g.metric)))) && (!has(self.soak) || !has(self.soak.gates) || self.soak.gates.all(g, !has(g.metric))))",message="protocol TCP and TLS have no errorRate, successRate or latency: those are of requests, and a connection has none that the mesh can see; give the gate a query, such as one on istio_tcp_connections_closed_total"
// +kubebuilder:validation:XValidation:rule="!has(self.protocol) || self.protocol == 'HTTP' || !has(self.virtualServices) || self.virtualServices.all(v, !has(v.routes) || v.routes.all(r, has(r.port)))",message="routes of protocol TCP and TLS have neither names nor HTTP matches: pick them by port, such as routes: [{port: 31400}]"
type RolloutSpec struct {
	// Host is a Service or ServiceEntry host of this namespace, as a short name or FQDN. Immutable.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be a host, short (reviews) or full (reviews.bookinfo.svc.cluster.local)"
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="host is immutable: make another Rollout for another host"
	Host string `json:"host"`
	// Port is Istio's PortSelector; needed only when the Service has several ports.
	// +optional
	Port *istio.PortSelector `json:"port,omitempty"`
	// Protocol of the managed routes: HTTP (also gRPC; default), TCP, or TLS (routed by SNI, not terminated). Immutable.
	// +optional
	// +kubebuilder:validation:Enum=HTTP;TCP;TLS
	Protocol Protocol `json:"protocol,omitempty"`
	// Version that should serve all traffic: the one line that CI bumps.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="must be a version's name such as v3 or 1.4.2: letters, digits, '-', '_' and '.'"
	Version string `json:"version,omitempty"`
	// WorkloadRef instead of version, for one Deployment that is updated in place.
	// +optional
	// +sluice:later
	WorkloadRef *WorkloadVersion `json:"workloadRef,omitempty"`
	// InitialVersion serves today; needed only when that can not be seen from routes and endpoints.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="must be a version's name such as v3 or 1.4.2: letters, digits, '-', '_' and '.'"
	InitialVersion string `json:"initialVersion,omitempty"`
	// Versions that need more than the default labels {version: NAME}.
	// +optional
	// +kubebuilder:validation:MaxItems=20
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:XValidation:rule="self.all(v, !has(v.subset) || self.exists_one(w, has(w.subset) && w.subset == v.subset))",message="each version needs a subset of its own"
	Versions []Version `json:"versions,omitempty"`
	// VirtualServices to manage; default: every one of the namespace that routes to host, and one is created when there is none.
	// An entry without a name stands for all that no other entry names.
	// +optional
	// +kubebuilder:validation:MaxItems=8
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule="self.all(v, self.exists_one(w, has(w.name) == has(v.name) && (!has(w.name) || w.name == v.name)))",message="each VirtualService once, and at most one entry without a name"
	VirtualServices []VirtualService `json:"virtualServices,omitempty"`
	// DestinationRule that holds the subsets; default: the namespace's one for the host.
	// +optional
	DestinationRule *DestinationRule `json:"destinationRule,omitempty"`
	// Steps from the stable version to the new one, in order.
	// +optional
	// +kubebuilder:validation:MaxItems=50
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule="self.all(s, self.exists_one(t, t.name == s.name))",message="each step needs a name of its own"
	// +kubebuilder:validation:XValidation:rule="self.filter(s, has(s.weight)).map(s, s.weight).isSorted()",message="weight must not fall from one step to the next"
	Steps []Step `json:"steps,omitempty"`
	// GateDefaults fill in what a gate leaves out.
	// +optional
	GateDefaults *GateDefaults `json:"gateDefaults,omitempty"`
	// A list of which an empty one means something else than none is atomic, here and below: an apply that takes the last item out
	// of another kind of list leaves the field absent.

	// Gates are judged in every step that exposes the canary. Absent: errorRate max 1% for HTTP; an empty list: none.
	// +optional
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule="self.all(g, self.exists_one(h, h.name == g.name))",message="each gate needs a name of its own"
	Gates []Gate `json:"gates,omitzero"`
	// Breaker trips roll back at once, whatever the gates say. Absent: on when the DestinationRule has a connectionPool or an
	// outlierDetection for the host or the canary's subset.
	// +optional
	Breaker *Breaker `json:"breaker,omitempty"`
	// Schedule of change windows and freezes.
	// +optional
	// +sluice:later
	Schedule *Schedule `json:"schedule,omitempty"`
	// DependsOn names Rollouts that must be Ready before a run starts.
	// +optional
	// +sluice:later
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
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
	// KeepPrevious is how long the version before stays protected from pruning after a run, default 1h; 0s: not at all.
	// +optional
	KeepPrevious *metav1.Duration `json:"keepPrevious,omitempty"`
	// Commands from CI.
	// +optional
	// +sluice:later
	Commands *Commands `json:"commands,omitempty"`
	// Previews are standing header routes, outside runs.
	// +optional
	// +sluice:later
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	Previews []Preview `json:"previews,omitempty"`
	// Sticky keeps a user who got the canary on it.
	// +optional
	// +sluice:later
	Sticky *Sticky `json:"sticky,omitempty"`
	// Suspend: no start and no advance; reverts and failing gates still act.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// Version describes one version of the service.
//
// +kubebuilder:validation:XValidation:rule="!has(self.destination) || !(has(self.subset) || has(self.labels) || has(self.trafficPolicy))",message="a version with a destination has no subset: leave out subset, labels and trafficPolicy (its host's own DestinationRule has the policy)"
type Version struct {
	// Name of the version, as in spec.version.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",message="must be a version's name such as v3 or 1.4.2: letters, digits, '-', '_' and '.'"
	Name string `json:"name"`
	// Subset of the DestinationRule; default: the name if it is a DNS-1123 label, else sanitised plus six hex digits of a hash.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="must be a name of lower-case letters, digits and '-'"
	Subset string `json:"subset,omitempty"`
	// Labels of the pods or WorkloadEntries; default: those of the found subset of that name, else {version: NAME}.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=20
	// +kubebuilder:validation:XValidation:rule="self.all(key, size(key) <= 317 && size(self[key]) <= 63)",message="a label has a key of at most 317 and a value of at most 63 characters"
	Labels map[string]string `json:"labels,omitempty"`
	// Destination is a host of its own for this version, instead of labels: a Service or ServiceEntry host of this namespace. No
	// subset is written for it.
	// +optional
	Destination *Destination `json:"destination,omitempty"`
	// Workload that runs this version; default: discovered by labels.
	// +optional
	Workload *WorkloadReference `json:"workload,omitempty"`
	// TrafficPolicy of this version's subset (Istio's TrafficPolicy). Only the top-level blocks given here are written; a found one
	// is put back when it is given no longer.
	// +optional
	TrafficPolicy *istio.TrafficPolicy `json:"trafficPolicy,omitempty"`
}

// Destination is a host and a port, as Istio's Destination without a subset.
type Destination struct {
	// Host, as a short name or FQDN; where it is no Service's, requests get it for their authority. It may be spec.host itself: all
	// of its endpoints.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be a host, short (reviews-v2) or full (api-v2.partner.com)"
	Host string `json:"host"`
	// Port is Istio's PortSelector; needed only when the host has several ports.
	// +optional
	Port *istio.PortSelector `json:"port,omitempty"`
}

// WorkloadReference names a workload of the Rollout's namespace.
type WorkloadReference struct {
	// Kind of the workload: Deployment (default), StatefulSet or DaemonSet.
	// +optional
	// +kubebuilder:validation:Enum=Deployment;StatefulSet;DaemonSet
	Kind string `json:"kind,omitempty"`
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be the name of an object: lower-case letters, digits, '-' and '.'"
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

// ProgressDeadline bounds waiting.
type ProgressDeadline struct {
	// Duration, default 30m.
	// +optional
	// +sluice:atLeast="1s"
	Duration *metav1.Duration `json:"duration,omitempty"`
	// OnNoEvidence: Hold (default: wait and alert) or Rollback.
	// +optional
	// +kubebuilder:validation:Enum=Hold;Rollback
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
	// +kubebuilder:validation:MaxItems=20
	// +listType=map
	// +listMapKey=name
	Gates []Gate `json:"gates,omitempty"`
}

// RollbackWindow bounds instant returns.
type RollbackWindow struct {
	// Revisions is how many proven versions back a return may reach, default 3.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Revisions *int32 `json:"revisions,omitempty"`
	// Within is how long ago the version may have served last, default 168h.
	// +optional
	Within *metav1.Duration `json:"within,omitempty"`
}

// Breaker trips roll back outside the step cadence.
//
// +kubebuilder:validation:XValidation:rule="!has(self.window) || !self.window.matches('^([0-9]{1,5}([.][0-9]{1,3})?(h|m|s)|[0-9]{1,5}ms){1,4}$') || duration(self.window) <= duration('1h')",message="window must be at most 1h"
type Breaker struct {
	// Signals that trip: Overflow (UO, a full connection pool), Ejection (outlier detection took endpoints out), RetryLimit (URX).
	// Default: Overflow and Ejection. An empty list: the breaker is off.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=3
	// +kubebuilder:validation:XValidation:rule="self.all(s, self.exists_one(t, t == s))",message="each signal once"
	Signals []BreakerSignal `json:"signals,omitzero"`
	// Scope: Canary (default: only what the canary causes counts, and nothing in fault steps) or Host (everything on the host counts).
	// +optional
	// +kubebuilder:validation:Enum=Canary;Host
	Scope BreakerScope `json:"scope,omitempty"`
	// Window in which trips count, default 30s; never from before the run's start.
	// +optional
	// +sluice:atLeast="1s"
	Window *metav1.Duration `json:"window,omitempty"`
	// MaxTrips is how many of one signal are borne within the window, default 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000000
	MaxTrips *int32 `json:"maxTrips,omitempty"`
	// Action: Rollback (default, and the only one).
	// +optional
	// +kubebuilder:validation:Enum=Rollback
	Action BreakerAction `json:"action,omitempty"`
}

// BreakerSignal is what a circuit breaker of the mesh did.
//
// +kubebuilder:validation:Enum=Overflow;Ejection;RetryLimit
type BreakerSignal string

// The signals of spec.breaker.signals.
const (
	// SignalOverflow is a request that found no place in a connection pool (response flag UO).
	SignalOverflow BreakerSignal = "Overflow"
	// SignalEjection is an endpoint that outlier detection took out (or a request that found none left, UH).
	SignalEjection BreakerSignal = "Ejection"
	// SignalRetryLimit is a request whose retries were used up (URX).
	SignalRetryLimit BreakerSignal = "RetryLimit"
)

// BreakerScope tells whose trips count.
type BreakerScope string

// The scopes of spec.breaker.scope.
const (
	BreakerCanary BreakerScope = "Canary"
	BreakerHost   BreakerScope = "Host"
)

// BreakerAction is what a trip does.
type BreakerAction string

// BreakerRollback is the action of spec.breaker.action.
const BreakerRollback BreakerAction = "Rollback"

// Schedule holds change windows and freezes.
type Schedule struct {
	// +optional
	TimeZone string `json:"timeZone,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=20
	Windows []Window `json:"windows,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=20
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
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be the name of an object: lower-case letters, digits, '-' and '.'"
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
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
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
