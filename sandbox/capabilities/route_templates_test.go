package capabilities

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/bookinfo"
)

// Test11Retries: v4 fails one request in twenty, and no client ever sees one. Two attempts more, of 5s each, are all that one gets.
func Test11Retries(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "11-retries", apps: []string{"bookinfo.yaml"}})
	s.waitServed(t, "v1", reviewsURL)
	generator := s.load(t, 40, reviewsURL)
	s.pushVersion(t, "rollout.yaml", "v4")
	s.waitHealthy(t, "reviews", "v4")
	s.waitServed(t, "v4", reviewsURL)
	s.eventually(t, "v4 failed requests", func() (bool, string) {
		n, err := s.cluster.Query(t.Context(), fmt.Sprintf(
			`sum(istio_requests_total{reporter="destination",destination_version="v4",response_code="500",namespace=%q})`, s.Namespace))
		return err == nil && n > 10, fmt.Sprint(n, err)
	})
	if seen := generator.Stop(); seen.Failed > 0 || seen.ByStatus[http.StatusOK] != seen.Total || seen.ByVersion["v4"] == 0 {
		t.Errorf("clients saw %s, statuses %v; want 200 alone, and v4", seen, seen.ByStatus)
	}
	s.Misbehave("reviews-v4", bookinfo.Misbehaviour{Latency: time.Minute})
	s.eventually(t, "a version that answers nobody is tried three times, for 5s each", func() (bool, string) {
		a := s.get(t, reviewsURL)
		return a.status == http.StatusGatewayTimeout && a.took >= 15*time.Second && a.took < 19*time.Second, fmt.Sprintf("%d after %s", a.status, a.took)
	})
}

// echo is what httpbin says of a request.
type echo struct {
	Path    string            `json:"path"`
	Headers map[string]string `json:"headers"`
	Version string            `json:"version"`
	Pod     string            `json:"pod"`
}

func (a answer) echo(t *testing.T) echo {
	t.Helper()
	var e echo
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("status %d, body %.200s: %v", a.status, a.body, err)
	}
	return e
}

// Test19RewriteHeaders: rewrites and headers are there at rest, in inserted routes, and after the run.
func Test19RewriteHeaders(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "19-rewrite-headers"})
	checks := func(version string, headers ...string) {
		t.Helper()
		s.eventually(t, fmt.Sprintf("%s with its rewrites %q", version, headers), func() (bool, string) {
			old := s.get(t, "http://httpbin:8000/old/books", append(headers, "X-Secret: a")...)
			now := s.get(t, "http://httpbin:8000/anything", append(headers, "X-Secret: a")...)
			e, f := old.echo(t), now.echo(t)
			ok := e.Path == "/anything/books" && e.Headers["X-From"] == "old" && e.Headers["X-Secret"] == "" && e.Version == version &&
				old.header.Get("X-Served-By") == "sluice" && old.version == "" &&
				f.Path == "/anything" && f.Headers["X-From"] == "new" && f.Headers["X-Secret"] == "a" && f.Version == version &&
				now.header.Get("X-Served-By") == "" && now.version == version
			return ok, old.body + now.body + fmt.Sprint(old.header)
		})
	}
	checks("v1")
	s.pushVersion(t, "rollout.yaml", "v2")
	s.stayIn(t, "httpbin", "testers")
	checks("v2", "End-User: jason")
	checks("v1")
	s.goOn(t, "httpbin")
	s.waitHealthy(t, "httpbin", "v2")
	checks("v2")
}

// Test24Locality: four of five requests stay in the client's region, before, in and after a run.
func Test24Locality(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "24-locality", locality: "region1/zone1"})
	const url = "http://httpbin:8000/anything"
	stays := func(versions ...string) {
		t.Helper()
		s.eventually(t, fmt.Sprintf("80%% of %v in region1", versions), func() (bool, string) {
			const n = 400
			near, seen := map[string]int{}, map[string]int{}
			for range n {
				e := s.get(t, url).echo(t)
				seen[e.Version]++
				if strings.Contains(e.Pod, "region1") {
					near[e.Version]++
				}
			}
			ok := len(seen) == len(versions)
			for _, version := range versions {
				ok = ok && seen[version] > 0 && math.Abs(float64(near[version])/float64(max(seen[version], 1))-0.8) < 0.12
			}
			return ok, fmt.Sprintf("near %v of %v", near, seen)
		})
	}
	stays("v1")
	s.pushVersion(t, "rollout.yaml", "v2")
	s.stayIn(t, "httpbin", "half")
	stays("v1", "v2")
	s.goOn(t, "httpbin")
	s.waitHealthy(t, "httpbin", "v2")
	stays("v2")
}
