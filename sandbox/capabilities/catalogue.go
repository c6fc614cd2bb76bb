package capabilities

import (
	"fmt"
	"slices"
)

// Capability is something that Istio's traffic-management tutorials show and that has to work under Sluice.
type Capability struct {
	// Number by which examples and tests name it.
	Number int
	Name   string
}

// Catalogue lists the capabilities by number.
var Catalogue = []Capability{
	{1, "Subsets per version"},
	{2, "All traffic to one version"},
	{3, "Header routing: one user gets another version"},
	{4, "User-agent routing by regex"},
	{5, "Weight shifts: 50/50, 90/10, 75/25, then all"},
	{6, "TCP shift behind a gateway's TCP port"},
	{7, "Fault delays: for one user, for all, the deprecated percent"},
	{8, "Fault aborts: 503, 500, 400 by percentage; delay and abort together"},
	{9, "A timeout bug that a fault test finds"},
	{10, "Request timeout, with a delay in a dependency"},
	{11, "Retries: attempts, perTryTimeout, retryOn"},
	{12, "Circuit breaker: a connection pool that overflows"},
	{13, "Outlier detection: ejection of a pool"},
	{14, "Breaker, ejection and retry together: no 503 reaches the user"},
	{15, "Mirroring: -shadow host, answers dropped"},
	{16, "Load-balancing policy, per host and per subset"},
	{17, "Gateway bound to a VirtualService; URI match exact and prefix"},
	{18, "One VirtualService that routes by URI to several services"},
	{19, "Rewrites, and headers added and removed on routes"},
	{20, "ServiceEntry for an external host, with timeout and fault"},
	{21, "Egress gateway, Sidecar scoping, REGISTRY_ONLY"},
	{22, "RequestAuthentication and AuthorizationPolicy"},
	{23, "mTLS mode in a DestinationRule, kept by a Rollout"},
	{24, "Locality load balancing"},
	{25, "FQDN, wildcard and unregistered hosts"},
	{26, "EnvoyFilter objects pass through: rate limiting"},
}

// capabilityNumbered finds a capability.
func capabilityNumbered(number int) (Capability, error) {
	at := slices.IndexFunc(Catalogue, func(c Capability) bool { return c.Number == number })
	if at < 0 {
		return Capability{}, fmt.Errorf("there is no capability %d: the catalogue has 1 to %d", number, len(Catalogue))
	}
	return Catalogue[at], nil
}
