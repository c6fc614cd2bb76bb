package v1

import (
	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// VirtualService names a VirtualService to manage, or describes one that Sluice makes: by any of gateways, hosts, exportTo, http, tcp
// and tls.
//
// +kubebuilder:validation:XValidation:rule="!has(self.routes) || !(has(self.gateways) || has(self.hosts) || has(self.exportTo) || has(self.http) || has(self.tcp) || has(self.tls))",message="routes picks routes of a VirtualService that is there, and gateways, hosts, exportTo, http, tcp and tls describe one that Sluice makes: give one of the two"
type VirtualService struct {
	// Name of the VirtualService; default, for one that Sluice makes: the Rollout's.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be the name of an object: lower-case letters, digits, '-' and '.'"
	Name string `json:"name,omitempty"`
	// Routes to manage; default: those that send all of their requests to the stable version, or name no subset of the host.
	// +optional
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	Routes []RouteSelector `json:"routes,omitempty"`
	// Gateways of a VirtualService that Sluice makes, as NAME, NAMESPACE/NAME or mesh (all sidecars); default: [mesh].
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=atomic
	Gateways []string `json:"gateways,omitempty"`
	// Hosts of a VirtualService that Sluice makes; default: [spec.host]. Others than spec.host need gateways without mesh.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	// +listType=atomic
	Hosts []string `json:"hosts,omitempty"`
	// ExportTo of a VirtualService that Sluice makes: namespaces, "." for its own and "*" for all; default: Istio's, which is all.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	// +listType=atomic
	ExportTo []string `json:"exportTo,omitempty"`
	// HTTP routes of a VirtualService that Sluice makes, in order, without their destinations; default: one that takes every request.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.name) || self.exists_one(s, has(s.name) && s.name == r.name))",message="each route needs a name of its own"
	HTTP []HTTPRouteTemplate `json:"http,omitempty"`
	// TCP routes of a VirtualService that Sluice makes, without their destinations; default: one that takes every connection, for
	// sidecars those to spec.port.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	TCP []TCPRouteTemplate `json:"tcp,omitempty"`
	// TLS routes of a VirtualService that Sluice makes, without their destinations; default: one for the names of its hosts.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	TLS []TLSRouteTemplate `json:"tls,omitempty"`
}

// RouteSelector picks routes of an adopted VirtualService, by one of name, match and port. What it picks is managed whatever
// version it names.
//
// +kubebuilder:validation:XValidation:rule="(has(self.name) ? 1 : 0) + (has(self.match) ? 1 : 0) + (has(self.port) ? 1 : 0) == 1",message="give one of name, match and port"
type RouteSelector struct {
	// Name of the route.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
	// Match blocks of the route, all of them.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	Match HTTPMatches `json:"match,omitempty"`
	// Port that each match block of the route names: every such route to the host is picked.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
}

// HTTPRouteTemplate is Istio's HTTPRoute without its destinations.
type HTTPRouteTemplate struct {
	// Name of the route; default: primary for the first one without a name, then primary- and a hash of its match.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('sluice-')",message="names that begin with sluice- are for the routes that Sluice inserts"
	Name string `json:"name,omitempty"`
	// Match blocks, any of which a request has to meet; default: every request.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	Match HTTPMatches `json:"match,omitempty"`
	// Rewrite of the path or authority.
	// +optional
	Rewrite *istio.HTTPRewrite `json:"rewrite,omitempty"`
	// Headers to set, add or remove.
	// +optional
	Headers *istio.Headers `json:"headers,omitempty"`
	// Timeout of a request with all its retries, such as 0.5s.
	// +optional
	// +sluice:atLeast="1ms"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// Retries of a failed request.
	// +optional
	Retries *istio.HTTPRetry `json:"retries,omitempty"`
	// CorsPolicy for browsers.
	// +optional
	CorsPolicy *istio.CorsPolicy `json:"corsPolicy,omitempty"`
}

// TCPRouteTemplate is Istio's TCPRoute without its destinations.
type TCPRouteTemplate struct {
	// Match blocks, any of which a connection has to meet; default: every connection.
	// +optional
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	Match L4Matches `json:"match,omitempty"`
}

// TLSRouteTemplate is Istio's TLSRoute without its destinations.
type TLSRouteTemplate struct {
	// Match blocks, any of which a connection has to meet.
	// +required
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	Match TLSMatches `json:"match"`
}

// DestinationRule names the DestinationRule and the policies that the Rollout gives.
type DestinationRule struct {
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be the name of an object: lower-case letters, digits, '-' and '.'"
	Name string `json:"name,omitempty"`
	// TrafficPolicy of the host; only the top-level blocks given here are replaced, and a found one is put back when it is given no
	// longer.
	// +optional
	TrafficPolicy *istio.TrafficPolicy `json:"trafficPolicy,omitempty"`
}
