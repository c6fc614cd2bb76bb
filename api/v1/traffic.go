package v1

import istio "istio.io/api/networking/v1alpha3"

// Traffic is what the mesh must be: a self-contained value that the pipeline decides, status keeps, and the mesh renders.
// Without a canary all traffic goes to stable.
type Traffic struct {
	// Stable gets what the canary does not.
	Stable Target `json:"stable"`
	// Canary is set throughout the steps of a run.
	// +optional
	Canary *Target `json:"canary,omitempty"`
	// Weight is the canary's share, 0 to 100.
	Weight int32 `json:"weight"`
	// Mirror copies the managed routes' requests to the canary.
	// +optional
	Mirror *MirrorTraffic `json:"mirror,omitempty"`
	// Match sends the matched requests to the canary alone.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:pruning:PreserveUnknownFields
	Match HTTPMatches `json:"match,omitempty"`
	// Fault is injected for matched requests to its host.
	// +optional
	Fault *FaultInjection `json:"fault,omitempty"`
}

// Target is a version as the mesh names it.
type Target struct {
	// Version as in spec.version.
	Version string `json:"version"`
	// Subset of the DestinationRule; empty for a version with a host of its own.
	Subset string `json:"subset"`
	// Labels of the subset, resolved; with a host of its own those by which its Service selects pods, if it does.
	Labels map[string]string `json:"labels,omitempty"`
	// Host of its own (spec.versions[].destination), as in the spec; empty: the Rollout's.
	// +optional
	Host string `json:"host,omitempty"`
	// Port of that host; 0: the one that requests are for, or its only one.
	// +optional
	Port uint32 `json:"port,omitempty"`
}

// MirrorTraffic is an applied mirror.
type MirrorTraffic struct {
	// Percentage of requests, 1 to 100.
	Percentage int32 `json:"percentage"`
	// Host that gets the copies instead of the canary; empty: the canary does.
	// +optional
	Host string `json:"host,omitempty"`
	// Match narrows what is mirrored; empty: all that the managed routes get.
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:pruning:PreserveUnknownFields
	Match HTTPMatches `json:"match,omitempty"`
}

// FaultInjection is an applied fault. Host is empty for the Rollout's own host, where the matched requests also go to the
// canary; on another host only requests from the canary's pods (sourceLabels: the canary's labels) get the fault, and the
// traffic's Match sends the matched requests to the canary on the own host. With Traffic Unchanged neither holds: all requests go
// where they would without the fault, whoever sends them.
type FaultInjection struct {
	// Scope Everyone: all requests get the fault, and Match is empty; else it is empty.
	// +optional
	Scope FaultScope `json:"scope,omitempty"`
	// Traffic Unchanged, or empty for Canary.
	// +optional
	Traffic FaultTraffic `json:"traffic,omitempty"`
	// +optional
	Host string `json:"host,omitempty"`
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:pruning:PreserveUnknownFields
	Match HTTPMatches `json:"match,omitempty"`
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:pruning:PreserveUnknownFields
	Delay *istio.HTTPFaultInjection_Delay `json:"delay,omitempty"`
	// +optional
	// +kubebuilder:validation:Schemaless
	// +kubebuilder:pruning:PreserveUnknownFields
	Abort *istio.HTTPFaultInjection_Abort `json:"abort,omitempty"`
}

// Subset is one entry of the DestinationRule that must exist.
type Subset struct {
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	// Added is true for a subset that Sluice added: it leaves once nothing names it. One that was found never leaves.
	// +optional
	Added bool `json:"added,omitempty"`
	// Leaving is true for an added subset that no version needs any more: it is taken out of the rule, the propagation delay
	// after the last route of the namespace that names it, and then out of this list.
	// +optional
	Leaving bool `json:"leaving,omitempty"`
	// Policy names the entry of spec.versions whose trafficPolicy the subset gets; empty: none.
	// +optional
	Policy string `json:"policy,omitempty"`
}

// ManagedVirtualService is a VirtualService whose routes to the host the Rollout drives, fixed when a run starts.
type ManagedVirtualService struct {
	Name string `json:"name"`
	// Created is true when Sluice made it; then it is written again from status when it vanishes.
	// +optional
	Created bool `json:"created,omitempty"`
	// Template is a hash of its description in spec.virtualServices; empty when there is none. While the spec describes it otherwise
	// it is left as found.
	// +optional
	Template string `json:"template,omitempty"`
	// Routes that are driven; for a created one without a description, which has one route, none.
	// +optional
	Routes []ManagedRoute `json:"routes,omitempty"`
}

// ManagedRoute is one driven route and the form in which it was found.
type ManagedRoute struct {
	// Key is the route's name, or for an unnamed route "#" and a hash of its match blocks.
	Key string `json:"key"`
	// Subset that the route named when it was found; empty when it named none.
	// +optional
	Subset string `json:"subset,omitempty"`
	// Host in full that the route named when it was found, if that is a version's own; empty: the Rollout's.
	// +optional
	Host string `json:"host,omitempty"`
	// Port that it named there, if that is a version's own as well: it may be all that tells versions on one host apart.
	// +optional
	Port uint32 `json:"port,omitempty"`
	// Destination is the JSON of the found destination, kept once the route leads to a host of a version's own.
	// +optional
	Destination string `json:"destination,omitempty"`
	// Weighted is true when the found destination had a weight field.
	// +optional
	Weighted bool `json:"weighted,omitempty"`
	// Namesakes is how many more routes of its name were found, which are left alone.
	// +optional
	Namesakes int32 `json:"namesakes,omitempty"`
	// Leaving is true for a route that the spec names no more and that was found without a subset: it is put back to that, and then
	// taken out of this list.
	// +optional
	Leaving bool `json:"leaving,omitempty"`
	// SavedMirror is the JSON of the route's own `mirror` (with its percentage fields), which Istio refuses beside the `mirrors` that Sluice needs.
	// +optional
	SavedMirror string `json:"savedMirror,omitempty"`
}

// AllStable returns the traffic with everything at the stable version and nothing inserted.
func (t Traffic) AllStable() Traffic {
	return Traffic{Stable: t.Stable}
}

// Exposed tells whether users, or copies of their requests, reach the canary.
func (t Traffic) Exposed() bool {
	return t.ExposedToUsers() || (t.Canary != nil && t.Mirror != nil && t.Mirror.Host == "")
}

// ExposedToUsers tells whether answers of the canary reach users: exposed outside a mirror.
func (t Traffic) ExposedToUsers() bool {
	return t.Canary != nil && (t.Weight > 0 || len(t.Match) > 0 || (t.Fault != nil && t.Fault.Traffic != FaultTrafficUnchanged))
}

// MirrorsApart tells whether the mirror stands on copies of the managed routes, which leaves the routes' own mirrors alone: by a
// subset of the host's it could be told from them, by another host it could not.
func (t Traffic) MirrorsApart() bool {
	elsewhere := t.Canary != nil && t.Canary.Host != ""
	return t.Mirror != nil && (elsewhere || t.Mirror.Host != "" || len(t.Mirror.Match) > 0)
}
