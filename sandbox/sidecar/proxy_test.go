package sidecar_test

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/sidecar"
)

const all = "http://reviews:9080/reviews/0"

func toCluster(cluster, settings string) string {
	return `- {match: {prefix: /}, route: {cluster: "` + cluster + `", timeout: 0s` + settings + `}}`
}

func TestWeights(t *testing.T) {
	m := newMesh(t)
	m.apply(config{routes: `
- match: {prefix: /}
  route: {timeout: 0s, weightedClusters: {clusters: [{name: "` + v1 + `", weight: 90}, {name: "` + v3 + `", weight: 10}]}}`})
	counts := map[string]int{}
	for range 1000 {
		status, body := m.get(all)
		if status != http.StatusOK {
			t.Fatalf("status %d: %s", status, body)
		}
		counts[body]++
	}
	if n := counts["v3"]; n < 60 || n > 145 { // 4 standard deviations
		t.Errorf("v3 got %d of 1000 requests, want about 100", n)
	}
	m.reported(m.client, float64(counts["v3"]), "reporter=source", "destination_version=v3", "response_code=200", "response_flags=-")
	m.reported(m.apps["v3"].proxy, float64(counts["v3"]), "reporter=destination", "source_workload=client")
}

func TestMatching(t *testing.T) {
	m := newMesh(t)
	m.apply(config{routes: `
- {match: {path: /exact, caseSensitive: true}, directResponse: {status: 201}}
- {match: {prefix: /FOLD, caseSensitive: false}, directResponse: {status: 202}}
- {match: {safeRegex: {regex: "/r[0-9]+"}}, directResponse: {status: 203}}
- {match: {pathSeparatedPrefix: /sep}, directResponse: {status: 204}}
- {match: {prefix: /, headers: [{name: end-user, stringMatch: {exact: jason}}]}, directResponse: {status: 211}}
- {match: {prefix: /, headers: [{name: user-agent, stringMatch: {safeRegex: {regex: ".*Safari.*"}}}]}, directResponse: {status: 212}}
- {match: {prefix: /, headers: [{name: x-p, stringMatch: {prefix: a}}, {name: x-s, stringMatch: {suffix: z}}]}, directResponse: {status: 213}}
- {match: {prefix: /, headers: [{name: x-here, presentMatch: true}]}, directResponse: {status: 214}}
- {match: {prefix: /not, headers: [{name: x-not, stringMatch: {exact: "no"}, invertMatch: true, treatMissingHeaderAsEmpty: true}]}, directResponse: {status: 215}}
- {match: {prefix: /q, queryParameters: [{name: a, stringMatch: {exact: "1"}}]}, directResponse: {status: 216}}
- {match: {prefix: /, headers: [{name: ":method", stringMatch: {exact: PUT}}]}, directResponse: {status: 217}}
- {match: {prefix: /moved}, redirect: {hostRedirect: other, pathRedirect: /new, responseCode: FOUND}}`})
	for _, c := range []struct {
		path    string
		headers []string
		want    int
	}{
		{"/exact", nil, 201},
		{"/EXACT", nil, 404},
		{"/exact?x=y", nil, 201},
		{"/fold/er", nil, 202},
		{"/r12", nil, 203},
		{"/r12x", nil, 404},
		{"/sep/a", nil, 204},
		{"/separate", nil, 404},
		{"/", []string{"end-user: jason"}, 211},
		{"/", []string{"end-user: jasonx"}, 404},
		{"/", []string{"user-agent: Mozilla Safari 5"}, 212},
		{"/", []string{"x-p: ab", "x-s: yz"}, 213},
		{"/", []string{"x-p: ab"}, 404},
		{"/", []string{"x-here: "}, 214},
		{"/not", nil, 215},
		{"/not", []string{"x-not: no"}, 404},
		{"/q?a=1", nil, 216},
		{"/q?a=2", nil, 404},
		{"/moved", nil, 302},
	} {
		if got, _ := m.get("http://reviews:9080"+c.path, c.headers...); got != c.want {
			t.Errorf("GET %s %v: status %d, want %d", c.path, c.headers, got, c.want)
		}
	}
	m.reported(m.client, 7, "response_code=404", "response_flags=NR", "destination_workload=unknown")
	if to := m.do("http://reviews:9080/moved").Header.Get("Location"); to != "http://other/new" {
		t.Errorf("redirected to %q", to)
	}
	for _, host := range []string{"reviews.bookinfo:9080", "reviews.bookinfo.svc.cluster.local:9080"} {
		if got, _ := m.get("http://" + host + "/exact"); got != 201 {
			t.Errorf("host %s: status %d, want 201", host, got)
		}
	}
}

func TestRewritesAndHeaders(t *testing.T) {
	m := newMesh(t)
	m.apply(config{routes: `
- match: {prefix: /pre}
  route: {cluster: "` + v1 + `", timeout: 0s, prefixRewrite: /post, hostRewriteLiteral: other.example.com}
  requestHeadersToAdd: [{header: {key: x-set, value: new}, appendAction: OVERWRITE_IF_EXISTS_OR_ADD}, {header: {key: x-add, value: more}}]
  requestHeadersToRemove: [x-gone]
  responseHeadersToAdd: [{header: {key: x-answer, value: "yes"}}]
- match: {prefix: /regex}
  route: {cluster: "` + v1 + `", timeout: 0s, regexRewrite: {pattern: {regex: "^/regex/(.*)$"}, substitution: "/found/\\1"}}`})
	response := m.do("http://reviews:9080/pre/x?q=1", "x-set: old", "x-add: one", "x-gone: here")
	got := m.apps["v1"].last.Load()
	if got.URL.RequestURI() != "/post/x?q=1" || got.Host != "other.example.com" {
		t.Errorf("upstream got %s at %s", got.URL.RequestURI(), got.Host)
	}
	if h := got.Header; h.Get("X-Set") != "new" || strings.Join(h.Values("X-Add"), ",") != "one,more" || h.Get("X-Gone") != "" {
		t.Errorf("upstream got headers %v", h)
	}
	for _, h := range []http.Header{got.Header, response.Header} {
		if h.Get("X-Envoy-Peer-Metadata") != "" {
			t.Errorf("an application sees the proxies' metadata: %v", h)
		}
	}
	if response.Header.Get("X-Answer") != "yes" {
		t.Errorf("answer has headers %v", response.Header)
	}
	m.get("http://reviews:9080/regex/a")
	if got := m.apps["v1"].last.Load().URL.Path; got != "/found/a" {
		t.Errorf("regex rewrite gave %s", got)
	}
}

func TestMirrorIsReportedByTheDestinationOnly(t *testing.T) {
	m := newMesh(t)
	m.apply(config{routes: toCluster(v1, `, requestMirrorPolicies: [{cluster: "`+v3+`"}]`)})
	for range 20 {
		if _, body := m.get(all, "x-tag: kept"); body != "v1" {
			t.Fatalf("a mirrored route answered %q", body)
		}
	}
	m.reported(m.apps["v3"].proxy, 20, "reporter=destination", "source_workload=client", "destination_version=v3")
	m.reported(m.client, 20, "reporter=source", "destination_version=v1")
	m.reported(m.client, 0, "reporter=source", "destination_version=v3")
	if r := m.apps["v3"].last.Load(); r.Host != "reviews-shadow:9080" || r.Header.Get("X-Tag") != "kept" {
		t.Errorf("mirrored request to %s with %v", r.Host, r.Header)
	}

	m.apply(config{routes: toCluster(v1, `, requestMirrorPolicies: [{cluster: "`+v3+`", disableShadowHostSuffixAppend: true,
    runtimeFraction: {defaultValue: {numerator: 250000, denominator: MILLION}}}]`)})
	before := m.apps["v3"].calls.Load()
	for range 400 {
		m.get(all)
	}
	m.eventually("mirrored requests", func() bool { return m.apps["v3"].calls.Load()-before > 50 })
	if n := m.apps["v3"].calls.Load() - before; n > 150 {
		t.Errorf("a quarter of 400 mirrored: %d", n)
	}
	if r := m.apps["v3"].last.Load(); r.Host != "reviews:9080" {
		t.Errorf("mirrored request to %s", r.Host)
	}
}

func fault(spec, settings string) string {
	return `- match: {prefix: /}
  route: {cluster: "` + v1 + `", timeout: 0.1s` + settings + `}
  typedPerFilterConfig: {envoy.filters.http.fault: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, ` + spec + `}}`
}

func TestFaults(t *testing.T) {
	m := newMesh(t)
	everyOne := "percentage: {numerator: 100}"
	m.apply(config{routes: fault(`delay: {fixedDelay: 0.3s, `+everyOne+`}`, "")})
	began := time.Now()
	if status, body := m.get(all); status != http.StatusOK || time.Since(began) < 300*time.Millisecond {
		t.Errorf("delayed answer: %d %s after %s; the delay is outside the route's timeout", status, body, time.Since(began))
	}
	m.reported(m.client, 1, "response_code=200", "response_flags=DI")

	m.apply(config{routes: fault(`abort: {httpStatus: 503, `+everyOne+`}`, ", retryPolicy: {retryOn: 5xx, numRetries: 5}")})
	calls := m.apps["v1"].calls.Load()
	if status, _ := m.get(all); status != http.StatusServiceUnavailable {
		t.Errorf("aborted answer: %d", status)
	}
	if m.apps["v1"].calls.Load() != calls {
		t.Error("an aborted request reached the upstream")
	}
	m.reported(m.client, 1, "response_code=503", "response_flags=FI", "destination_workload=unknown",
		"destination_service=reviews.bookinfo.svc.cluster.local", "destination_service_name=reviews")

	m.apply(config{routes: fault(`delay: {fixedDelay: 0.01s, `+everyOne+`}, abort: {httpStatus: 500, `+everyOne+`}`, "")})
	m.get(all)
	m.reported(m.client, 1, "response_code=500", "response_flags=DI,FI")

	m.apply(config{routes: fault(`abort: {grpcStatus: 14, `+everyOne+`}`, "")})
	if r := m.do(all); r.StatusCode != http.StatusOK || r.Header.Get("Grpc-Status") != "14" {
		t.Errorf("gRPC abort: %d %v", r.StatusCode, r.Header)
	}
	m.reported(m.client, 1, "response_code=200", "grpc_response_status=14", "response_flags=FI")
}

func TestTimeout(t *testing.T) {
	m := newMesh(t)
	m.apps["v1"].do(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	m.apply(config{routes: `- {match: {prefix: /}, route: {cluster: "` + v1 + `", timeout: 0.1s}}`})
	if status, body := m.get(all); status != http.StatusGatewayTimeout || body != "upstream request timeout" {
		t.Errorf("timed out: %d %q", status, body)
	}
	m.reported(m.client, 1, "response_code=504", "response_flags=UT", "destination_workload=reviews-v1",
		"destination_canonical_revision=v1", "destination_version=unknown")
	m.reported(m.apps["v1"].proxy, 1, "reporter=destination", "response_flags=DC", "response_code=0")
}

func TestRetries(t *testing.T) {
	m := newMesh(t)
	v1App := m.apps["v1"]
	failing := func(n int64) {
		first := v1App.calls.Load()
		v1App.do(func(w http.ResponseWriter, _ *http.Request) {
			if v1App.calls.Load() <= first+n {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
	}
	m.apply(config{routes: toCluster(v1, ", retryPolicy: {retryOn: 5xx, numRetries: 2, perTryTimeout: 5s}")})
	failing(2)
	if status, _ := m.get(all); status != http.StatusOK {
		t.Errorf("two failures and two retries: %d", status)
	}
	m.reported(m.client, 1, "response_code=200", "response_flags=-")
	m.reported(v1App.proxy, 3)
	failing(99)
	if status, _ := m.get(all); status != http.StatusInternalServerError {
		t.Errorf("three failures and two retries: %d", status)
	}
	m.reported(m.client, 1, "response_code=500", "response_flags=URX", "destination_version=v1")

	v1App.do(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	m.apply(config{routes: toCluster(v1, ", retryPolicy: {retryOn: gateway-error, numRetries: 1, perTryTimeout: 0.05s}")})
	if status, _ := m.get(all); status != http.StatusGatewayTimeout {
		t.Errorf("two tries that time out: %d", status)
	}
	m.reported(m.client, 1, "response_code=504", "response_flags=UT,URX")

	m.apply(config{
		routes: toCluster(v1, ", retryPolicy: {retryOn: connect-failure, numRetries: 1}"),
		hosts:  map[string][]string{"v1": {closedPort(t)}},
	})
	if status, _ := m.get(all); status != http.StatusServiceUnavailable {
		t.Errorf("nobody listens: %d", status)
	}
	m.reported(m.client, 1, "response_code=503", "response_flags=UF,URX", "destination_workload=reviews-v1")
}

// TestRetryAvoidsHostsThatFailed: with the previous_hosts predicate one dead
// host of two is never seen by the user.
func TestRetryAvoidsHostsThatFailed(t *testing.T) {
	m := newMesh(t)
	m.apply(config{
		routes: toCluster(v1, `, retryPolicy: {retryOn: connect-failure, numRetries: 1,
    retryHostPredicate: [{name: envoy.retry_host_predicates.previous_hosts}]}`),
		hosts: map[string][]string{"v1": {closedPort(t), m.apps["v1"].proxy.Inbound()}},
	})
	for range 50 {
		if status, body := m.get(all); status != http.StatusOK {
			t.Fatalf("status %d: %s", status, body)
		}
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // it is to be closed
	return l.Addr().String()
}

func TestOverflow(t *testing.T) {
	m := newMesh(t)
	release := make(chan struct{})
	m.apps["v3"].do(func(http.ResponseWriter, *http.Request) { <-release })
	m.apply(config{
		routes:  toCluster(v3, ", retryPolicy: {retryOn: 5xx, numRetries: 3}"),
		cluster: `{circuitBreakers: {thresholds: [{maxConnections: 1, maxPendingRequests: 1}]}}`,
	})
	var waiting sync.WaitGroup
	request := func() { waiting.Go(func() { m.get(all) }) }
	request() // holds the connection
	m.eventually("the first request upstream", func() bool { return m.apps["v3"].calls.Load() == 1 })
	for range 5 { // one of these is pending, the others overflow
		request()
	}
	m.reported(m.client, 4, "response_code=503", "response_flags=UO", "destination_workload=reviews-v3", "destination_canonical_revision=v3")
	if n := m.series(m.client, "envoy_cluster_upstream_rq_pending_overflow", "cluster_name="+v3); n != 4 {
		t.Errorf("envoy_cluster_upstream_rq_pending_overflow = %v, want 4", n)
	}
	close(release)
	waiting.Wait()
	m.reported(m.client, 2, "response_code=200", "response_flags=-")
	m.reported(m.apps["v3"].proxy, 2) // what overflowed was never retried
	if status, _ := m.get(all); status != http.StatusOK {
		t.Errorf("after the overflow: %d", status)
	}
}

func TestEjection(t *testing.T) {
	m := newMesh(t)
	m.apps["v3"].status.Store(http.StatusInternalServerError)
	policy := func(base string) config {
		return config{routes: toCluster(v3, ""), cluster: `{commonLbConfig: {healthyPanicThreshold: {}},
			outlierDetection: {consecutive5xx: 2, interval: 0.1s, baseEjectionTime: ` + base + `, maxEjectionPercent: 100}}`}
	}
	m.apply(policy("180s"))
	for i, want := range []int{500, 500, 503, 503} {
		if got, _ := m.get(all); got != want {
			t.Errorf("request %d: status %d, want %d", i, got, want)
		}
	}
	m.reported(m.client, 2, "response_flags=UH", "response_code=503", "destination_workload=unknown", "destination_version=unknown",
		"destination_service=reviews.bookinfo.svc.cluster.local")
	if n := m.series(m.client, "envoy_cluster_outlier_detection_ejections_active", "cluster_name="+v3); n != 1 {
		t.Errorf("envoy_cluster_outlier_detection_ejections_active = %v, want 1", n)
	}

	m.apps["v3"].status.Store(http.StatusOK)
	m.apply(policy("0.2s")) // a changed cluster begins without ejections, as Envoy's do
	m.apps["v3"].status.Store(http.StatusInternalServerError)
	m.get(all)
	m.get(all)
	if got, _ := m.get(all); got != http.StatusServiceUnavailable {
		t.Errorf("ejected again: %d", got)
	}
	m.apps["v3"].status.Store(http.StatusOK)
	m.eventually("the host to be back", func() bool { got, _ := m.get(all); return got == http.StatusOK })
}

func TestUnknownTargets(t *testing.T) {
	m := newMesh(t)
	m.apply(config{routes: toCluster("outbound|9080|v9|reviews.bookinfo.svc.cluster.local", ""), hosts: map[string][]string{"v3": nil}})
	if status, _ := m.get(all); status != http.StatusServiceUnavailable {
		t.Errorf("unknown cluster: %d", status)
	}
	m.reported(m.client, 1, "response_flags=NC", "response_code=503")
	m.apply(config{routes: toCluster(v3, ""), hosts: map[string][]string{"v3": nil}})
	if status, body := m.get(all); status != http.StatusServiceUnavailable || body != "no healthy upstream" {
		t.Errorf("no endpoints: %d %s", status, body)
	}
	m.reported(m.client, 1, "response_flags=UH")
	if status, _ := m.get("http://no.such.host.example:9080/"); status != http.StatusServiceUnavailable {
		t.Errorf("unknown host: %d, want a refusal to leave the machine", status)
	}
	if status, body := m.get("http://" + m.apps["v1"].proxy.Inbound() + "/"); status != http.StatusOK || body != "v1" {
		t.Errorf("loopback address without a listener: %d %s", status, body)
	}
}

// TestLabels looks at every label of one request on both sides.
func TestLabels(t *testing.T) {
	m := newMesh(t)
	_, port, err := net.SplitHostPort(m.apps["v3"].proxy.Inbound())
	if err != nil {
		t.Fatal(err)
	}
	inbound := m.cluster("inbound|"+port+"||", "{}")
	inbound.EdsClusterConfig, inbound.ClusterDiscoveryType = nil, nil
	m.extra = append(m.extra, inbound)
	m.apply(config{routes: toCluster(v3, "")})
	m.eventually("the inbound cluster", func() bool {
		m.get(all)
		return m.series(m.apps["v3"].proxy, "istio_requests_total", "destination_service_name=reviews") > 0
	})
	common := []string{
		"source_workload=client", "source_workload_namespace=bookinfo", "source_app=client", "source_version=unknown",
		"source_canonical_service=client", "source_canonical_revision=latest", "source_principal=unknown", "source_cluster=Kubernetes",
		"destination_workload=reviews-v3", "destination_workload_namespace=bookinfo", "destination_app=reviews", "destination_version=v3",
		"destination_canonical_service=reviews", "destination_canonical_revision=v3", "destination_principal=unknown", "destination_cluster=Kubernetes",
		"destination_service=reviews.bookinfo.svc.cluster.local", "destination_service_name=reviews", "destination_service_namespace=bookinfo",
		"request_protocol=http", "response_code=200", "response_flags=-", "grpc_response_status=",
	}
	for reporter, p := range map[string]*sidecar.Proxy{"source": m.client, "destination": m.apps["v3"].proxy} {
		policy := map[string]string{"source": "unknown", "destination": "none"}[reporter]
		labels := append([]string{"reporter=" + reporter, "connection_security_policy=" + policy}, common...)
		if m.series(p, "istio_requests_total", labels...) == 0 {
			t.Errorf("no series of reporter %s has all of %v", reporter, labels)
		}
		if m.series(p, "istio_request_duration_milliseconds", labels...) == 0 {
			t.Errorf("no durations of reporter %s", reporter)
		}
	}
}

// TestReadiness: a proxy is ready once it has a whole configuration, not before.
func TestReadiness(t *testing.T) {
	m := newMesh(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := m.client.WaitReady(ctx); err == nil {
		t.Error("ready without any configuration")
	}
	m.apply(config{routes: toCluster(v1, "")})
}

func TestRouter(t *testing.T) {
	m := newMesh(t)
	m.apply(config{routes: toCluster(v1, "")})
	gateway := m.startProxy(sidecar.Options{Kind: sidecar.Router, Pod: "gateway-0", Workload: "gateway", Ports: []uint32{9080, 80}})
	if err := gateway.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+gateway.Gateway(9080)+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Host = "reviews"
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // its body is of no interest
	if response.StatusCode != http.StatusOK {
		t.Errorf("through the gateway: %s", response.Status)
	}
	m.reported(gateway, 1, "source_workload=gateway", "destination_version=v1")
	other, err := http.Get("http://" + gateway.Gateway(80) + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Body.Close() //nolint:errcheck // its body is of no interest
	if other.StatusCode != http.StatusNotFound {
		t.Errorf("a port without a listener: %s", other.Status)
	}
}
