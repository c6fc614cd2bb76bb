package sidecar

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	// anyAddress is where a listener stands that serves all addresses of a port.
	anyAddress = "0.0.0.0"
	// virtualOutbound takes what no other listener does.
	virtualOutbound = "virtualOutbound"
	// virtualInbound takes what comes to the pod.
	virtualInbound = "virtualInbound"
)

// listener is one Envoy listener: its filter chains, one of which a connection
// is served by.
type listener struct {
	name     string
	address  string
	port     uint32
	inbound  bool
	chains   []*chain
	fallback *chain   // nil: connections that no chain matches are closed
	ignored  []string // filters that this proxy does not obey

	spec   *listenerv3.Listener
	inline []*routeTable // route configurations that stand in it instead of being discovered
}

// chain serves a connection by HTTP routes or passes its bytes on.
type chain struct {
	match  *listenerv3.FilterChainMatch
	secure *corev3.TransportSocket // nil: plain text, or TLS that is passed through
	http   bool
	config string // name of the route configuration; "" for inbound chains
	tcp    *tcpv3.TcpProxy

	filters []httpFilter
	guards  []*rbacFilter // of connections
}

// inspection is what is known of a connection before a chain is chosen.
type inspection struct {
	address    string // that the client wants to reach; "" if that is only a name
	port       uint32
	serverName string
	tls        bool
	protocols  []string // as offered by ALPN, or as they look on the wire
}

const httpConnectionManager = "envoy.filters.network.http_connection_manager"

func readListener(spec *listenerv3.Listener) (*listener, error) {
	address := spec.GetAddress().GetSocketAddress()
	l := &listener{
		spec: spec, name: spec.GetName(), address: address.GetAddress(), port: address.GetPortValue(),
		inbound: spec.GetTrafficDirection() == corev3.TrafficDirection_INBOUND,
	}
	for _, c := range spec.GetFilterChains() {
		read, err := l.readChain(c)
		if err != nil {
			return nil, fmt.Errorf("listener %q, filter chain %q: %w", l.name, c.GetName(), err)
		}
		l.chains = append(l.chains, read)
	}
	if c := spec.GetDefaultFilterChain(); c != nil {
		var err error
		if l.fallback, err = l.readChain(c); err != nil {
			return nil, fmt.Errorf("listener %q, default filter chain: %w", l.name, err)
		}
	}
	return l, nil
}

func (l *listener) readChain(spec *listenerv3.FilterChain) (*chain, error) {
	c := &chain{match: spec.GetFilterChainMatch(), secure: spec.GetTransportSocket()}
	if c.secure.GetName() == "envoy.transport_sockets.raw_buffer" {
		c.secure = nil
	}
	for _, filter := range spec.GetFilters() {
		if err := c.readFilter(l, filter.GetTypedConfig()); err != nil {
			return nil, fmt.Errorf("filter %q: %w", filter.GetName(), err)
		}
	}
	if !c.http && c.tcp == nil {
		return nil, errors.New("ends in no filter that this proxy knows: want " + httpConnectionManager + " or envoy.filters.network.tcp_proxy")
	}
	return c, nil
}

// readFilter takes over one of the two filters that end a chain, or one that
// decides about connections before; the others only tell what happens.
func (c *chain) readFilter(l *listener, config *anypb.Any) error {
	manager, proxy := &hcmv3.HttpConnectionManager{}, &tcpv3.TcpProxy{}
	switch {
	case config == nil:
		return nil
	case config.MessageIs(proxy):
		c.tcp = proxy
		return config.UnmarshalTo(proxy)
	case !config.MessageIs(manager):
		guard, err := readStreamFilter(config)
		if guard != nil {
			c.guards = append(c.guards, guard)
		}
		return err
	}
	if err := config.UnmarshalTo(manager); err != nil {
		return err
	}
	return c.readManager(l, manager)
}

func (c *chain) readManager(l *listener, manager *hcmv3.HttpConnectionManager) error {
	filters, ignored, err := readFilters(manager)
	if err != nil {
		return err
	}
	c.http, c.filters, l.ignored = true, filters, append(l.ignored, ignored...)
	if l.inbound {
		return nil // whose only route leads to the application
	}
	c.config = manager.GetRds().GetRouteConfigName()
	if manager.GetRouteConfig() == nil {
		return nil
	}
	table, err := compileRoutes(manager.GetRouteConfig())
	if err != nil {
		return err
	}
	table.name = l.name + "/" + table.name
	c.config, l.inline = table.name, append(l.inline, table)
	return nil
}

// all gives the chains, the default one last.
func (l *listener) all() []*chain {
	if l.fallback == nil {
		return l.chains
	}
	return append(slices.Clip(l.chains), l.fallback)
}

// choose finds the most specific chain for a connection, or nil.
func (l *listener) choose(i inspection) *chain {
	best, highest := l.fallback, -1
	for _, c := range l.chains {
		if score := c.score(i); score > highest {
			best, highest = c, score
		}
	}
	return best
}

// score is -1 for a chain that does not match, and higher the more specific the
// match is: by port, then address, then server name, then what is spoken.
func (c *chain) score(i inspection) int {
	m, score := c.match, 0
	if !c.reachable(i) {
		return -1
	}
	if m.GetDestinationPort() != nil {
		score += 1 << 20
	}
	if len(m.GetPrefixRanges()) > 0 {
		score += 1 << 16
	}
	if names := m.GetServerNames(); len(names) > 0 {
		length := matchServerName(names, i.serverName)
		if length == 0 {
			return -1
		}
		score += length << 4
	}
	if t := m.GetTransportProtocol(); t != "" {
		if (t == "tls") != i.tls {
			return -1
		}
		score += 2
	}
	if protocols := m.GetApplicationProtocols(); len(protocols) > 0 {
		if !slices.ContainsFunc(protocols, func(p string) bool { return slices.Contains(i.protocols, p) }) {
			return -1
		}
		score++
	}
	return score
}

// reachable tells whether the chain is for the connection's address and port.
func (c *chain) reachable(i inspection) bool {
	if p := c.match.GetDestinationPort(); p != nil && p.GetValue() != i.port {
		return false
	}
	ranges := c.match.GetPrefixRanges()
	if len(ranges) == 0 {
		return true
	}
	address, err := netip.ParseAddr(i.address)
	return err == nil && slices.ContainsFunc(ranges, func(r *corev3.CidrRange) bool {
		prefix, err := netip.ParsePrefix(fmt.Sprintf("%s/%d", r.GetAddressPrefix(), r.GetPrefixLen().GetValue()))
		return err == nil && prefix.Contains(address)
	})
}

// matchServerName gives the length of the best match, a whole name being
// better than any *.suffix; 0 for none.
func matchServerName(patterns []string, name string) int {
	best := 0
	for _, p := range patterns {
		suffix, wild := strings.CutPrefix(p, "*")
		switch {
		case !wild && strings.EqualFold(p, name):
			best = max(best, 256+len(p))
		case wild && name != "" && strings.HasSuffix(strings.ToLower(name), strings.ToLower(suffix)):
			best = max(best, 1+len(suffix))
		}
	}
	return best
}

// decide gives the chain for a connection where its first bytes do not matter;
// otherwise it tells that they have to be looked at.
func (l *listener) decide(i inspection) (c *chain, inspect bool) {
	var candidates []*chain
	for _, c := range l.all() {
		if c.reachable(i) && !(l.inbound && c.secure != nil) { // nobody has the certificates for mutual TLS here
			candidates = append(candidates, c)
		}
	}
	if l.inbound { // istiod tells TLS from plain text even where both go the same way
		if slices.ContainsFunc(candidates, func(c *chain) bool { return c.match.GetDestinationPort() != nil }) {
			candidates = slices.DeleteFunc(candidates, func(c *chain) bool { return c.match.GetDestinationPort() == nil })
		}
		if alike := func(c *chain) bool { return c.http == candidates[0].http }; len(candidates) > 0 && !slices.ContainsFunc(candidates, func(c *chain) bool { return !alike(c) }) {
			return candidates[0], false
		}
	}
	for _, c := range candidates {
		if m := c.match; len(m.GetServerNames()) > 0 || len(m.GetApplicationProtocols()) > 0 || m.GetTransportProtocol() != "" {
			return nil, true
		}
	}
	return l.choose(i), false
}
