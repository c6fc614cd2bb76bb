package analysis

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
)

// ProbePolicy says where probes may go. A URL's host must match Allow; and the address that it resolves to, checked as the
// connection is made, must not be one that only the operator itself should reach.
type ProbePolicy struct {
	// Allow holds patterns: a host, "*.suffix" or "*", each with or without ":port"; without: any port.
	Allow []string
	// AllowLoopback admits loopback addresses, whatever Deny says of them.
	AllowLoopback bool
	// Deny lists further addresses to refuse: those of the API server.
	Deny []netip.Addr
}

// Addresses that look public and are not: the metadata service of AWS over IPv6, and IPv4 inside NAT64.
var (
	metadataAddress = netip.MustParseAddr("fd00:ec2::254")
	nat64           = netip.MustParsePrefix("64:ff9b::/96")
)

// check tells whether a probe's URL may be asked for by its name.
func (p ProbePolicy) check(text string) error {
	target, err := url.Parse(text)
	if err != nil || target.Hostname() == "" || (target.Scheme != "http" && target.Scheme != "https") {
		return fmt.Errorf("probe: url: %q; an http or https URL is expected", withoutUser(text))
	}
	for _, pattern := range p.Allow {
		if allows(pattern, target) {
			return nil
		}
	}
	return fmt.Errorf("probe: url: host %s is not allowed; the operator's flag --probe-allow=%s would allow it", target.Host, target.Host)
}

func withoutUser(text string) string { return userInfo.ReplaceAllString(text, "://…@") }

func allows(pattern string, target *url.URL) bool {
	host, port := splitPort(strings.ToLower(pattern))
	if port != "" && port != portOf(target) {
		return false
	}
	name := strings.TrimSuffix(strings.ToLower(target.Hostname()), ".")
	if suffix, ok := strings.CutPrefix(host, "*."); ok {
		return strings.HasSuffix(name, "."+suffix)
	}
	return host == "*" || host == name
}

// splitPort takes a pattern apart; the port is empty when it has none. IPv6 addresses stand in brackets when a port follows.
func splitPort(pattern string) (host, port string) {
	if inner, ok := strings.CutPrefix(pattern, "["); ok {
		host, rest, _ := strings.Cut(inner, "]")
		return host, strings.TrimPrefix(rest, ":")
	}
	if strings.Count(pattern, ":") == 1 {
		host, port, _ = strings.Cut(pattern, ":")
		return host, port
	}
	return pattern, ""
}

func portOf(target *url.URL) string {
	switch {
	case target.Port() != "":
		return target.Port()
	case target.Scheme == "https":
		return "443"
	}
	return "80"
}

// refusedAddress is a resolved address that a probe may not connect to.
type refusedAddress struct {
	address netip.Addr
	kind    string
}

func (e *refusedAddress) Error() string {
	message := fmt.Sprintf("probe: url: it resolves to %s, %s; probes do not go there", e.address, e.kind)
	if e.address.IsLoopback() {
		message += " unless the operator's flag --probe-allow-loopback is set"
	}
	return message
}

// control is a net.Dialer's Control: it sees the address after the name was resolved, so no answer of a DNS server gets around it.
func (p ProbePolicy) control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("probe: address %s: %w", address, err)
	}
	return p.admit(target.Addr())
}

// admit returns a *refusedAddress for an address that probes may not reach.
func (p ProbePolicy) admit(address netip.Addr) error {
	address = address.Unmap().WithZone("")
	if nat64.Contains(address) {
		bytes := address.As16()
		address = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	if kind := p.forbidden(address); kind != "" {
		return &refusedAddress{address, kind}
	}
	return nil
}

func (p ProbePolicy) forbidden(address netip.Addr) string {
	switch {
	case address.IsUnspecified():
		return "an unspecified address"
	case address.IsLoopback():
		if p.AllowLoopback {
			return ""
		}
		return "a loopback address"
	case address.IsLinkLocalUnicast(), address == metadataAddress:
		return "a link-local address"
	case address.IsMulticast():
		return "a multicast address"
	}
	for _, denied := range p.Deny {
		if denied.Unmap().WithZone("") == address {
			return "an address of the API server"
		}
	}
	return ""
}
