package sidecar

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// nameTableType is istiod's table of the mesh's host names, which Istio's
// agent answers DNS queries by. Envoy does not know it.
const nameTableType = "type.googleapis.com/istio.networking.nds.v1.NameTable"

// nameTable holds the virtual addresses of services by their full names.
type nameTable map[string][]string

// readNameTable reads the message by its field numbers: a map (1) from name to
// an entry whose addresses are field 1.
// https://github.com/istio/istio/blob/master/pkg/dns/proto/nds.proto
func readNameTable(raw []byte) (nameTable, error) {
	names := nameTable{}
	err := eachField(raw, 1, func(entry []byte) error {
		var name string
		var addresses []string
		if err := eachField(entry, 1, func(b []byte) error { name = string(b); return nil }); err != nil {
			return err
		}
		err := eachField(entry, 2, func(info []byte) error {
			return eachField(info, 1, func(b []byte) error { addresses = append(addresses, string(b)); return nil })
		})
		names[name] = addresses
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("name table: %w", err)
	}
	return names, nil
}

// eachField calls back for every length-delimited field of that number.
func eachField(raw []byte, number protowire.Number, do func([]byte) error) error {
	for len(raw) > 0 {
		n, kind, length := protowire.ConsumeTag(raw)
		if length < 0 {
			return protowire.ParseError(length)
		}
		raw = raw[length:]
		size := protowire.ConsumeFieldValue(n, kind, raw)
		if size < 0 {
			return protowire.ParseError(size)
		}
		if n == number && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(raw)
			if err := do(value); err != nil {
				return err
			}
		}
		raw = raw[size:]
	}
	return nil
}

// lookUp gives a host's virtual address as a pod of this namespace finds it,
// by full name or by one that its search path completes; "" if it is no name
// of the mesh.
func (t nameTable) lookUp(host, namespace string) string {
	if net.ParseIP(host) != nil {
		return host
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	for _, suffix := range []string{"", "." + namespace + ".svc.cluster.local", ".svc.cluster.local", ".cluster.local"} {
		if addresses := t[host+suffix]; len(addresses) > 0 {
			return addresses[0]
		}
	}
	return ""
}

// resolve turns host:port into an address on this machine: loopback addresses
// as they are, other names as Options.Resolve knows them.
func (p *Proxy) resolve(address string) (string, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() {
		return address, nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", fmt.Errorf("port of %q: %w", address, err)
	}
	if p.options.Resolve != nil {
		if found, ok := p.options.Resolve(host, uint32(port)); ok {
			return found, nil
		}
	}
	return "", &net.DNSError{Err: "neither a loopback address nor a name that is known here", Name: host, IsNotFound: true}
}

// listenerFor finds the listener that a connection to host:port meets: the one
// of the service's own address, else that of the port, else the one for
// everything else.
func (s *snapshot) listenerFor(address string, port uint32) *listener {
	find := func(is func(*listener) bool) *listener {
		if i := slices.IndexFunc(s.listeners, func(l *listener) bool { return !l.inbound && is(l) }); i >= 0 {
			return s.listeners[i]
		}
		return nil
	}
	if l := find(func(l *listener) bool { return address != "" && l.address == address && l.port == port }); l != nil {
		return l
	}
	if l := find(func(l *listener) bool { return l.address == anyAddress && l.port == port && l.name != virtualOutbound }); l != nil {
		return l
	}
	return find(func(l *listener) bool { return l.name == virtualOutbound })
}
