package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"sync"
	"time"
)

// Options bound a load.
type Options struct {
	// URL to get: of productpage, such as http://productpage:9080/productpage,
	// unless Judge reads other answers.
	URL string
	// Judge reads an answer; nil means Page.
	Judge Judge
	// Header is sent with every request.
	Header http.Header
	// Client sends the requests; nil means http.DefaultClient.
	Client *http.Client
	// Host replaces the URL's host in the Host header, for gateways.
	Host string
	// Rate is requests per second, started evenly; it must be above 0.
	Rate float64
	// Duration ends the load; 0 means until the context ends.
	Duration time.Duration
	// User is sent as end-user header by UserShare (0-1) of the requests.
	User      string
	UserShare float64
	// MaxInFlight bounds requests that wait for an answer (default 200); what
	// would exceed it is counted as Skipped.
	MaxInFlight int
	// Timeout of one request, default 20s.
	Timeout time.Duration
}

// Generator is a load that runs or has run.
type Generator struct {
	options Options
	cancel  context.CancelFunc
	done    chan struct{}
	flight  chan struct{}

	mu     sync.Mutex
	counts Counts
}

// Start begins a load; it ends with its duration, the context or Stop.
func Start(ctx context.Context, o Options) (*Generator, error) {
	if o.Rate <= 0 || math.IsInf(o.Rate, 0) || math.IsNaN(o.Rate) {
		return nil, fmt.Errorf("rate %v: want requests per second above 0", o.Rate)
	}
	if o.UserShare < 0 || o.UserShare > 1 {
		return nil, fmt.Errorf("user share %v: want a share from 0 to 1", o.UserShare)
	}
	if o.Client == nil {
		o.Client = http.DefaultClient
	}
	if o.Judge == nil {
		o.Judge = Page
	}
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = 200
	}
	if o.Timeout <= 0 {
		o.Timeout = 20 * time.Second
	}
	ctx, cancel := context.WithCancel(ctx)
	g := &Generator{options: o, cancel: cancel, done: make(chan struct{}), flight: make(chan struct{}, o.MaxInFlight), counts: newCounts()}
	go g.run(ctx)
	return g, nil
}

// Stop ends the load and waits for its last answers' counting.
func (g *Generator) Stop() Counts {
	g.cancel()
	return g.Wait()
}

// Wait waits for the load's end and returns all that was counted.
func (g *Generator) Wait() Counts {
	<-g.done
	return g.Counts()
}

// Counts is what was counted until now; it may be called while the load runs.
func (g *Generator) Counts() Counts {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts.clone()
}

func (g *Generator) run(ctx context.Context) {
	defer close(g.done)
	defer g.cancel()
	var requests sync.WaitGroup
	defer requests.Wait()
	var over <-chan time.Time
	if g.options.Duration > 0 {
		timer := time.NewTimer(g.options.Duration)
		defer timer.Stop()
		over = timer.C
	}
	pace := newPace(g.options.Rate)
	defer pace.stop()
	for n := 1; ; n++ {
		select {
		case <-pace.next():
		case <-over:
			return
		case <-ctx.Done():
			return
		}
		select {
		case g.flight <- struct{}{}:
			requests.Go(func() {
				defer func() { <-g.flight }()
				g.request(ctx, n)
			})
		default:
			g.count(func(c *Counts) { c.Skipped++ })
		}
	}
}

// request sends the nth request. One that the end of the load cut off is not
// counted: its user saw neither success nor failure.
func (g *Generator) request(ctx context.Context, n int) {
	user := ""
	if share := g.options.UserShare; math.Floor(float64(n)*share) > math.Floor(float64(n-1)*share) {
		user = g.options.User
	}
	began := time.Now()
	answer, err := g.fetch(ctx, user)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return
	}
	took := time.Since(began)
	var seen Seen
	if err == nil {
		seen, err = g.options.Judge(answer)
	}
	g.count(func(c *Counts) { c.add(user, answer.Status, seen, err, took) })
}

func (g *Generator) count(f func(*Counts)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.counts)
}

func (g *Generator) fetch(ctx context.Context, user string) (answer Answer, err error) {
	ctx, cancel := context.WithTimeout(ctx, g.options.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.options.URL, nil)
	if err != nil {
		return answer, err
	}
	maps.Copy(request.Header, g.options.Header)
	request.Host = g.options.Host
	if user != "" {
		request.Header.Set("End-User", user)
	}
	response, err := g.options.Client.Do(request)
	if err != nil {
		return answer, err
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return answer, err
	}
	return Answer{Status: response.StatusCode, Header: response.Header, Body: body}, nil
}
