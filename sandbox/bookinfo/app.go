package bookinfo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// The kinds of app. Any other name gives a server that echoes what it was sent.
const (
	ProductPage = "productpage"
	Details     = "details"
	Reviews     = "reviews"
	Ratings     = "ratings"
	// HTTPBin answers as httpbin does: /headers, /status/503, /delay/2, /get, /anything.
	HTTPBin = "httpbin"
	// TCPEcho answers lines over TCP: see ServeTCP.
	TCPEcho = "tcp-echo"
	// Customer calls Preference, which calls Recommendation, all at port 8080.
	Customer       = "customer"
	Preference     = "preference"
	Recommendation = "recommendation"
)

// Options say what an app is.
type Options struct {
	// Kind is one of the constants above, or the name of an echoing app.
	Kind string
	// Version is what the app says of itself, such as v3.
	Version string
	// Pod is the name that answers bear.
	Pod string
	// Client sends the app's own calls, by service name and port 9080.
	Client *http.Client
	// Env holds settings as the containers of the sample take them: ENABLE_RATINGS
	// (of reviews; default true except for v1), STAR_COLOR, RATINGS_TIMEOUT (10s),
	// REVIEWS_HOSTNAME, RATINGS_HOSTNAME, DETAILS_HOSTNAME; and, for versions that
	// are bad from the start, ERROR_RATE (0-1) and LATENCY (a duration).
	Env map[string]string
}

// App is an HTTP handler.
type App struct {
	options   Options
	mux       *http.ServeMux
	requests  atomic.Uint64
	misbehave atomic.Pointer[Misbehaviour]
	seen      sightings
}

// Misbehaviour makes an app fail. The zero value is good behaviour.
type Misbehaviour struct {
	// ErrorRate is the share of requests, 0-1, that are answered with 500. It is
	// kept exactly: of 100 requests at 0.05, 5 fail.
	ErrorRate float64 `json:"errorRate"`
	// Latency is added to every request.
	Latency time.Duration `json:"latency"`
}

// New makes an app; its error names the setting that it cannot read.
func New(o Options) (*App, error) {
	a := &App{options: o, mux: http.NewServeMux()}
	initial, err := misbehaviourFrom(o.Env["ERROR_RATE"], o.Env["LATENCY"])
	if err != nil {
		return nil, fmt.Errorf("environment of %s %s: %w", o.Kind, o.Version, err)
	}
	a.misbehave.Store(&initial)
	a.mux.HandleFunc("/misbehave", a.serveMisbehave)
	a.mux.HandleFunc("/seen", a.seen.serve)
	a.mux.HandleFunc("/health", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "healthy"})
	})
	if err := a.routes(); err != nil {
		return nil, fmt.Errorf("environment of %s %s: %w", o.Kind, o.Version, err)
	}
	return a, nil
}

func (a *App) routes() error {
	serve := func(pattern string, h http.HandlerFunc) { a.mux.Handle(pattern, a.behaved(h)) }
	switch a.options.Kind {
	case ProductPage:
		page := newProductPage(a)
		serve("/productpage", page.serve)
		serve("/login", page.login)
		serve("/logout", page.logout)
		serve("/static/", page.static)
		serve("/api/v1/products", page.products)
	case Details:
		serve("/details/{id}", a.serveDetails)
	case Reviews:
		r, err := newReviews(a)
		if err != nil {
			return err
		}
		serve("/reviews/{id}", r.serve)
	case Ratings:
		serve("/ratings/{id}", a.serveRatings)
	case HTTPBin:
		a.routeHTTPBin(serve)
	case Customer, Preference, Recommendation:
		serve("/", a.serveChain)
	default:
		serve("/", a.serveEcho)
	}
	return nil
}

// ServeHTTP answers one request.
func (a *App) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-App-Version", a.options.Version)
	a.mux.ServeHTTP(w, r)
}

// Misbehave changes how the app fails from the next request on.
func (a *App) Misbehave(m Misbehaviour) {
	a.misbehave.Store(&m)
}

func misbehaviourFrom(rate, latency string) (m Misbehaviour, err error) {
	if rate != "" {
		if m.ErrorRate, err = strconv.ParseFloat(rate, 64); err != nil || m.ErrorRate < 0 || m.ErrorRate > 1 {
			return m, fmt.Errorf("error rate %q: want a number from 0 to 1", rate)
		}
	}
	if latency != "" {
		if m.Latency, err = time.ParseDuration(latency); err != nil || m.Latency < 0 {
			return m, fmt.Errorf("latency %q: want a duration such as 250ms", latency)
		}
	}
	return m, nil
}

// serveMisbehave is the switch: /misbehave?errorRate=0.05&latency=250ms; a
// parameter that is left out means none.
func (a *App) serveMisbehave(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	m, err := misbehaviourFrom(q.Get("errorRate"), q.Get("latency"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.Misbehave(m)
	answer(w, http.StatusOK, m)
}

// behaved puts the present misbehaviour before a handler.
func (a *App) behaved(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.seen.note(r)
		if a.mayAnswer(r.Context()) {
			next.ServeHTTP(w, r)
			return
		}
		if r.Context().Err() == nil {
			answer(w, http.StatusInternalServerError, map[string]string{"error": "misbehaving as told"})
		}
	})
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}
