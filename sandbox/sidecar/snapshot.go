package sidecar

import (
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

const passthroughCluster = "PassthroughCluster"

// snapshot is the configuration that requests are served by. It is replaced
// whole and never changed; only clusters have state of their own.
type snapshot struct {
	listeners []listener
	routes    map[string]*routeTable
	clusters  map[string]*cluster // those whose endpoints are known
}

// listener is what matters here of a listener with an HTTP connection manager.
type listener struct {
	name   string
	port   uint32
	config string // name of the route configuration
}

// configFor finds the route configuration for an authority that a sidecar's
// application wants to reach: one that names the host wins over one that only
// has a catch-all.
func (s *snapshot) configFor(authority string) string {
	_, port := splitAuthority(authority)
	fallback := ""
	for _, l := range s.listeners {
		table := s.routes[l.config]
		if l.port != port || table == nil {
			continue
		}
		fallback = firstOf(fallback, l.config)
		if vh := table.findHost(authority); vh != nil && !slices.Contains(vh.spec.GetDomains(), "*") {
			return l.config
		}
	}
	return fallback
}

// readListener gives the listener's HTTP parts, together with route
// configurations that stand in it instead of being discovered. Listeners for
// inbound or TCP traffic have none.
func readListener(spec *listenerv3.Listener) (found []listener, inline []*routeTable, err error) {
	if spec.GetTrafficDirection() == corev3.TrafficDirection_INBOUND {
		return nil, nil, nil
	}
	port := spec.GetAddress().GetSocketAddress().GetPortValue()
	chains := slices.Clone(spec.GetFilterChains())
	if d := spec.GetDefaultFilterChain(); d != nil {
		chains = append(chains, d)
	}
	for _, chain := range chains {
		for _, filter := range chain.GetFilters() {
			manager, err := readManager(filter.GetTypedConfig())
			if err != nil {
				return nil, nil, fmt.Errorf("listener %q, filter %q: %w", spec.GetName(), filter.GetName(), err)
			}
			if manager == nil {
				continue
			}
			config := manager.GetRds().GetRouteConfigName()
			if r := manager.GetRouteConfig(); r != nil {
				table, err := compileRoutes(r)
				if err != nil {
					return nil, nil, fmt.Errorf("listener %q: %w", spec.GetName(), err)
				}
				config = spec.GetName() + "/" + r.GetName()
				table.name = config
				inline = append(inline, table)
			}
			found = append(found, listener{name: spec.GetName(), port: port, config: config})
		}
	}
	return found, inline, nil
}

func readManager(config *anypb.Any) (*hcmv3.HttpConnectionManager, error) {
	manager := &hcmv3.HttpConnectionManager{}
	if config == nil || !config.MessageIs(manager) {
		return nil, nil
	}
	return manager, config.UnmarshalTo(manager)
}
