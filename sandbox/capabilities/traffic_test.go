package capabilities

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/load"
)

// answer is what a client got.
type answer struct {
	status  int
	version string // X-App-Version, by which each app of the sandbox names itself
	header  http.Header
	body    string
	took    time.Duration
}

// page reads the answer of bookinfo's productpage.
func (a answer) page(t *testing.T) bookinfo.Page {
	t.Helper()
	var page bookinfo.Page
	if err := json.Unmarshal([]byte(a.body), &page); err != nil {
		t.Fatalf("status %d, body %.200s: %v", a.status, a.body, err)
	}
	return page
}

// get asks from a client pod of the mesh, by service name and port: http://reviews:9080/reviews/0. Headers are "name: value".
func (s *stage) get(t *testing.T, target string, headers ...string) answer {
	t.Helper()
	return ask(t, s.Client(), target, headers...)
}

// atGateway asks port 80 of the ingress gateway for http://HOST/PATH.
func (s *stage) atGateway(t *testing.T, target string, headers ...string) answer {
	t.Helper()
	asked, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	return ask(t, http.DefaultClient, s.IngressURL()+asked.RequestURI(), append(headers, "Host: "+asked.Host)...)
}

func ask(t *testing.T, client *http.Client, target string, headers ...string) answer {
	t.Helper()
	a, err := try(t.Context(), client, target, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func try(ctx context.Context, client *http.Client, target string, headers ...string) (a answer, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return a, err
	}
	request.Header = headerOf(headers)
	if host := request.Header.Get("Host"); host != "" {
		request.Host = host
		request.Header.Del("Host")
	}
	began := time.Now()
	response, err := client.Do(request)
	if err != nil {
		return a, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	return answer{
		status: response.StatusCode, version: response.Header.Get("X-App-Version"), header: response.Header,
		body: string(body), took: time.Since(began),
	}, err
}

func headerOf(lines []string) http.Header {
	header := http.Header{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		header.Add(name, value)
	}
	return header
}

// tally counts answers.
type tally struct {
	total    int
	versions map[string]int
	statuses map[int]int
}

func (c *tally) add(a answer) {
	if c.versions == nil {
		c.versions, c.statuses = map[string]int{}, map[int]int{}
	}
	c.total++
	c.versions[a.version]++
	c.statuses[a.status]++
}

func (c tally) String() string {
	return fmt.Sprintf("%d answers, versions %v, statuses %v", c.total, c.versions, c.statuses)
}

// share of the answers that came from a version.
func (c tally) share(version string) float64 {
	return float64(c.versions[version]) / float64(max(c.total, 1))
}

// visit asks n times, one after the other.
func (s *stage) visit(t *testing.T, n int, target string, headers ...string) (seen tally) {
	t.Helper()
	for range n {
		seen.add(s.get(t, target, headers...))
	}
	return seen
}

// crowd has a number of users ask n times each, all at the same time.
func (s *stage) crowd(t *testing.T, users, n int, target string, headers ...string) (seen tally) {
	t.Helper()
	var lock sync.Mutex
	var all sync.WaitGroup
	for range users {
		all.Go(func() {
			for range n {
				a, err := try(t.Context(), s.Client(), target, headers...)
				if err != nil {
					t.Error(err)
					return
				}
				lock.Lock()
				seen.add(a)
				lock.Unlock()
			}
		})
	}
	all.Wait()
	return seen
}

// waitServed waits until a version alone answers, twenty times in a row and each time with 200.
func (s *stage) waitServed(t *testing.T, version, target string, headers ...string) {
	t.Helper()
	s.eventually(t, fmt.Sprintf("%s alone answers %s %q", version, target, headers), func() (bool, string) {
		seen := s.visit(t, 20, target, headers...)
		return seen.versions[version] == 20 && seen.statuses[http.StatusOK] == 20, seen.String()
	})
}

// waitSplit waits until the answers of many requests are split as wanted, in shares of 1, and none of them is a failure.
func (s *stage) waitSplit(t *testing.T, want map[string]float64, target string, headers ...string) {
	t.Helper()
	const n, tolerance = 400, 0.08 // more than three standard deviations of a half
	s.eventually(t, fmt.Sprintf("%s is split %v", target, want), func() (bool, string) {
		seen := s.visit(t, n, target, headers...)
		total := 0
		for version, share := range want {
			total += seen.versions[version]
			if seen.versions[version] == 0 || math.Abs(seen.share(version)-share) > tolerance {
				return false, seen.String()
			}
		}
		return total == n && seen.statuses[http.StatusOK] == n, seen.String()
	})
}

// load sends requests per second from the mesh until the test ends or it is stopped. Answers of 500 and above have failed.
func (s *stage) load(t *testing.T, rate float64, target string, headers ...string) *load.Generator {
	t.Helper()
	generator, err := load.Start(t.Context(), load.Options{
		URL: target, Client: s.Client(), Rate: rate, Header: headerOf(headers), Judge: load.Service,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { generator.Stop() })
	return generator
}

// configOf is istiod's dump, in JSON, of the configuration that it has for a proxy: of s.ClientProxyID() or s.GatewayProxyID().
func (s *stage) configOf(t *testing.T, proxy string) string {
	t.Helper()
	a := ask(t, http.DefaultClient, s.cluster.DiscoveryURL+"/debug/config_dump?proxyID="+url.QueryEscape(proxy))
	if a.status != http.StatusOK {
		t.Fatalf("istiod's dump for %s: %d %s", proxy, a.status, a.body)
	}
	return a.body
}
