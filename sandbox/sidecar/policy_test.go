package sidecar_test

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3" // in listeners that tests write
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
)

const rules = `rules: {action: %s, policies: {p: {permissions: [{%s}], principals: [{%s}]}}}`

// inbound gives every proxy an inbound listener whose port of reviews v1 has
// these HTTP filters.
func (m *mesh) inbound(filters string) {
	m.t.Helper()
	m.more = append(m.more[:0], m.tcpListener("virtualInbound", "0.0.0.0", 15006, m.inboundChains(filters)))
	m.apply(config{routes: toCluster(v1, "")})
}

func (m *mesh) inboundChains(filters string) string {
	m.t.Helper()
	_, port, err := net.SplitHostPort(m.apps["v1"].proxy.Inbound())
	if err != nil {
		m.t.Fatal(err)
	}
	return `trafficDirection: INBOUND, filterChains: [
{filterChainMatch: {destinationPort: ` + port + `}, filters: [{name: hcm, typedConfig:
  {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, statPrefix: x, httpFilters: [` + filters + `]}}]}]`
}

func httpRBAC(action, permission, principal string) string {
	return `{name: rbac, typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, ` +
		fmt.Sprintf(rules, action, permission, principal) + `}}`
}

func TestAccessControl(t *testing.T) {
	m := newMesh(t)
	const client, anybody, anything = `authenticated: {principalName: {exact: "spiffe://cluster.local/ns/bookinfo/sa/default"}}`, "any: true", "any: true"
	for _, c := range []struct {
		action, permission, principal string
		want                          int
	}{
		{"ALLOW", anything, client, 200},
		{"DENY", anything, client, 403},
		{"ALLOW", anything, "notId: {" + client + "}", 403},
		{"ALLOW", "urlPath: {path: {prefix: /reviews}}", anybody, 200},
		{"ALLOW", "urlPath: {path: {prefix: /elsewhere}}", anybody, 403},
		{"DENY", `header: {name: ":method", stringMatch: {exact: POST}}`, anybody, 200},
		{"ALLOW", anything, "directRemoteIp: {addressPrefix: 127.0.0.0, prefixLen: 8}", 200},
		{"ALLOW", anything, "directRemoteIp: {addressPrefix: 10.0.0.0, prefixLen: 8}", 403},
		{"ALLOW", "andRules: {rules: [{any: true}, {notRule: {any: true}}]}", anybody, 403},
	} {
		m.inbound(httpRBAC(c.action, c.permission, c.principal))
		m.eventually(fmt.Sprintf("%d by %+v", c.want, c), func() bool { got, _ := m.get(all); return got == c.want })
	}
	m.more[0] = m.tcpListener("virtualInbound", "0.0.0.0", 15006, strings.Replace(m.inboundChains(httpRBAC("DENY", anything, anybody)),
		"filterChainMatch: {", "transportSocket: {name: tls}, filterChainMatch: {transportProtocol: tls, ", 1))
	m.apply(config{routes: toCluster(v1, "")})
	m.eventually("a refusal where only mutual TLS is let in", func() bool { got, _ := m.get(all); return got == 403 })

	m.inbound(httpRBAC("ALLOW", anything, "notId: {"+client+"}"))
	m.eventually("a refusal", func() bool { _, body := m.get(all); return body == "RBAC: access denied" })
	if n := m.series(m.apps["v1"].proxy, "istio_requests_total", "reporter=destination", "response_code=403", "source_workload=client"); n == 0 {
		t.Error("refusals are not reported")
	}
}

func TestRateLimit(t *testing.T) {
	m := newMesh(t)
	m.inbound(`{name: limit, typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit, statPrefix: x,
  tokenBucket: {maxTokens: 3, tokensPerFill: 3, fillInterval: 600s},
  filterEnabled: {defaultValue: {numerator: 100}}, filterEnforced: {defaultValue: {numerator: 100}}}}`)
	codes := map[int]int{}
	m.eventually("the limit", func() bool { // after what came before it was there
		code, _ := m.get(all)
		codes[code]++
		return code == http.StatusTooManyRequests
	})
	for range 5 {
		code, _ := m.get(all)
		codes[code]++
	}
	if codes[429] != 6 || codes[200] < 3 {
		t.Errorf("answers %v", codes)
	}
	m.reported(m.apps["v1"].proxy, 6, "response_flags=RL", "response_code=429")
}

// TestRefusals: what cannot be obeyed is not taken over.
func TestRefusals(t *testing.T) {
	m := newMesh(t)
	m.apply(config{routes: toCluster(v1, "")})
	m.more = append(m.more, m.tcpListener("10.0.0.5_9000", "10.0.0.5", 9000, "filterChains: [{filters: []}]"))
	m.apply(config{routes: toCluster(v3, "")}) // routes are taken over although the listeners are refused
	if _, body := m.get(all); body != "v3" {
		t.Errorf("served by %q, want v3", body)
	}
}
