package bench

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEvidence(t *testing.T) {
	e, err := startEvidence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer e.stop()
	query := `bench_failures{namespace="bench",service="service-0001",version="v2"}`
	ask := func(path string, form url.Values) string {
		t.Helper()
		form.Set("query", query)
		resp, err := http.PostForm(e.URL+path, form)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(body))
	}
	want := func(got, want string) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	instant, span := url.Values{"time": {"5"}}, url.Values{"start": {"5"}, "end": {"15"}, "step": {"5"}}
	want(ask("/api/v1/query", instant), `{"data":{"result":[{"metric":{},"value":[5,"0"]}],"resultType":"vector"},"status":"success"}`)
	if _, ok := e.firstBadOf(key{Namespace: "bench", Name: "service-0001"}); ok {
		t.Error("a good answer was noted as a bad one")
	}
	e.set(bad)
	want(ask("/api/v1/query_range", span), `{"data":{"result":[{"metric":{},"values":[[5,"1"],[10,"1"],[15,"1"]]}],"resultType":"matrix"},"status":"success"}`)
	if _, ok := e.firstBadOf(key{Namespace: "bench", Name: "service-0001"}); !ok {
		t.Error("the first bad answer was not noted")
	}
	e.set(empty)
	want(ask("/api/v1/query", instant), `{"data":{"result":[],"resultType":"vector"},"status":"success"}`)
}

func TestWeights(t *testing.T) {
	for manifest, want := range map[string]map[string]int{
		`{"spec":{"http":[{"route":[{"destination":{"subset":"v1"}}]}]}}`:                                                                   {"v1": 100},
		`{"spec":{"http":[{"route":[{"weight":30,"destination":{"subset":"v1"}},{"weight":70,"destination":{"subset":"v2"}}]}]}}`:           {"v1": 30, "v2": 70},
		`{"spec":{"http":[{"route":[{"weight":100,"destination":{"subset":"v1"}},{"weight":0,"destination":{"subset":"v2"}}]}]},"other":1}`: {"v1": 100},
	} {
		var o object
		if err := json.Unmarshal([]byte(manifest), &o); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, weightsOf(&o)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", manifest, diff)
		}
	}
}

func TestTable(t *testing.T) {
	r := &Report{Machine: "a machine", Commit: "abc", Date: time.Unix(0, 0).UTC(), PropagationDelay: "0s"}
	seconds := func(s ...float64) (times []time.Duration) {
		for _, v := range s {
			times = append(times, time.Duration(v*float64(time.Second)))
		}
		return times
	}
	r.add(timeFigure("P2", "first bad answer → 100% stable", 300, seconds(.5, 1.2, .4), seconds(.1, .2, .3)))
	r.add(timeFigure("P1", "trigger → promoted", 1, seconds(.05), seconds(.01)))
	r.add(Figure{Row: "P4", Name: "idle: memory", N: 50, Unit: unitMiB, Value: 70.25})
	var out strings.Builder
	if err := r.Table(&out); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(out.String()) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	want := []string{
		"a machine · commit abc · 1970-01-01T00:00:00Z · propagationDelay 0s, settle 0", "",
		"figure N Sluice limit of the box ratio must met",
		"P1 trigger → promoted 1 0.050 / 0.050 s 0.010 / 0.010 s 5.0× 0.100 / 0.100 s yes",
		"P2 first bad answer → 100% stable 300 0.500 / 1.20 s 0.200 / 0.300 s 2.5× 0.600 / 1 s NO",
		"P4 idle: memory 50 70.2 MiB",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
