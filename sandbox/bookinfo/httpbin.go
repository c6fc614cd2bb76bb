package bookinfo

import (
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxDelay is the longest that /delay waits, as in httpbin.
const maxDelay = 10 * time.Second

// routeHTTPBin serves the part of httpbin that tutorials use.
func (a *App) routeHTTPBin(serve func(string, http.HandlerFunc)) {
	serve("/headers", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, map[string]any{"headers": flatHeaders(r), "version": a.options.Version})
	})
	serve("/status/{codes}", a.serveStatus)
	serve("/delay/{seconds}", a.serveDelay)
	serve("/get", a.serveAnything)
	serve("/post", a.serveAnything)
	serve("/anything/", a.serveAnything)
	serve("/anything", a.serveAnything)
	serve("/", a.serveAnything)
}

// flatHeaders gives a request's headers as httpbin shows them, Host among them.
func flatHeaders(r *http.Request) map[string]string {
	flat := map[string]string{"Host": r.Host}
	for name, values := range r.Header {
		flat[name] = strings.Join(values, ",")
	}
	return flat
}

// serveStatus answers with one of the codes, drawn where there are several.
func (a *App) serveStatus(w http.ResponseWriter, r *http.Request) {
	codes := strings.Split(r.PathValue("codes"), ",")
	code, err := strconv.Atoi(codes[rand.IntN(len(codes))])
	if err != nil || code < 200 || code > 599 {
		answer(w, http.StatusBadRequest, map[string]string{"error": "status: want a code from 200 to 599, or several divided by commas"})
		return
	}
	w.WriteHeader(code)
}

func (a *App) serveDelay(w http.ResponseWriter, r *http.Request) {
	seconds, err := strconv.ParseFloat(r.PathValue("seconds"), 64)
	if err != nil || seconds < 0 {
		answer(w, http.StatusBadRequest, map[string]string{"error": "delay: want seconds, such as 2 or 0.5"})
		return
	}
	if pause(r.Context(), min(time.Duration(seconds*float64(time.Second)), maxDelay)) {
		a.serveAnything(w, r)
	}
}

func (a *App) serveAnything(w http.ResponseWriter, r *http.Request) {
	args := map[string]string{}
	for name, values := range r.URL.Query() {
		args[name] = strings.Join(values, ",")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		answer(w, http.StatusRequestEntityTooLarge, map[string]string{"error": err.Error()})
		return
	}
	answer(w, http.StatusOK, map[string]any{
		"method": r.Method, "url": "http://" + r.Host + r.URL.RequestURI(), "path": r.URL.Path, "args": args,
		"headers": flatHeaders(r), "data": string(body), "version": a.options.Version, "pod": a.options.Pod,
	})
}
