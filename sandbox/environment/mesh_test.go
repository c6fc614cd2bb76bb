package environment_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/environment"
	"sluice.dev/sluice/sandbox/load"
)

const subsets = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
  - {name: v3, labels: {version: v3}}
`

// routes makes a VirtualService of a host from its http routes, a YAML list.
func routes(host, http string) string {
	return "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: " + host + "}\nspec:\n  hosts: [" + host + "]\n  http:\n" +
		"  " + strings.ReplaceAll(strings.TrimSpace(http), "\n", "\n  ") + "\n"
}

const (
	toV1    = "- route: [{destination: {host: reviews, subset: v1}}]"
	toV2    = "- route: [{destination: {host: reviews, subset: v2}}]"
	toV3    = "- route: [{destination: {host: reviews, subset: v3}}]"
	jason   = "match: [{headers: {end-user: {exact: jason}}}]"
	asJason = "end-user: jason"
)

func TestShift(t *testing.T) {
	n := deploy(t, "shift", environment.Options{})
	n.apply(subsets + "---\n" + routes("reviews", toV1))
	n.servedOnly("v1")
	n.apply(routes("reviews", `
- name: primary
  route:
  - {destination: {host: reviews, subset: v1}, weight: 50}
  - {destination: {host: reviews, subset: v3}, weight: 50}`))
	n.eventually("both versions", func() bool { return n.page().Reviews.Version == "v3" })
	counts := n.load(load.Options{Rate: 100, Duration: 3 * time.Second, User: "jason", UserShare: 0.2})
	t.Log(counts)
	if v3 := counts.ByVersion["v3"]; v3*10 < counts.Total*3 || v3*10 > counts.Total*7 || counts.Failed > 0 {
		t.Errorf("half of the pages should show v3 and none fail: %+v", counts)
	}
	if share := counts.ByUser["jason"].Total; share < counts.Total/5-1 || share > counts.Total/5+1 {
		t.Errorf("a fifth of the pages should be jason's: %+v", counts)
	}
	n.measured(float64(counts.ByVersion["v3"]), `reporter="source",source_workload="productpage-v1",destination_service="reviews.`+n.Namespace+
		`.svc.cluster.local",destination_version="v3",destination_workload="reviews-v3",response_code="200",response_flags="-"`)
	n.measured(float64(counts.ByVersion["v3"]), `reporter="destination",source_app="productpage",destination_service_name="reviews",destination_workload="reviews-v3"`)
	n.apply(routes("reviews", toV3))
	n.servedOnly("v3")
}

func TestHeaderAndSourceLabels(t *testing.T) {
	n := deploy(t, "match", environment.Options{})
	n.apply(subsets + "---\n" + routes("reviews", "- "+jason+"\n  "+toV2[2:]+"\n"+toV1))
	n.servedOnly("v2", asJason)
	n.servedOnly("v1")
	n.apply(routes("reviews", "- match: [{sourceLabels: {app: productpage}}]\n  "+toV3[2:]+"\n"+toV1))
	n.servedOnly("v3")
	if _, body := n.get("http://reviews:9080/reviews/0"); !strings.Contains(body, `"version":"v1"`) {
		t.Errorf("the client is no productpage, yet it got %s", body)
	}
}

func TestMirror(t *testing.T) {
	n := deploy(t, "mirror", environment.Options{})
	n.apply(subsets + "---\n" + routes("reviews", toV1+"\n  mirrors: [{destination: {host: reviews, subset: v3}, percentage: {value: 100}}]"))
	n.servedOnly("v1")
	const mirrored = `reporter="destination",destination_workload="reviews-v3",destination_service_name="reviews",source_workload="productpage-v1"`
	n.eventually("mirrored requests", func() bool { n.page(); return n.query(mirrored) > 0 })
	n.Misbehave("reviews-v3", bookinfo.Misbehaviour{ErrorRate: 1})
	n.measured(10, `reporter="source",source_workload="productpage-v1",destination_workload="reviews-v1"`) // later than what came before the mirror
	before := n.query(`reporter="source",destination_workload="reviews-v3"`)
	counts := n.load(load.Options{Rate: 50, Duration: time.Second})
	if counts.Failed > 0 || counts.ByVersion["v1"] != counts.Total {
		t.Errorf("a mirror's failures reached users: %+v", counts)
	}
	n.measured(float64(counts.Total), mirrored+`,response_code="500"`)
	if after := n.query(`reporter="source",destination_workload="reviews-v3"`); after != before {
		t.Errorf("the source reported mirrored requests: %v before, %v after", before, after)
	}
}

// TestFaults walks through the tutorials' fault tests: ratings slow for jason
// lets his page miss its reviews; ratings aborted leaves reviews without stars.
func TestFaults(t *testing.T) {
	n := deploy(t, "faults", environment.Options{})
	const ratings = "route: [{destination: {host: ratings}}]"
	n.apply(subsets + "---\n" + routes("reviews", toV2))
	n.servedOnly("v2")
	n.apply(routes("ratings", "- "+jason+"\n  fault: {abort: {percentage: {value: 100}, httpStatus: 503}}\n  "+ratings+"\n- "+ratings))
	n.eventually("no stars for jason", func() bool { return n.page(asJason).Reviews.Ratings == bookinfo.RatingsUnavailable })
	if p := n.page(); p.Reviews.Ratings != bookinfo.RatingsAvailable {
		t.Errorf("others see %+v", p)
	}
	n.measured(1, `reporter="source",source_workload="reviews-v2",destination_service_name="ratings",response_code="503",response_flags="FI",destination_workload="unknown"`)

	n.apply(routes("ratings", "- "+jason+"\n  fault: {delay: {percentage: {value: 100}, fixedDelay: 7s}}\n  "+ratings+"\n- "+ratings))
	var took time.Duration
	n.eventually("no reviews for jason", func() bool {
		began := time.Now()
		page := n.page(asJason)
		took = time.Since(began)
		return page.Reviews.Status == 0
	})
	if took < 6*time.Second || took > 7*time.Second {
		t.Errorf("two tries of 3s took %s", took)
	}
	if !n.page().Complete() {
		t.Error("others are hit by jason's fault")
	}

	n.apply(routes("ratings", "- fault: {delay: {percentage: {value: 100}, fixedDelay: 2s}}\n  "+ratings))
	n.apply(routes("reviews", toV2+"\n  timeout: 0.5s"))
	n.eventually("timeouts", func() bool {
		status, body := n.get("http://reviews:9080/reviews/0")
		return status == http.StatusGatewayTimeout && body == "upstream request timeout"
	})
	n.measured(1, `reporter="source",destination_service_name="reviews",response_code="504",response_flags="UT",destination_workload="reviews-v2"`)
}

func TestCircuitBreaker(t *testing.T) {
	n := deploy(t, "breaker", environment.Options{EnvoyStats: true})
	n.apply(strings.Replace(subsets, "  subsets:", `  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}
  subsets:`, 1) + "---\n" + routes("reviews", toV3))
	n.servedOnly("v3")
	overflows := `reporter="source",destination_workload="reviews-v3",destination_canonical_revision="v3",response_code="503",response_flags="UO"`
	n.eventually("overflows under 3 clients", func() bool {
		var clients sync.WaitGroup
		for range 3 {
			clients.Go(func() {
				for range 20 {
					n.get("http://reviews:9080/reviews/0")
				}
			})
		}
		clients.Wait()
		return n.query(overflows) > 0
	})
}

func TestEjection(t *testing.T) {
	n := deploy(t, "ejection", environment.Options{})
	n.apply(strings.Replace(subsets, "  subsets:", `  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 1, interval: 1s, baseEjectionTime: 3m, maxEjectionPercent: 100}
  subsets:`, 1) + "---\n" + routes("reviews", toV3))
	n.servedOnly("v3")
	n.Misbehave("reviews-v3", bookinfo.Misbehaviour{ErrorRate: 1})
	for range 10 {
		n.get("http://reviews:9080/reviews/0")
	}
	n.measured(1, `reporter="source",destination_version="v3",response_code="500"`)
	n.measured(9, `reporter="source",destination_service_name="reviews",destination_workload="unknown",destination_version="unknown",response_code="503",response_flags="UH"`)
}

// TestDiscoveryRestart: proxies serve without istiod and follow it again.
func TestDiscoveryRestart(t *testing.T) {
	n := deploy(t, "restart", environment.Options{})
	n.apply(subsets + "---\n" + routes("reviews", toV1))
	n.servedOnly("v1")
	g, err := load.Start(t.Context(), load.Options{URL: n.ProductPage, Client: n.client, Rate: 50})
	if err != nil {
		t.Fatal(err)
	}
	if err := plane.Discovery.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.apply(routes("reviews", toV3))
	n.servedOnly("v3")
	if counts := g.Stop(); counts.Failed > 0 {
		t.Errorf("requests failed while istiod restarted: %+v", counts)
	}
}

func TestGateway(t *testing.T) {
	n := deploy(t, "gateway", environment.Options{Gateway: true})
	n.apply(subsets + "---\n" + routes("reviews", toV1))
	n.servedOnly("v1")
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	for path, want := range map[string]int{
		"/productpage": 200, "/static/style.css": 200, "/login": 302, "/logout": 302, "/api/v1/products": 200, "/elsewhere": 404,
	} {
		response, err := client.Get(n.IngressURL() + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("GET %s: %d, want %d", path, response.StatusCode, want)
		}
	}
	n.measured(4, `reporter="destination",source_workload="istio-ingressgateway",destination_workload="productpage-v1"`)
}
