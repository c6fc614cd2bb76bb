package capabilities

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/load"
)

const reviewsURL = "http://reviews:9080/reviews/0"

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

// visitor is where requests come from: a client pod of the mesh, or outside of the ingress gateway.
type visitor struct {
	client *http.Client
	// entry is the gateway's base URL, and "" in the mesh.
	entry string
	// bears are the headers of every request, "name: value".
	bears []string
}

// place is the URL to ask for a target, with the Host header that it needs.
func (v visitor) place(target string) (at, host string, err error) {
	if v.entry == "" {
		return target, "", nil
	}
	asked, err := url.Parse(target)
	if err != nil {
		return "", "", err
	}
	return v.entry + asked.RequestURI(), asked.Host, nil
}

// get asks for a target: from the mesh by service name and port, http://reviews:9080/reviews/0; at the gateway, for its port 80,
// by a host and path of its routes, http://bookinfo.example.com/productpage. Headers are "name: value".
func (v visitor) get(t *testing.T, target string, headers ...string) answer {
	t.Helper()
	a, err := v.try(t.Context(), target, headers...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// atGateway is s.gateway.get.
func (s *stage) atGateway(t *testing.T, target string, headers ...string) answer {
	t.Helper()
	return s.gateway.get(t, target, headers...)
}

// try is get for goroutines, which must not end the test.
func (v visitor) try(ctx context.Context, target string, headers ...string) (a answer, err error) {
	at, host, err := v.place(target)
	if err != nil {
		return a, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return a, err
	}
	request.Header, request.Host = v.header(headers), host
	began := time.Now()
	response, err := v.client.Do(request)
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

// header is that of a request: what all bear, and its own.
func (v visitor) header(own []string) http.Header {
	header := http.Header{}
	for _, line := range slices.Concat(v.bears, own) {
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
func (v visitor) visit(t *testing.T, n int, target string, headers ...string) (seen tally) {
	t.Helper()
	for range n {
		seen.add(v.get(t, target, headers...))
	}
	return seen
}

// crowd has a number of users ask n times each, all at the same time.
func (v visitor) crowd(t *testing.T, users, n int, target string, headers ...string) tally {
	t.Helper()
	c := &crowd{}
	for range users {
		c.all.Go(func() {
			for range n {
				c.ask(t.Context(), v, target, headers...)
			}
		})
	}
	return c.leave()
}

// users has a number of users ask, each again as soon as it was answered, until they leave.
func (v visitor) users(t *testing.T, users int, target string, headers ...string) *crowd {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &crowd{away: cancel}
	for range users {
		c.all.Go(func() {
			for ctx.Err() == nil {
				c.ask(ctx, v, target, headers...)
			}
		})
	}
	return c
}

// crowd is users who ask at the same time. Who gets no answer at all counts with status 0.
type crowd struct {
	away context.CancelFunc
	all  sync.WaitGroup
	lock sync.Mutex
	seen tally
}

func (c *crowd) ask(ctx context.Context, v visitor, target string, headers ...string) {
	a, err := v.try(ctx, target, headers...)
	if err != nil && ctx.Err() != nil {
		return
	}
	c.lock.Lock()
	defer c.lock.Unlock()
	c.seen.add(a)
}

// leave ends the crowd and tells what it saw.
func (c *crowd) leave() tally {
	if c.away != nil {
		c.away()
	}
	c.all.Wait()
	return c.seen
}

// waitServed waits until a version alone answers, twenty times in a row and each time with 200.
func (v visitor) waitServed(t *testing.T, version, target string, headers ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s alone answers %s %q", version, target, headers), func() (bool, string) {
		seen := v.visit(t, 20, target, headers...)
		return seen.versions[version] == 20 && seen.statuses[http.StatusOK] == 20, seen.String()
	})
}

// waitSplit waits until the answers of many requests are split as wanted, in shares of 1, and none of them is a failure.
func (v visitor) waitSplit(t *testing.T, want map[string]float64, target string, headers ...string) {
	t.Helper()
	const n, tolerance = 400, 0.08 // more than three standard deviations of a half
	eventually(t, fmt.Sprintf("%s is split %v", target, want), func() (bool, string) {
		seen := v.visit(t, n, target, headers...)
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

// load sends requests per second until the test ends or it is stopped. Answers of 500 and above have failed.
func (v visitor) load(t *testing.T, rate float64, target string, headers ...string) *load.Generator {
	t.Helper()
	at, host, err := v.place(target)
	if err != nil {
		t.Fatal(err)
	}
	generator, err := load.Start(t.Context(), load.Options{
		URL: at, Host: host, Client: v.client, Rate: rate, Header: v.header(headers), Judge: load.Service,
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
	a := visitor{client: http.DefaultClient}.get(t, s.cluster.DiscoveryURL+"/debug/config_dump?proxyID="+url.QueryEscape(proxy))
	if a.status != http.StatusOK {
		t.Fatalf("istiod's dump for %s: %d %s", proxy, a.status, a.body)
	}
	return a.body
}
