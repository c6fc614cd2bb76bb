package v1

import (
	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// VirtualService names a VirtualService to manage or describes one to create.
type VirtualService struct {
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
	// Gateways of a created VirtualService; default: [mesh].
	// +optional
	// +sluice:later
	// +kubebuilder:validation:MaxItems=20
	Gateways []string `json:"gateways,omitempty"`
	// Hosts of a created VirtualService; default: [spec.host].
	// +optional
	// +sluice:later
	// +kubebuilder:validation:MaxItems=20
	Hosts []string `json:"hosts,omitempty"`
	// ExportTo of a created VirtualService.
	// +optional
	// +sluice:later
	// +kubebuilder:validation:MaxItems=20
	ExportTo []string `json:"exportTo,omitempty"`
	// HTTP route templates without `route`.
	// +optional
	// +sluice:later
	// +kubebuilder:validation:MaxItems=20
	HTTP []HTTPRouteTemplate `json:"http,omitempty"`
	// TCP route templates.
	// +optional
	// +sluice:later
	// +kubebuilder:validation:MaxItems=20
	TCP []TCPRouteTemplate `json:"tcp,omitempty"`
	// TLS route templates.
	// +optional
	// +sluice:later
	// +kubebuilder:validation:MaxItems=20
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

// Manages tells whether a VirtualService that routes to the host is to be managed, and which of its routes; none: those that the
// default selects. An entry without a name stands for all that no other entry names.
func (s *RolloutSpec) Manages(virtualService string) (routes []RouteSelector, managed bool) {
	for i := range s.VirtualServices {
		switch s.VirtualServices[i].Name {
		case virtualService:
			return s.VirtualServices[i].Routes, true
		case "":
			routes, managed = s.VirtualServices[i].Routes, true
		}
	}
	return routes, managed || len(s.VirtualServices) == 0
}

// HTTPRouteTemplate is Istio's HTTPRoute without its destinations.
type HTTPRouteTemplate struct {
	// +optional
	// +kubebuilder:validation:MaxItems=20
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
	// +kubebuilder:validation:MaxItems=20
	Match L4Matches `json:"match,omitempty"`
}

// TLSRouteTemplate is Istio's TLSRoute without its destinations.
type TLSRouteTemplate struct {
	// +optional
	// +kubebuilder:validation:MaxItems=20
	Match TLSMatches `json:"match,omitempty"`
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
