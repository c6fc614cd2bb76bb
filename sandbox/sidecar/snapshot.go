package sidecar

import "slices"

const passthroughCluster = "PassthroughCluster"

// snapshot is the configuration that requests are served by. It is replaced
// whole and never changed; only clusters have state of their own.
type snapshot struct {
	listeners []*listener
	routes    map[string]*routeTable
	clusters  map[string]*cluster // those whose endpoints are known
	names     nameTable
}

// configFor finds the route configuration for an authority that a sidecar's
// application wants to reach: one that names the host wins over one that only
// has a catch-all.
func (s *snapshot) configFor(authority string) string {
	_, port := splitAuthority(authority)
	fallback := ""
	for _, l := range s.listeners {
		if l.inbound || l.port != port {
			continue
		}
		for _, c := range l.all() {
			table := s.routes[c.config]
			if table == nil {
				continue
			}
			fallback = firstOf(fallback, c.config)
			if vh := table.findHost(authority); vh != nil && !slices.Contains(vh.spec.GetDomains(), "*") {
				return c.config
			}
		}
	}
	return fallback
}
