package analysis

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"pgregory.net/rapid"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

func TestTally(t *testing.T) {
	for _, c := range []struct {
		tally            tally
		failed, finished bool
	}{
		{tally{planned: 3, minSuccess: 1}, false, false},
		{tally{planned: 3, made: 1, succeeded: 0, minSuccess: 1}, true, false},
		{tally{planned: 3, made: 3, succeeded: 3, minSuccess: 1}, false, true},
		{tally{planned: 20, made: 1, succeeded: 0, minSuccess: 0.95}, false, false},
		{tally{planned: 20, made: 2, succeeded: 0, minSuccess: 0.95}, true, false},
		{tally{planned: 20, made: 20, succeeded: 19, minSuccess: 0.95}, false, true},
		{tally{planned: 3, made: 3, succeeded: 0, minSuccess: 0}, false, true},
	} {
		if c.tally.failed() != c.failed || c.tally.finished() != c.finished {
			t.Errorf("%+v: failed %v, finished %v", c.tally, c.tally.failed(), c.tally.finished())
		}
	}
}

// A probe fails exactly when the share is out of reach, and is never both failed and finished.
func TestTallyFailsOnlyOutOfReach(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		planned := rapid.IntRange(1, 500).Draw(t, "planned")
		made := rapid.IntRange(0, planned).Draw(t, "made")
		percent := rapid.IntRange(0, 100).Draw(t, "percent")
		x := tally{planned: planned, made: made, succeeded: rapid.IntRange(0, made).Draw(t, "succeeded"), minSuccess: float64(percent) / 100}
		best := planned - (made - x.succeeded)
		if outOfReach := best*100 < percent*planned; x.failed() != outOfReach {
			t.Fatalf("%+v: failed %v, best %d of %d", x, x.failed(), best, planned)
		}
		if x.finished() && (x.failed() || x.succeeded*100 < percent*planned) {
			t.Fatalf("%+v: finished", x)
		}
	})
}

func TestPlannedProbes(t *testing.T) {
	for _, c := range []struct {
		end      float64
		interval time.Duration
		want     int
	}{{-5, time.Second, 3}, {0, time.Second, 3}, {2, time.Second, 3}, {10, time.Second, 11}, {10.5, time.Second, 11}, {60, 30 * time.Second, 3}} {
		if got := plannedProbes(at(0), at(c.end), c.interval); got != c.want {
			t.Errorf("until %gs each %s: %d; want %d", c.end, c.interval, got, c.want)
		}
	}
}

func TestProbePolicyNames(t *testing.T) {
	policy := ProbePolicy{Allow: []string{"bookinfo.example.com", "*.test.example:8443", "[fd00::1]:80", "Shop.Example"}}
	for target, want := range map[string]bool{
		"http://bookinfo.example.com/productpage": true, "https://bookinfo.example.com:444": true, "http://BOOKINFO.example.com.": true,
		"https://a.test.example:8443": true, "https://a.b.test.example:8443": true, "https://a.test.example": false,
		"https://test.example:8443": false, "https://xtest.example:8443": false, "http://bookinfo.example.com.evil.example": false,
		"http://[fd00::1]/": true, "http://[fd00::1]:81/": false, "http://shop.example": true,
		"http://evil.example@bookinfo.example.com": true, "http://bookinfo.example.com@evil.example": false,
		"ftp://bookinfo.example.com": false, "bookinfo.example.com": false, "": false, "http://": false, "http:///x": false, "file:///etc/passwd": false,
	} {
		if err := policy.check(target); (err == nil) != want {
			t.Errorf("%s: %v; want allowed %v", target, err, want)
		}
	}
	err := ProbePolicy{}.check("http://me:pass@bookinfo.example.com:8080/x")
	if err == nil || !strings.Contains(err.Error(), "--probe-allow=bookinfo.example.com:8080") || strings.Contains(err.Error(), "pass") {
		t.Errorf("%v", err)
	}
	if err := (ProbePolicy{Allow: []string{"*"}}).check("http://anywhere.example:81"); err != nil {
		t.Error(err)
	}
}

func TestProbePolicyAddresses(t *testing.T) {
	policy := ProbePolicy{Deny: []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("127.0.0.9")}}
	for address, want := range map[string]bool{
		"93.184.216.34:80": true, "10.0.0.7:80": true, "[2606:2800::1]:443": true,
		"127.0.0.1:80": false, "127.8.9.10:80": false, "[::1]:80": false, "[::ffff:127.0.0.1]:80": false,
		"169.254.169.254:80": false, "[fe80::1%eth0]:80": false, "[fd00:ec2::254]:80": false, "[64:ff9b::a9fe:a9fe]:80": false,
		"224.0.0.1:80": false, "[ff02::1]:80": false, "0.0.0.0:80": false, "[::]:80": false,
		"10.96.0.1:443": false, "[::ffff:10.96.0.1]:443": false, "no address": false,
	} {
		if err := policy.control("tcp", address, nil); (err == nil) != want {
			t.Errorf("%s: %v; want allowed %v", address, err, want)
		}
	}
	policy.AllowLoopback = true
	for address, want := range map[string]bool{"127.0.0.1:80": true, "127.0.0.9:80": true, "169.254.169.254:80": false, "10.96.0.1:443": false} {
		if err := policy.control("tcp", address, nil); (err == nil) != want {
			t.Errorf("with loopback, %s: %v; want allowed %v", address, err, want)
		}
	}
}

func FuzzProbePolicy(f *testing.F) {
	for _, seed := range []string{"http://bookinfo.example.com/", "http://a@b:c@d/", "http://[::1%25x]:80", "//bookinfo.example.com", "http://bookinfo.example.com%2eevil/"} {
		f.Add(seed)
	}
	policy := ProbePolicy{Allow: []string{"bookinfo.example.com"}}
	f.Fuzz(func(t *testing.T, target string) {
		if policy.check(target) != nil {
			return
		}
		// What was allowed must be what Go's client then connects to.
		if u, err := url.Parse(target); err != nil || strings.TrimSuffix(strings.ToLower(u.Hostname()), ".") != "bookinfo.example.com" {
			t.Errorf("%q is allowed", target)
		}
	})
}

// lab runs one probe against a server on loopback, in real time.
type lab struct {
	*Analyst
	woken chan struct{}
}

func newLab(t *testing.T, policy ProbePolicy) *lab {
	l := &lab{woken: make(chan struct{}, 10)}
	l.Analyst = New(Config{Clock: clock.RealClock{}, ProbeAllow: policy}, func(types.NamespacedName) { l.woken <- struct{}{} })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = l.Start(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return l
}

var onLoopback = ProbePolicy{Allow: []string{"127.0.0.1"}, AllowLoopback: true}

// probe waits for the result of a probe that lasts so long.
func (l *lab) probe(t *testing.T, spec v1.Probe, lasts time.Duration) pipeline.ProbeResult {
	t.Helper()
	now := clock.RealClock{}.Now()
	l.Set(name("reviews"), &pipeline.Watch{ID: "1", Probe: &pipeline.ProbeWatch{Spec: spec, Start: now, End: now.Add(lasts)}})
	select {
	case <-l.woken:
	case <-time.After(20 * time.Second):
		t.Fatalf("the probe does not end: %+v", l.Probe(name("reviews")))
	}
	return *l.Probe(name("reviews"))
}

func every(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

func TestProbeSucceeds(t *testing.T) {
	var asked atomic.Int32
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.Header.Get("end-user") != "jason" || r.Host != "bookinfo.example.com" || r.Method != http.MethodPost {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	got := newLab(t, onLoopback).probe(t, v1.Probe{
		URL: server + "/productpage", Method: http.MethodPost, Interval: every(10 * time.Millisecond),
		Headers: map[string]string{"end-user": "jason", "host": "bookinfo.example.com"},
	}, 100*time.Millisecond)
	if !got.Finished || got.Failed || got.Refused != "" || got.Total < minProbes || got.Succeeded != got.Total || got.For != "1" {
		t.Errorf("%+v", got)
	}
	if int(asked.Load()) != got.Total {
		t.Errorf("%d requests arrived; %+v", asked.Load(), got)
	}
}

func TestProbeMakesThreeAtLeast(t *testing.T) {
	got := newLab(t, onLoopback).probe(t, v1.Probe{URL: serve(t, status(200)), Interval: every(time.Millisecond)}, 0)
	if !got.Finished || got.Total != minProbes {
		t.Errorf("%+v", got)
	}
}

func TestProbeFailsAsSoonAsItCan(t *testing.T) {
	server := serve(t, status(http.StatusServiceUnavailable))
	got := newLab(t, onLoopback).probe(t, v1.Probe{URL: server + "/page?token=abcdefgh", Interval: every(time.Millisecond)}, time.Hour)
	if !got.Failed || got.Finished || got.Succeeded != 0 {
		t.Errorf("%+v", got)
	}
	if want := fmt.Sprintf("GET %s/page: status 503, expected 200", server); got.LastFailure != want {
		t.Errorf("%q; want %q", got.LastFailure, want)
	}
}

func TestProbeForgivesUpToMinSuccess(t *testing.T) {
	var asked atomic.Int32
	server := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	got := newLab(t, onLoopback).probe(t, v1.Probe{URL: server, Interval: every(5 * time.Millisecond), MinSuccess: "50%"}, 50*time.Millisecond)
	if !got.Finished || got.Failed || got.Succeeded != got.Total-1 || !strings.Contains(got.LastFailure, "status 500") {
		t.Errorf("%+v", got)
	}
}

func TestProbeFailures(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for name, c := range map[string]struct {
		spec v1.Probe
		want string
	}{
		"slow": {v1.Probe{URL: serve(t, func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}), MaxLatency: every(20 * time.Millisecond)}, "no answer within 20ms"},
		"redirect is not followed": {v1.Probe{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusFound)
		})}, "status 302, expected 200"},
		"other status": {v1.Probe{URL: serve(t, status(200)), ExpectStatus: []int32{201, 204}}, "status 200, expected 201 or 204"},
		"nobody there": {v1.Probe{URL: closed.URL}, "connection refused"},
		"huge header": {v1.Probe{URL: serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxProbeHeader))
		})}, "exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			got := newLab(t, onLoopback).probe(t, c.spec, time.Hour)
			if !got.Failed || !strings.Contains(got.LastFailure, c.want) {
				t.Errorf("%+v; want %q", got, c.want)
			}
		})
	}
}

func TestProbeReadsABoundedBody(t *testing.T) {
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		chunk := make([]byte, 64<<10)
		for r.Context().Err() == nil { // without end
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	if got := newLab(t, onLoopback).probe(t, v1.Probe{URL: server, Interval: every(time.Millisecond)}, 0); !got.Finished {
		t.Errorf("%+v", got)
	}
}

func TestProbeRefusals(t *testing.T) {
	server := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a refused probe was made") })
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(server, "http://"))
	everything := []string{"*"}
	for name, c := range map[string]struct {
		policy ProbePolicy
		spec   v1.Probe
		want   string
	}{
		"not allowed":        {ProbePolicy{AllowLoopback: true}, v1.Probe{URL: server}, "--probe-allow=127.0.0.1"},
		"loopback":           {ProbePolicy{Allow: everything}, v1.Probe{URL: server}, "127.0.0.1, a loopback address; probes do not go there unless the operator's flag --probe-allow-loopback"},
		"loopback by a name": {ProbePolicy{Allow: everything}, v1.Probe{URL: "http://localhost:" + port}, "a loopback address"},
		"metadata":           {ProbePolicy{Allow: everything, AllowLoopback: true}, v1.Probe{URL: "http://169.254.169.254/latest"}, "a link-local address"},
		"API server":         {ProbePolicy{Allow: everything, Deny: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, v1.Probe{URL: "https://192.0.2.1"}, "an address of the API server"},
		"no URL":             {onLoopback, v1.Probe{URL: "127.0.0.1"}, "an http or https URL is expected"},
		"no method":          {onLoopback, v1.Probe{URL: server, Method: "G T"}, "invalid method"},
		"no share":           {onLoopback, v1.Probe{URL: server, MinSuccess: "most"}, `minSuccess: "most"; a percentage`},
	} {
		t.Run(name, func(t *testing.T) {
			got := newLab(t, c.policy).probe(t, c.spec, time.Hour)
			if !strings.Contains(got.Refused, c.want) || got.Finished || got.Failed {
				t.Errorf("%+v; want refused: %q", got, c.want)
			}
		})
	}
}

func TestProbeEndsWithItsWatch(t *testing.T) {
	var asked atomic.Int32
	server := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	l := newLab(t, onLoopback)
	now := clock.RealClock{}.Now()
	spec := v1.Probe{URL: server, Interval: every(time.Millisecond)}
	set := func(id string) {
		l.Set(name("reviews"), &pipeline.Watch{ID: id, Probe: &pipeline.ProbeWatch{Spec: spec, Start: now, End: now.Add(time.Hour)}})
	}
	set("1")
	await(t, "requests", func() bool { return l.Probe(name("reviews")).Total > 5 })
	before := l.Probe(name("reviews")).Total
	set("1")
	if got := l.Probe(name("reviews")).Total; got < before {
		t.Errorf("the same watch began afresh: %d after %d", got, before)
	}
	first := l.watches[name("reviews")].probe
	set("2")
	if got := l.Probe(name("reviews")); got.For != "2" {
		t.Errorf("%+v", got)
	}
	if l.watches[name("reviews")].probe == first {
		t.Error("another watch goes on with the same probe")
	}
	l.Set(name("reviews"), nil)
	if got := l.Probe(name("reviews")); got != nil {
		t.Errorf("%+v", got)
	}
}

// Slow answers neither hold up the requests that follow nor make the step longer.
func TestSlowAnswersOverlap(t *testing.T) {
	var now, most atomic.Int32
	server := serve(t, func(http.ResponseWriter, *http.Request) {
		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}
		<-time.After(100 * time.Millisecond)
		now.Add(-1)
	})
	got := newLab(t, onLoopback).probe(t, v1.Probe{URL: server, Interval: every(time.Millisecond)}, 150*time.Millisecond)
	if !got.Finished || got.Failed || got.Total <= minProbes {
		t.Errorf("%+v", got)
	}
	if most.Load() < 2 || most.Load() > maxProbesInFlight {
		t.Errorf("%d requests at once", most.Load())
	}
}
