package bookinfo

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// chainTimeout bounds each call along the chain.
const chainTimeout = 10 * time.Second

// nextInChain is whom each app of the chain calls, at port 8080; the last one
// calls nobody. A variable of the next one's name and _HOSTNAME names another.
var nextInChain = map[string]string{Customer: Preference, Preference: Recommendation}

// serveChain answers with what the rest of the chain said, its own name before
// it: "customer => preference => recommendation v2 from 'pod': 7".
func (a *App) serveChain(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	next, ok := nextInChain[a.options.Kind]
	if !ok {
		_, _ = fmt.Fprintf(w, "%s %s from '%s': %d\n", a.options.Kind, a.options.Version, a.options.Pod, a.requests.Load())
		return
	}
	status, said := a.askNext(r, next)
	if status == http.StatusOK {
		_, _ = fmt.Fprintf(w, "%s => %s", a.options.Kind, said)
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = fmt.Fprintf(w, "%s => %d %s", a.options.Kind, status, said)
}

// askNext calls the next app; the status is 0 where no answer came.
func (a *App) askNext(r *http.Request, next string) (status int, said string) {
	ctx, cancel := context.WithTimeout(r.Context(), chainTimeout)
	defer cancel()
	host := a.options.Env[strings.ToUpper(next)+"_HOSTNAME"]
	if host == "" {
		host = next
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+host+":8080/", nil)
	if err != nil {
		return 0, err.Error()
	}
	for _, name := range forwarded {
		if values := r.Header.Values(name); len(values) > 0 {
			request.Header[name] = values
		}
	}
	response, err := a.options.Client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(body)
}
