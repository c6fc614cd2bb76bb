package analysis

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/clock"

	v1 "sluice.dev/sluice/api/v1"
)

const (
	defaultMaxLatency = 10 * time.Second
	// maxProbeBody and maxProbeHeader bound, in bytes, what is read of an answer; a longer body is cut off, not an error.
	maxProbeBody   = 1 << 20
	maxProbeHeader = 64 << 10
)

// requester makes single requests.
type requester struct {
	http  *http.Client
	clock clock.PassiveClock
}

func newProber(policy ProbePolicy, c clock.Clock) *prober {
	dialer := &net.Dialer{Control: policy.control}
	transport := &http.Transport{
		// No proxy: it would make the connection in our place, past the check of the address.
		Proxy:                  nil,
		DialContext:            dialer.DialContext,
		ForceAttemptHTTP2:      true,
		DisableKeepAlives:      true, // each request is a new user's
		MaxResponseHeaderBytes: maxProbeHeader,
	}
	client := &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return &prober{policy: policy, clock: c, client: requester{http: client, clock: c}}
}

// request makes one request and judges its answer.
func (r requester) request(ctx context.Context, spec v1.Probe) attempt {
	limit := maxLatency(spec)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	request, err := makeRequest(ctx, spec)
	if err != nil {
		return attempt{refused: tidy(err.Error())}
	}
	started := r.clock.Now()
	response, err := r.http.Do(request)
	if err == nil {
		defer func() { _ = response.Body.Close() }()
		_, err = io.Copy(io.Discard, io.LimitReader(response.Body, maxProbeBody))
	}
	took := r.clock.Since(started)
	var refused *refusedAddress
	switch {
	case errors.As(err, &refused):
		return attempt{refused: refused.Error()}
	case errors.Is(err, context.DeadlineExceeded), err == nil && took > limit:
		return failure(request, "no answer within %s", limit)
	case err != nil:
		return failure(request, "%s", cause(err))
	case !slices.Contains(expectedStatus(spec), int32(response.StatusCode)):
		return failure(request, "status %d, expected %s", response.StatusCode, list(expectedStatus(spec)))
	}
	return attempt{}
}

func makeRequest(ctx context.Context, spec v1.Probe) (*http.Request, error) {
	method := spec.Method
	if method == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, method, spec.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", cause(err))
	}
	request.Header.Set("User-Agent", "sluice-probe")
	for name, value := range spec.Headers {
		if strings.EqualFold(name, "Host") {
			request.Host = value // Go sends no other
			continue
		}
		request.Header.Set(name, value)
	}
	return request, nil
}

func maxLatency(spec v1.Probe) time.Duration {
	if spec.MaxLatency == nil || spec.MaxLatency.Duration <= 0 {
		return defaultMaxLatency
	}
	return spec.MaxLatency.Duration
}

func expectedStatus(spec v1.Probe) []int32 {
	if len(spec.ExpectStatus) == 0 {
		return []int32{http.StatusOK}
	}
	return spec.ExpectStatus
}

func list(codes []int32) string {
	words := make([]string, len(codes))
	for i, code := range codes {
		words[i] = fmt.Sprint(code)
	}
	return strings.Join(words, " or ")
}

// cause leaves out the URL that net/http puts before its errors.
func cause(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

// failure tells what was asked, without what may be secret in a URL: its user and its query.
func failure(request *http.Request, format string, args ...any) attempt {
	shown := url.URL{Scheme: request.URL.Scheme, Host: request.URL.Host, Path: request.URL.Path}
	return attempt{failure: tidy(fmt.Sprintf("%s %s: ", request.Method, shown.String()) + fmt.Sprintf(format, args...))}
}
