package capabilities

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// seenBy tells which requests an app of the sandbox got, by method and host; in life that is in its log.
func (s *stage) seenBy(t *testing.T, target string) map[string]int {
	t.Helper()
	a := s.get(t, target+"/seen")
	seen := map[string]int{}
	if err := json.Unmarshal([]byte(a.body), &seen); err != nil {
		t.Fatalf("%s/seen: status %d, body %.200s: %v", target, a.status, a.body, err)
	}
	return seen
}

// post sends a body from a client pod.
func (s *stage) post(t *testing.T, target, body string) {
	t.Helper()
	response, err := s.Client().Post(target, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %s, %v", target, response.Status, err)
	}
}

// checkCopies: of a number of requests each is copied once. They are OPTIONS, which nobody else sends, so that no copy under way counts.
func (s *stage) checkCopies(t *testing.T, target, asked, host string) {
	t.Helper()
	const n = 60
	for range n {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodOptions, asked, nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := s.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusOK || response.Header.Get("X-App-Version") != "v1" {
			t.Fatalf("OPTIONS %s: %s of %q, %v; want v1's answer", asked, response.Status, response.Header.Get("X-App-Version"), err)
		}
	}
	s.eventually(t, fmt.Sprintf("%s gets %d copies of %d requests", target, n, n), func() (bool, string) {
		got := s.seenBy(t, target)[http.MethodOptions+" "+host]
		if got > n {
			t.Fatalf("%s got %d copies of %d requests", target, got, n)
		}
		return got == n, fmt.Sprint(got)
	})
}

// Test15Mirror: users see v1 alone, and v2 gets copies whose host ends in -shadow, of POSTs first and then of all.
func Test15Mirror(t *testing.T) {
	t.Parallel()
	const get, post, canary = "http://httpbin:8000/get", "http://httpbin:8000/post", "http://only-v2:8000"
	s := newStage(t, example{dir: "15-mirror", apps: []string{"httpbin.yaml"}})
	copies := func(method string) int { return s.seenBy(t, canary)[method+" httpbin-shadow:8000"] }
	s.pushVersion(t, "rollout.yaml", "v2")
	s.stayIn(t, "httpbin", "posts")
	s.eventually(t, "POSTs are mirrored", func() (bool, string) {
		s.post(t, post, "hello")
		return copies("POST") > 0, fmt.Sprint(s.seenBy(t, canary))
	})
	s.waitServed(t, "v1", get)
	if n := copies("GET"); n != 0 {
		t.Errorf("%d GETs were mirrored beside the POSTs", n)
	}
	s.goOn(t, "httpbin")
	s.waitStep(t, "httpbin", "shadow")
	s.load(t, 20, get)
	s.stayIn(t, "httpbin", "shadow")
	s.eventually(t, "GETs are mirrored", func() (bool, string) { return copies("GET") > 20, fmt.Sprint(copies("GET")) })
	s.waitServed(t, "v1", get)
	s.checkCopies(t, canary, get, "httpbin-shadow:8000")
	if n := s.seenBy(t, canary)["GET httpbin:8000"]; n != 0 {
		t.Errorf("v2 was asked by %d users in a mirror step", n)
	}
	s.goOn(t, "httpbin")
	s.waitHealthy(t, "httpbin", "v2")
	s.waitServed(t, "v2", get)
}

// Test15MirrorChain: copies of what v1 is asked at the end of the chain, and no answer of v2 before the run is over.
func Test15MirrorChain(t *testing.T) {
	t.Parallel()
	const customer = "http://customer:8080/"
	s := newStage(t, example{dir: "15-mirror-chain", apps: []string{"recommendation.yaml"}})
	recommendation := func() string { return strings.TrimPrefix(s.get(t, customer).body, "customer => preference => ") }
	s.load(t, 20, customer)
	s.pushVersion(t, "rollout.yaml", "v2")
	s.stayIn(t, "recommendation", "shadow")
	s.eventually(t, "customers are answered by v1 alone, and v2 gets copies", func() (bool, string) {
		if said := recommendation(); !strings.HasPrefix(said, "recommendation v1 ") {
			t.Fatalf("a customer was answered by %s", said)
		}
		n, err := s.cluster.Query(t.Context(), fmt.Sprintf(
			`sum(istio_requests_total{reporter="destination",destination_workload="recommendation-v2",namespace=%q})`, s.Namespace))
		return err == nil && n > 50, fmt.Sprint(n, err)
	})
	s.goOn(t, "recommendation")
	s.waitHealthy(t, "recommendation", "v2")
	s.eventually(t, "v2 answers", func() (bool, string) {
		said := recommendation()
		return strings.HasPrefix(said, "recommendation v2 "), said
	})
}

// Test15MirrorElsewhere: another service gets the copies, the canary none, and the route's own mirror goes on.
func Test15MirrorElsewhere(t *testing.T) {
	t.Parallel()
	const shadow = "GET reviews-shadow:9080"
	s := newStage(t, example{dir: "15-mirror-elsewhere", apps: []string{"bookinfo.yaml"}})
	copies := func(service string) int { return s.seenBy(t, "http://"+service+":9080")[shadow] }
	audited := func(step string) {
		t.Helper()
		before := copies("audit")
		s.visit(t, 60, reviewsURL)
		s.eventually(t, "half of 60 requests are audited in "+step, func() (bool, string) {
			n := copies("audit") - before
			return n > 10 && n < 50, fmt.Sprint(n, s.seenBy(t, "http://audit:9080"))
		})
	}
	for _, service := range []string{"audit", "replay"} { // which no Rollout's health speaks of
		s.waitStatus(t, http.StatusOK, "http://"+service+":9080/seen")
	}
	audited("rest")
	if n := copies("replay"); n != 0 {
		t.Errorf("replay got %d copies before the run", n)
	}
	s.pushVersion(t, "rollout.yaml", "v3")
	s.stayIn(t, "reviews", "replayed")
	before := copies("replay")
	s.eventually(t, "replay gets copies", func() (bool, string) {
		a := s.get(t, reviewsURL)
		return a.version == "v1" && copies("replay") > before, fmt.Sprint(a.version, " ", copies("replay"))
	})
	s.checkCopies(t, "http://replay:9080", reviewsURL, "reviews-shadow:9080")
	audited("replayed")
	s.goOn(t, "reviews")
	s.waitStep(t, "reviews", "shadow")
	s.load(t, 20, reviewsURL)
	s.waitHealthy(t, "reviews", "v3")
	s.waitServed(t, "v3", reviewsURL)
	if seen := s.seenBy(t, "http://reviews:9080"); seen[shadow] < 20 {
		t.Errorf("v3 saw %v, want copies of the second step", seen)
	}
}
