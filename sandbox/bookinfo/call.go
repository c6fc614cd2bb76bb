package bookinfo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// The headers that the sample's services pass on to the services they call.
var forwarded = []string{
	"End-User", "User-Agent", "Cookie", "Authorization", "Traceparent", "Tracestate", "Baggage",
	"X-Request-Id", "X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags", "B3",
}

// call asks another service and decodes a 200 answer into result. It returns
// the status, which is 0 where no answer came in time.
func (a *App) call(r *http.Request, user, url string, timeout time.Duration, result any) (status int, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	for _, name := range forwarded {
		if values := r.Header.Values(name); len(values) > 0 {
			request.Header[name] = values
		}
	}
	if user != "" {
		request.Header.Set("End-User", user)
	}
	response, err := a.options.Client.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close() //nolint:errcheck // read as far as it matters
	if response.StatusCode != http.StatusOK {
		_, _ = io.Copy(io.Discard, response.Body) // so that the connection can be used again
		return response.StatusCode, fmt.Errorf("GET %s: %s", url, response.Status)
	}
	return response.StatusCode, json.NewDecoder(response.Body).Decode(result)
}

// peerURL is where another service of the sample is, as its hostname variable
// says or by its usual name.
func (a *App) peerURL(variable, fallback string) string {
	host := a.options.Env[variable]
	if host == "" {
		host = fallback
	}
	return "http://" + host + ":9080"
}
