package environment_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/environment"
	"sluice.dev/sluice/sandbox/load"
)

// The tests share one control plane, since each start takes seconds; each has a
// namespace of its own.
var plane *controlplane.ControlPlane

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute) // a first build takes 10
	defer cancel()
	var err error
	if plane, err = controlplane.Start(ctx, controlplane.Options{Out: os.Stderr}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer plane.Stop()
	return m.Run()
}

// namespace is an environment under test.
type namespace struct {
	*environment.Environment
	t      *testing.T
	client *http.Client
}

var names = map[string]int{}

// deploy gives a test its own namespace, also when the test runs again.
func deploy(t *testing.T, name string, o environment.Options) *namespace {
	t.Helper()
	if names[name]++; names[name] > 1 {
		name += "-" + strconv.Itoa(names[name])
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := environment.Deploy(ctx, plane, name, o)
	if err != nil {
		t.Fatal(err)
	}
	n := &namespace{Environment: e, t: t, client: e.Client()}
	t.Cleanup(func() {
		n.client.CloseIdleConnections()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *namespace) apply(manifests string) {
	n.t.Helper()
	if err := plane.Kube.Apply(n.t.Context(), n.Namespace, []byte(manifests)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *namespace) eventually(what string, is func() bool) {
	n.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !is() {
		if time.Now().After(deadline) {
			n.t.Fatalf("timed out waiting for %s", what)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// get asks for a URL from the client's pod; headers are "name: value".
func (n *namespace) get(target string, headers ...string) (status int, body string) {
	n.t.Helper()
	r, err := http.NewRequestWithContext(n.t.Context(), http.MethodGet, target, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	response, err := n.client.Do(r)
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		n.t.Fatal(err)
	}
	return response.StatusCode, string(raw)
}

func (n *namespace) page(headers ...string) (page bookinfo.Page) {
	n.t.Helper()
	status, body := n.get(n.ProductPage, headers...)
	if status != http.StatusOK {
		n.t.Fatalf("productpage: %d %s", status, body)
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		n.t.Fatal(err)
	}
	return page
}

// servedOnly waits until n requests in a row show this version of reviews.
func (n *namespace) servedOnly(version string, headers ...string) {
	n.t.Helper()
	n.eventually("reviews "+version+" for "+strings.Join(headers, ","), func() bool {
		for range 10 {
			if n.page(headers...).Reviews.Version != version {
				return false
			}
		}
		return true
	})
}

func (n *namespace) load(o load.Options) load.Counts {
	n.t.Helper()
	o.URL, o.Client = n.ProductPage, n.client
	g, err := load.Start(n.t.Context(), o)
	if err != nil {
		n.t.Fatal(err)
	}
	return g.Wait()
}

// query asks Prometheus for the sum of istio_requests_total with these labels;
// none is 0.
func (n *namespace) query(labels string) float64 {
	n.t.Helper()
	return n.queryMetric("istio_requests_total", labels)
}

func (n *namespace) queryMetric(metric, labels string) float64 {
	n.t.Helper()
	promQL := fmt.Sprintf(`sum(%s{namespace=%q,%s}) or vector(0)`, metric, n.Namespace, labels)
	response, err := http.Get(plane.PrometheusURL + "/api/v1/query?query=" + url.QueryEscape(promQL))
	if err != nil {
		n.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // decoded
	var answer struct {
		Error string
		Data  struct {
			Result []struct{ Value [2]any }
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		n.t.Fatal(err)
	}
	if len(answer.Data.Result) != 1 {
		n.t.Fatalf("query %s: %+v", promQL, answer)
	}
	value, err := strconv.ParseFloat(answer.Data.Result[0].Value[1].(string), 64) //nolint:forcetypeassert // Prometheus' own form
	if err != nil {
		n.t.Fatal(err)
	}
	return value
}

// measured waits until Prometheus has seen at least this many requests.
func (n *namespace) measured(atLeast float64, labels string) {
	n.t.Helper()
	n.eventually(fmt.Sprintf("%v requests with %s in Prometheus", atLeast, labels), func() bool { return n.query(labels) >= atLeast })
}
