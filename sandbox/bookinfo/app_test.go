package bookinfo_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/bookinfo"
)

// hosts sends calls to handlers by their host, as a mesh would.
type hosts map[string]http.Handler

func (h hosts) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if handler, ok := h[r.URL.Host]; ok {
		handler.ServeHTTP(w, r)
	} else {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	return w.Result(), nil
}

func newApp(t *testing.T, client hosts, kind, version string, env map[string]string) *bookinfo.App {
	t.Helper()
	a, err := bookinfo.New(bookinfo.Options{Kind: kind, Version: version, Pod: kind + "-0", Client: &http.Client{Transport: client}, Env: env})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func ask(t *testing.T, h http.Handler, path string, user string) (status int, page bookinfo.Page) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if user != "" {
		r.Header.Set("End-User", user)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	_ = json.Unmarshal(w.Body.Bytes(), &page) // what is no page stays empty
	return w.Code, page
}

func TestPage(t *testing.T) {
	var users []string
	mesh := hosts{}
	page := newApp(t, mesh, bookinfo.ProductPage, "v1", nil)
	mesh["details:9080"] = newApp(t, mesh, bookinfo.Details, "v1", nil)
	ratings := newApp(t, mesh, bookinfo.Ratings, "v1", nil)
	mesh["ratings:9080"] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		users = append(users, r.Header.Get("End-User"))
		ratings.ServeHTTP(w, r)
	})
	for version, want := range map[string]string{"v1": bookinfo.RatingsNone, "v2": bookinfo.RatingsAvailable} {
		mesh["reviews:9080"] = newApp(t, mesh, bookinfo.Reviews, version, nil)
		if status, p := ask(t, page, "/productpage", "jason"); status != http.StatusOK || !p.Complete() || p.Reviews.Version != version || p.Reviews.Ratings != want {
			t.Errorf("reviews %s: %d %+v", version, status, p)
		}
	}
	if len(users) != 1 || users[0] != "jason" {
		t.Errorf("ratings was called for %q, want once for jason", users)
	}
	mesh["reviews:9080"] = newApp(t, mesh, bookinfo.Reviews, "v2", nil) // one that asks for ratings
	ratings.Misbehave(bookinfo.Misbehaviour{ErrorRate: 1})
	if _, p := ask(t, page, "/productpage", ""); !p.Complete() || p.Reviews.Ratings != bookinfo.RatingsUnavailable {
		t.Errorf("without ratings: %+v", p)
	}
	delete(mesh, "reviews:9080")
	if status, p := ask(t, page, "/productpage", ""); status != http.StatusOK || p.Complete() || p.Reviews.Status != http.StatusServiceUnavailable {
		t.Errorf("without reviews: %d %+v", status, p)
	}
}

// TestErrorRate: the rate is kept exactly, whatever the number of requests.
func TestErrorRate(t *testing.T) {
	a := newApp(t, nil, bookinfo.Ratings, "v1", map[string]string{"ERROR_RATE": "0.05"})
	failed := 0
	for range 200 {
		if status, _ := ask(t, a, "/ratings/0", ""); status != http.StatusOK {
			failed++
		}
	}
	if failed != 10 {
		t.Errorf("%d of 200 requests failed, want 10", failed)
	}
	if status, _ := ask(t, a, "/misbehave?"+url.Values{"latency": {"30ms"}}.Encode(), ""); status != http.StatusOK {
		t.Fatalf("/misbehave: %d", status)
	}
	began := time.Now()
	if status, _ := ask(t, a, "/ratings/0", ""); status != http.StatusOK || time.Since(began) < 30*time.Millisecond {
		t.Errorf("slow answer: %d after %s", status, time.Since(began))
	}
	if status, _ := ask(t, a, "/misbehave?errorRate=5", ""); status != http.StatusBadRequest {
		t.Errorf("an error rate of 5: %d", status)
	}
}

func TestSettingsThatAreNone(t *testing.T) {
	for name, value := range map[string]string{"ERROR_RATE": "often", "LATENCY": "-1s", "RATINGS_TIMEOUT": "0", "ENABLE_RATINGS": "maybe"} {
		_, err := bookinfo.New(bookinfo.Options{Kind: bookinfo.Reviews, Version: "v2", Env: map[string]string{name: value}})
		if err == nil || !strings.Contains(err.Error(), value) {
			t.Errorf("%s=%s: error %v, want one with the value", name, value, err)
		}
	}
}

// TestSeen: an app tells which requests came, by method and host, and does not count who asks for that.
func TestSeen(t *testing.T) {
	a := newApp(t, nil, bookinfo.Ratings, "v1", nil)
	for _, host := range []string{"ratings:9080", "ratings-shadow:9080", "ratings-shadow:9080"} {
		r := httptest.NewRequest(http.MethodGet, "http://"+host+"/ratings/0", nil)
		a.ServeHTTP(httptest.NewRecorder(), r)
	}
	for range 2 {
		w := httptest.NewRecorder()
		a.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/seen", nil))
		const want = `{"GET ratings-shadow:9080":2,"GET ratings:9080":1}`
		if got := strings.TrimSpace(w.Body.String()); got != want {
			t.Errorf("seen %s, want %s", got, want)
		}
	}
}
