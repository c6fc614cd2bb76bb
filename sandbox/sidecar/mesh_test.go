package sidecar_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"sigs.k8s.io/yaml"

	"sluice.dev/sluice/sandbox/sidecar"
)

const (
	v1 = "outbound|9080|v1|reviews.bookinfo.svc.cluster.local"
	v3 = "outbound|9080|v3|reviews.bookinfo.svc.cluster.local"
)

// mesh is a discovery server of our own with a client's sidecar that obeys it
// and two versions of reviews behind sidecars of theirs.
type mesh struct {
	t       *testing.T
	cache   cache.SnapshotCache
	address string
	version int
	client  *sidecar.Proxy
	http    *http.Client
	apps    map[string]*app  // by version
	extra   []types.Resource // clusters
	more    []types.Resource // listeners
}

// app answers with its version, or as told.
type app struct {
	calls  atomic.Int64
	status atomic.Int64
	handle atomic.Pointer[http.HandlerFunc]
	proxy  *sidecar.Proxy
	last   atomic.Pointer[http.Request]
}

// oneID makes the cache serve the same to all proxies.
type oneID struct{}

func (oneID) ID(*corev3.Node) string { return "all" }

var pods atomic.Int64

func newMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{t: t, cache: cache.NewSnapshotCache(true, oneID{}, nil), apps: map[string]*app{}}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, server.NewServer(ctx, m.cache, nil))
	go g.Serve(l) //nolint:errcheck // ends with Stop
	t.Cleanup(func() { cancel(); g.Stop() })
	m.address = l.Addr().String()
	for _, version := range []string{"v1", "v3"} {
		m.apps[version] = m.startApp(version)
	}
	m.client = m.startProxy(sidecar.Options{Pod: "client-0", Workload: "client", Labels: map[string]string{"app": "client"}, EnvoyStats: true})
	m.http = m.client.Client()
	t.Cleanup(m.http.CloseIdleConnections)
	return m
}

func (m *mesh) startProxy(o sidecar.Options) *sidecar.Proxy {
	m.t.Helper()
	n := pods.Add(1)
	o.Discovery, o.Namespace = m.address, "bookinfo"
	o.Address = fmt.Sprintf("127.9.%d.%d", n/250, 1+n%250)
	p, err := sidecar.Start(m.t.Context(), o)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(p.Close)
	return p
}

func (m *mesh) startApp(version string) *app {
	m.t.Helper()
	a := &app{}
	a.status.Store(http.StatusOK)
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.calls.Add(1)
		a.last.Store(r)
		if h := a.handle.Load(); h != nil {
			(*h)(w, r)
			return
		}
		w.WriteHeader(int(a.status.Load()))
		_, _ = io.WriteString(w, version)
	}))
	m.t.Cleanup(backend.Close)
	a.proxy = m.startProxy(sidecar.Options{
		Pod: "reviews-" + version + "-0", Workload: "reviews-" + version, Application: strings.TrimPrefix(backend.URL, "http://"),
		Labels: map[string]string{"app": "reviews", "version": version},
	})
	return a
}

func (a *app) do(h http.HandlerFunc) { a.handle.Store(&h) }

// decode reads a proto from YAML, in which Envoy's own documentation is written.
func decode[T proto.Message](t *testing.T, into T, text string) T {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := protojson.Unmarshal(raw, into); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	return into
}

func (m *mesh) cluster(name, settings string) *clusterv3.Cluster {
	c := decode(m.t, &clusterv3.Cluster{}, "{type: EDS, connectTimeout: 1s, edsClusterConfig: {edsConfig: {ads: {}}}}")
	proto.Merge(c, decode(m.t, &clusterv3.Cluster{}, settings))
	c.Name = name
	meta, err := structpb.NewStruct(map[string]any{"services": []any{map[string]any{
		"host": "reviews.bookinfo.svc.cluster.local", "name": "reviews", "namespace": "bookinfo",
	}}})
	if err != nil {
		m.t.Fatal(err)
	}
	c.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"istio": meta}}
	return c
}

func (m *mesh) endpoints(cluster, version string, addresses ...string) *endpointv3.ClusterLoadAssignment {
	a := &endpointv3.ClusterLoadAssignment{ClusterName: cluster}
	locality := &endpointv3.LocalityLbEndpoints{}
	for _, address := range addresses {
		host, text, err := net.SplitHostPort(address)
		if err != nil {
			m.t.Fatal(err)
		}
		port, err := strconv.Atoi(text)
		if err != nil {
			m.t.Fatal(err)
		}
		e := decode(m.t, &endpointv3.LbEndpoint{}, fmt.Sprintf(`{endpoint: {address: {socketAddress: {address: %s, portValue: %d}}},
			metadata: {filterMetadata: {istio: {workload: "reviews-%s;bookinfo;reviews;%s;Kubernetes"}}}}`, host, port, version, version))
		locality.LbEndpoints = append(locality.LbEndpoints, e)
	}
	a.Endpoints = []*endpointv3.LocalityLbEndpoints{locality}
	return a
}

// config is what a test sends to the proxies.
type config struct {
	routes  string              // of the virtual host reviews, as YAML list
	cluster string              // settings of the clusters of both versions
	hosts   map[string][]string // endpoints by version, where not the apps
}

// apply sends a configuration and waits until the client obeys it.
func (m *mesh) apply(c config) {
	m.t.Helper()
	if c.cluster == "" {
		c.cluster = "{}"
	}
	m.version++
	marker := fmt.Sprintf("/marker-%d", m.version)
	table := decode(m.t, &routev3.RouteConfiguration{}, fmt.Sprintf(`
name: "9080"
ignorePortInHostMatching: true
virtualHosts:
- name: marker
  domains: [marker]
  routes: [{match: {path: %s}, directResponse: {status: 204}}]
- name: reviews.bookinfo.svc.cluster.local:9080
  domains: [reviews.bookinfo.svc.cluster.local, reviews, reviews.bookinfo]
  routes:
%s
- name: allow_any
  domains: ["*"]
  routes: [{name: allow_any, match: {prefix: /}, route: {cluster: PassthroughCluster, timeout: 0s}}]
`, marker, indent(c.routes)))
	resources := map[resource.Type][]types.Resource{
		resource.ListenerType: {m.listener("0.0.0.0_9080", 9080, "9080")},
		resource.RouteType:    {table},
	}
	for version, name := range map[string]string{"v1": v1, "v3": v3} {
		addresses, ok := c.hosts[version]
		if !ok {
			addresses = []string{m.apps[version].proxy.Inbound()}
		}
		resources[resource.ClusterType] = append(resources[resource.ClusterType], m.cluster(name, c.cluster))
		resources[resource.EndpointType] = append(resources[resource.EndpointType], m.endpoints(name, version, addresses...))
	}
	resources[resource.ClusterType] = append(resources[resource.ClusterType], m.extra...)
	resources[resource.ListenerType] = append(resources[resource.ListenerType], m.more...)
	snapshot, err := cache.NewSnapshot(strconv.Itoa(m.version), resources)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.cache.SetSnapshot(m.t.Context(), "all", snapshot); err != nil {
		m.t.Fatal(err)
	}
	m.eventually("the client to obey version "+strconv.Itoa(m.version), func() bool {
		status, _ := m.get("http://marker:9080" + marker)
		return status == http.StatusNoContent
	})
	ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
	defer cancel()
	if err := m.client.WaitReady(ctx); err != nil {
		m.t.Fatal(err)
	}
}

func indent(routes string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(routes), "\n", "\n  ")
}

func (m *mesh) listener(name string, port uint32, routes string) *listenerv3.Listener {
	manager := &hcmv3.HttpConnectionManager{RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
		RouteConfigName: routes,
		ConfigSource:    &corev3.ConfigSource{ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}},
	}}}
	packed, err := anypb.New(manager)
	if err != nil {
		m.t.Fatal(err)
	}
	l := decode(m.t, &listenerv3.Listener{}, fmt.Sprintf("{name: %s, address: {socketAddress: {address: 0.0.0.0, portValue: %d}}}", name, port))
	l.FilterChains = []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{
		Name: "envoy.filters.network.http_connection_manager", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed},
	}}}}
	return l
}

// get sends a request through the client's sidecar; headers are "name: value".
func (m *mesh) get(url string, headers ...string) (int, string) {
	m.t.Helper()
	r := m.do(url, headers...)
	return r.StatusCode, r.Header.Get("body")
}

// do is get with the answer's headers, among which the body stands as "body".
func (m *mesh) do(url string, headers ...string) *http.Response {
	m.t.Helper()
	r, err := http.NewRequestWithContext(m.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	response, err := m.http.Do(r)
	if err != nil {
		m.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(response.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	response.Header.Set("body", string(body))
	return response
}

func (m *mesh) eventually(what string, is func() bool) {
	m.t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			m.t.Fatalf("timed out waiting for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// series sums a proxy's metric over the series that bear these labels
// ("name=value").
func (m *mesh) series(p *sidecar.Proxy, metric string, labels ...string) float64 {
	m.t.Helper()
	response, err := http.Get("http://" + p.Metrics() + "/metrics")
	if err != nil {
		m.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(response.Body)
	if err != nil {
		m.t.Fatal(err)
	}
	sum := 0.0
	for _, s := range families[metric].GetMetric() {
		if hasLabels(s, labels) {
			sum += s.GetCounter().GetValue() + s.GetGauge().GetValue() + float64(s.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

func hasLabels(s *dto.Metric, want []string) bool {
	have := map[string]bool{}
	for _, l := range s.GetLabel() {
		have[l.GetName()+"="+l.GetValue()] = true
	}
	for _, w := range want {
		if !have[w] {
			return false
		}
	}
	return true
}

// reported waits until a proxy has counted n requests with these labels: it
// counts a request after its answer was sent.
func (m *mesh) reported(p *sidecar.Proxy, n float64, labels ...string) {
	m.t.Helper()
	m.counted(p, "istio_requests_total", n, labels...)
}

func (m *mesh) counted(p *sidecar.Proxy, metric string, n float64, labels ...string) {
	m.t.Helper()
	got := 0.0
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		if got = m.series(p, metric, labels...); got == n {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	m.t.Errorf("%s{%s} = %v, want %v", metric, strings.Join(labels, ","), got, n)
}
