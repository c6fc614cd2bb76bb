package load_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/load"
)

func TestCounts(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Host != "bookinfo.example.com":
			w.WriteHeader(http.StatusNotFound)
		case r.Header.Get("End-User") == "jason":
			fmt.Fprint(w, `{"details":{"status":200},"reviews":{"status":0,"error":"no reviews"}}`)
		default:
			fmt.Fprint(w, `{"details":{"status":200},"reviews":{"status":200,"version":"v3","ratings":"unavailable"}}`)
		}
	}))
	defer server.Close()
	g, err := load.Start(t.Context(), load.Options{
		URL: server.URL, Host: "bookinfo.example.com", Rate: 500, Duration: 400 * time.Millisecond, User: "jason", UserShare: 0.25,
	})
	if err != nil {
		t.Fatal(err)
	}
	for g.Counts().Total == 0 { // readable while it runs
		time.Sleep(time.Millisecond)
	}
	check(t, g.Wait())
}

func check(t *testing.T, c load.Counts) {
	t.Helper()
	jason, others := c.ByUser["jason"], c.ByUser[""]
	if c.Total == 0 || c.Total != jason.Total+others.Total || jason.Total*4 > c.Total+4 || jason.Total*4 < c.Total-4 {
		t.Errorf("a quarter should be jason's: %+v", c)
	}
	if jason.Failed != jason.Total || others.Failed != 0 || c.Failed != jason.Failed || c.LastError == nil {
		t.Errorf("jason's pages all fail, nobody else's: %+v", c)
	}
	if c.ByVersion["v3"] != others.Total || c.UserVersions["jason"][""] != jason.Total || c.RatingsUnavailable != others.Total {
		t.Errorf("versions: %+v", c)
	}
	if c.Quantile(0.5) <= 0 || c.Quantile(0.5) > c.Quantile(1) {
		t.Errorf("median %s, longest %s", c.Quantile(0.5), c.Quantile(1))
	}
}

// TestOne: a load that lasts for one request sends it.
func TestOne(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) }))
	defer server.Close()
	g, err := load.Start(t.Context(), load.Options{URL: server.URL, Rate: 10, Duration: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if c := g.Wait(); c.Total != 1 {
		t.Errorf("%d requests, want 1", c.Total)
	}
}

func TestBounds(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	g, err := load.Start(ctx, load.Options{URL: server.URL, Rate: 1000, MaxInFlight: 3})
	if err != nil {
		t.Fatal(err)
	}
	for g.Counts().Skipped == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if c := g.Wait(); c.Total != 0 {
		t.Errorf("requests that the end cut off were counted: %+v", c)
	}
	for _, o := range []load.Options{{Rate: 0}, {Rate: 1, UserShare: 2}} {
		if _, err := load.Start(t.Context(), o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
