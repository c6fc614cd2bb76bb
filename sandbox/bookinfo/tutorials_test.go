package bookinfo_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/bookinfo"
)

func fetch(t *testing.T, h http.Handler, path string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHTTPBin(t *testing.T) {
	bin := newApp(t, nil, bookinfo.HTTPBin, "v2", nil)
	for path, want := range map[string]int{
		"/status/418": 418, "/status/200,200": 200, "/status/99": 400, "/delay/0": 200, "/delay/x": 400, "/get?a=b": 200, "/anything/else": 200,
	} {
		w := fetch(t, bin, path)
		if w.Code != want || w.Header().Get("X-App-Version") != "v2" {
			t.Errorf("GET %s: %d of %q, want %d", path, w.Code, w.Header().Get("X-App-Version"), want)
		}
	}
	var said struct {
		Headers map[string]string
		Version string
	}
	w := fetch(t, bin, "/headers", "X-Seen: yes")
	if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil {
		t.Fatal(err)
	}
	if said.Headers["X-Seen"] != "yes" || said.Headers["Host"] == "" || said.Version != "v2" {
		t.Errorf("/headers said %+v", said)
	}
}

func TestChain(t *testing.T) {
	mesh := hosts{}
	customer := newApp(t, mesh, bookinfo.Customer, "v1", nil)
	mesh["preference:8080"] = newApp(t, mesh, bookinfo.Preference, "v1", nil)
	recommendation := newApp(t, mesh, bookinfo.Recommendation, "v2", nil)
	mesh["recommendation:8080"] = recommendation
	const whole = "customer => preference => recommendation v2 from 'recommendation-0': 1"
	if w := fetch(t, customer, "/"); w.Code != http.StatusOK || strings.TrimSpace(w.Body.String()) != whole {
		t.Errorf("%d %q, want %q", w.Code, w.Body, whole)
	}
	recommendation.Misbehave(bookinfo.Misbehaviour{ErrorRate: 1})
	if w := fetch(t, customer, "/"); w.Code != http.StatusServiceUnavailable || !strings.HasPrefix(w.Body.String(), "customer => 503 preference => 500 ") {
		t.Errorf("a broken chain: %d %q", w.Code, w.Body)
	}
}

func TestTCPEcho(t *testing.T) {
	for version, prefix := range map[string]string{"v1": "one", "v2": "two", "canary": "canary"} {
		app := newApp(t, nil, bookinfo.TCPEcho, version, nil)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan struct{})
		go func() { defer close(served); app.ServeTCP(l) }()
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		lines := bufio.NewScanner(conn)
		for _, line := range []string{"hello", "again"} {
			if _, err := fmt.Fprintln(conn, line); err != nil {
				t.Fatal(err)
			}
			if !lines.Scan() || lines.Text() != prefix+" "+line {
				t.Errorf("%s answered %q", version, lines.Text())
			}
		}
		app.Misbehave(bookinfo.Misbehaviour{ErrorRate: 1})
		if _, err := fmt.Fprintln(conn, "fail"); err != nil {
			t.Fatal(err)
		}
		if lines.Scan() {
			t.Errorf("%s misbehaves by answering %q", version, lines.Text())
		}
		_ = conn.Close()
		_ = l.Close()
		<-served
	}
}
