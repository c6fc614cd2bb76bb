package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// answerTime of the stand-in for Prometheus.
const answerTime = 5 * time.Millisecond

// mood is what the stand-in answers to every query.
type mood int

const (
	good  mood = iota // 0: the gates pass
	bad               // 1: they fail
	empty             // nothing: they wait for evidence
)

// gateQuery is the query of every Rollout's gate; evidence knows by it which Rollout asks.
const gateQuery = `bench_failures{namespace="{{ .Namespace }}",service="{{ .Service }}",version="{{ .Canary }}"}`

var askedFor = regexp.MustCompile(`namespace="([^"]*)",service="([^"]*)"`)

// evidence stands in for Prometheus.
type evidence struct {
	URL string

	server  *http.Server
	mood    atomic.Int64
	queries atomic.Int64

	mu sync.Mutex
	// firstBad is when a Rollout was first answered that it fails.
	firstBad map[types.NamespacedName]time.Time
}

func startEvidence(ctx context.Context) (*evidence, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the stand-in for Prometheus: %w", err)
	}
	e := &evidence{URL: "http://" + listener.Addr().String(), firstBad: map[types.NamespacedName]time.Time{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/api/v1/query", e.answer)
	mux.HandleFunc("/api/v1/query_range", e.answer)
	e.server = &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go e.server.Serve(listener) //nolint:errcheck // ends with ErrServerClosed in stop
	return e, nil
}

func (e *evidence) stop() { _ = e.server.Close() }

// set changes what all further queries are answered.
func (e *evidence) set(m mood) {
	e.mu.Lock()
	clear(e.firstBad)
	e.mu.Unlock()
	e.mood.Store(int64(m))
}

func (e *evidence) firstBadOf(key types.NamespacedName) (time.Time, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	at, ok := e.firstBad[key]
	return at, ok
}

func (e *evidence) answer(w http.ResponseWriter, r *http.Request) {
	e.queries.Add(1)
	now := mood(e.mood.Load())
	time.Sleep(answerTime)
	if match := askedFor.FindStringSubmatch(r.FormValue("query")); match != nil && now == bad {
		e.noteBad(types.NamespacedName{Namespace: match[1], Name: match[2]})
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": dataFor(r, now)}); err != nil {
		return // the operator is gone
	}
}

func (e *evidence) noteBad(key types.NamespacedName) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, known := e.firstBad[key]; !known {
		e.firstBad[key] = time.Now()
	}
}

// dataFor a request, in the form of Prometheus' HTTP API.
func dataFor(r *http.Request, now mood) map[string]any {
	value := strconv.Itoa(int(now))
	if r.URL.Path == "/api/v1/query" {
		result := []any{}
		if now != empty {
			result = append(result, map[string]any{"metric": map[string]string{}, "value": []any{seconds(r, "time"), value}})
		}
		return map[string]any{"resultType": "vector", "result": result}
	}
	result := []any{}
	if start, end, step := seconds(r, "start"), seconds(r, "end"), seconds(r, "step"); now != empty && step > 0 {
		var values []any
		for at := start; at <= end; at += step {
			values = append(values, []any{at, value})
		}
		result = append(result, map[string]any{"metric": map[string]string{}, "values": values})
	}
	return map[string]any{"resultType": "matrix", "result": result}
}

// seconds of a parameter, 0 if it can not be read.
func seconds(r *http.Request, parameter string) float64 {
	at, err := strconv.ParseFloat(r.FormValue(parameter), 64)
	if err != nil {
		return 0
	}
	return at
}
