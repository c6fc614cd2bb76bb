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
	// Routes to manage.
	// +optional
	// +sluice:later
	// +kubebuilder:validation:MaxItems=20
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

// RouteSelector picks routes of an adopted VirtualService.
type RouteSelector struct {
	// +optional
	Name string `json:"name,omitempty"`
	// +optional
	// +kubebuilder:validation:MaxItems=20
	Match HTTPMatches `json:"match,omitempty"`
	// +optional
	Port int32 `json:"port,omitempty"`
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
	// TrafficPolicy of the host; only the top-level blocks given here are replaced.
	// +optional
	// +sluice:later
	TrafficPolicy *istio.TrafficPolicy `json:"trafficPolicy,omitempty"`
}
