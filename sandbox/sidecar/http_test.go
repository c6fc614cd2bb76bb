package sidecar_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"     // in routes that tests write
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3" // in clusters that tests write
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/sidecar"
)

const http2Cluster = `{typedExtensionProtocolOptions: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
  {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicitHttpConfig: {http2ProtocolOptions: {}}}}}`

func (m *mesh) startGRPC(version string) (*bookinfo.App, *sidecar.Proxy) {
	m.t.Helper()
	a, err := bookinfo.New(bookinfo.Options{Kind: "grpc-echo", Version: version, Pod: "grpc-0"})
	if err != nil {
		m.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = l.Close() })
	go a.ServeGRPC(l)
	return a, m.startProxy(sidecar.Options{
		Pod: "grpc-" + version + "-0", Workload: "grpc-" + version, Labels: map[string]string{"app": "grpc", "version": version}, Application: l.Addr().String(),
	})
}

func TestGRPC(t *testing.T) {
	m := newMesh(t)
	app, proxy := m.startGRPC("v1")
	conn, err := grpc.NewClient("passthrough:///reviews:9080", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(m.client.DialTCP))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // done
	say := func() (string, error) {
		answer := &wrapperspb.StringValue{}
		err := conn.Invoke(t.Context(), bookinfo.EchoMethod, wrapperspb.String("hello"), answer)
		return answer.GetValue(), err
	}
	grpcConfig := func(routes string) config {
		return config{routes: routes, cluster: http2Cluster, hosts: map[string][]string{"v1": {proxy.Inbound()}}}
	}
	m.apply(grpcConfig(toCluster(v1, "")))
	if got, err := say(); err != nil || got != "v1 hello" {
		t.Errorf("answer %q, %v", got, err)
	}
	for _, p := range []*sidecar.Proxy{m.client, proxy} {
		m.reported(p, 1, "request_protocol=grpc", "response_code=200", "grpc_response_status=0", "destination_version=v1")
	}
	app.Misbehave(bookinfo.Misbehaviour{ErrorRate: 1})
	if _, err := say(); status.Code(err) != codes.Unavailable {
		t.Errorf("a failing app: %v", err)
	}
	m.reported(m.client, 1, "request_protocol=grpc", "response_code=200", "grpc_response_status=14")
	app.Misbehave(bookinfo.Misbehaviour{})
	m.apply(grpcConfig(strings.Replace(fault(`abort: {grpcStatus: 8, percentage: {numerator: 100}}`, ""), "timeout: 0.1s", "timeout: 0s", 1)))
	if _, err := say(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("an aborted call: %v", err)
	}
	m.reported(m.client, 1, "response_code=200", "grpc_response_status=8", "response_flags=FI")
}

func TestPerDestinationRewrites(t *testing.T) {
	m := newMesh(t)
	m.apply(config{routes: `
- match: {prefix: /both}
  route:
    timeout: 0s
    hostRewriteLiteral: route.example.com
    weightedClusters: {clusters: [{name: "` + v1 + `", weight: 100, hostRewriteLiteral: destination.example.com,
      requestHeadersToAdd: [{header: {key: x-to, value: v1}, appendAction: OVERWRITE_IF_EXISTS_OR_ADD}], responseHeadersToRemove: [x-app]}]}
- match: {prefix: /bytes}
  directResponse: {status: 418, body: {inlineBytes: dGVh}}`})
	m.apps["v1"].do(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-App", "here") })
	response := m.do("http://reviews:9080/both")
	if got := m.apps["v1"].last.Load(); got.Host != "destination.example.com" || got.Header.Get("X-To") != "v1" {
		t.Errorf("upstream got host %s, headers %v", got.Host, got.Header)
	}
	if response.Header.Get("X-App") != "" {
		t.Errorf("answer has headers %v", response.Header)
	}
	if code, body := m.get("http://reviews:9080/bytes"); code != 418 || body != "tea" {
		t.Errorf("direct response: %d %q", code, body)
	}
}

func TestCORS(t *testing.T) {
	m := newMesh(t)
	m.apply(config{routes: `
- match: {prefix: /}
  route: {cluster: "` + v1 + `", timeout: 0s}
  typedPerFilterConfig: {envoy.filters.http.cors: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy,
    allowOriginStringMatch: [{exact: "https://a.com"}], allowMethods: "GET,PUT", exposeHeaders: x-seen, maxAge: "60", allowCredentials: true, forwardNotMatchingPreflights: true}}`})
	for _, c := range []struct {
		method, origin, name, want string
		calls                      int64
	}{
		{"GET", "https://a.com", "Access-Control-Allow-Origin", "https://a.com", 1},
		{"GET", "https://a.com", "Access-Control-Expose-Headers", "x-seen", 1},
		{"GET", "https://b.com", "Access-Control-Allow-Origin", "", 1},
		{"OPTIONS", "https://a.com", "Access-Control-Allow-Methods", "GET,PUT", 0},
		{"OPTIONS", "https://b.com", "Access-Control-Allow-Methods", "", 1},
	} {
		before := m.apps["v1"].calls.Load()
		r, err := http.NewRequestWithContext(t.Context(), c.method, all, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Origin", c.origin)
		r.Header.Set("Access-Control-Request-Method", "PUT")
		response, err := m.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if got := response.Header.Get(c.name); got != c.want || m.apps["v1"].calls.Load()-before != c.calls {
			t.Errorf("%s from %s: %s %q, want %q; %d calls", c.method, c.origin, c.name, got, c.want, m.apps["v1"].calls.Load()-before)
		}
	}
}

func TestHashing(t *testing.T) {
	m := newMesh(t)
	m.apply(config{
		routes:  toCluster(v1, `, hashPolicy: [{header: {headerName: x-user}}, {cookie: {name: seat, ttl: 10s}}]`),
		cluster: "{lbPolicy: RING_HASH}",
		hosts:   map[string][]string{"v1": {m.apps["v1"].proxy.Inbound(), m.apps["v3"].proxy.Inbound()}},
	})
	seen := map[string]bool{}
	for _, user := range strings.Fields("ann bob cid dan eve fay gus hal") {
		_, first := m.get(all, "x-user: "+user)
		seen[first] = true
		for range 5 {
			if _, next := m.get(all, "x-user: "+user, "cookie: seat=1"); first != next && next == "" {
				t.Errorf("%s was moved from %s to %s", user, first, next)
			}
		}
	}
	if len(seen) != 2 {
		t.Errorf("eight users are all at %v", seen)
	}
	response := m.do(all)
	cookie, _, _ := strings.Cut(response.Header.Get("Set-Cookie"), ";")
	if !strings.HasPrefix(cookie, "seat=") {
		t.Fatalf("no cookie in %v", response.Header)
	}
	for range 10 {
		if again := m.do(all, "cookie: "+cookie); again.Header.Get("body") != response.Header.Get("body") {
			t.Errorf("the cookie %s led to %s, then to %s", cookie, response.Header.Get("body"), again.Header.Get("body"))
		}
	}
}

// TestExternalNames: a cluster of DNS names leads where Options.Resolve says,
// and has no host where it says nothing.
func TestExternalNames(t *testing.T) {
	m := newMesh(t)
	outside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("outside " + r.Host)) }))
	defer outside.Close()
	client := m.startProxy(sidecar.Options{
		Pod: "other-0", Workload: "other",
		Resolve: func(host string, _ uint32) (string, bool) {
			return strings.TrimPrefix(outside.URL, "http://"), host == "api.partner.com"
		},
	})
	const external = "outbound|80||api.partner.com"
	for name, host := range map[string]string{external: "api.partner.com", "outbound|80||gone.partner.com": "gone.partner.com"} {
		c := m.cluster(name, `{type: STRICT_DNS, loadAssignment: {clusterName: x, endpoints: [{lbEndpoints: [{endpoint: {address: {socketAddress: {address: `+host+`, portValue: 80}}}}]}]}}`)
		c.EdsClusterConfig = nil
		m.extra = append(m.extra, c)
	}
	m.apply(config{routes: `
- {match: {prefix: /gone}, route: {cluster: "outbound|80||gone.partner.com", timeout: 0s}}
- {match: {prefix: /}, route: {cluster: "` + external + `", timeout: 0s}}`})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := client.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	m.http = client.Client()
	m.eventually("an answer from outside", func() bool { _, body := m.get(all); return body == "outside reviews:9080" })
	if code, body := m.get("http://reviews:9080/gone"); code != 503 || body != "no healthy upstream" {
		t.Errorf("a name that does not resolve: %d %q", code, body)
	}
	m.reported(client, 1, "response_flags=UH", "destination_workload=unknown")
	if code, body := m.get("http://api.partner.com/"); code != 200 || body != "outside api.partner.com" {
		t.Errorf("a name outside the registry: %d %q", code, body)
	}
}

// TestRegistryOnly: what no listener knows goes nowhere.
func TestRegistryOnly(t *testing.T) {
	m := newMesh(t)
	hole := m.cluster("BlackHoleCluster", "{type: STATIC}")
	hole.EdsClusterConfig, hole.Metadata = nil, nil
	m.extra = append(m.extra, hole)
	m.more = append(m.more, m.tcpListener("virtualOutbound", "0.0.0.0", 15001, "filterChains: [{"+tcpProxy("cluster: BlackHoleCluster")+"}]"))
	m.apply(config{routes: toCluster(v1, "")})
	if response, err := m.http.Get("http://elsewhere.example.com:81/"); err == nil {
		_ = response.Body.Close()
		t.Errorf("a host outside the registry answered %s", response.Status)
	}
	m.eventually("the closed connection's report", func() bool { // two where the client tries again
		return m.series(m.client, "istio_tcp_connections_closed_total", "destination_service_name=BlackHoleCluster", "response_flags=UH") > 0
	})
}

func TestServerNames(t *testing.T) {
	m := newMesh(t)
	one, three := m.startEcho("v1"), m.startEcho("v3")
	m.more = append(m.more, m.tcpListener("10.0.0.5_9000", "10.0.0.5", 9000, `filterChains: [
{filterChainMatch: {serverNames: [a.example.com]}, `+tcpProxy(`cluster: "`+v1+`"`)+`},
{filterChainMatch: {serverNames: ["*.example.com"]}, `+tcpProxy(`cluster: "`+v3+`"`)+`}]`))
	m.apply(config{routes: toCluster(v1, ""), hosts: map[string][]string{"v1": {inboundOf(one, one.Metrics())}, "v3": {inboundOf(three, three.Metrics())}}})
	for name, want := range map[string]string{"a.example.com": "v1", "b.example.com": "v3", "elsewhere.com": ""} {
		conn := m.dial(echoAddress)
		if got := helloTo(conn, name); got != want {
			t.Errorf("%s was served by %q, want %q", name, got, want)
		}
	}
}
