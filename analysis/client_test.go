package analysis

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// serve is an HTTP server that speaks, or does not speak, Prometheus' API.
func serve(t *testing.T, handler http.HandlerFunc) string {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func askOnce(t *testing.T, address, file string) (model.Value, *reading) {
	t.Helper()
	client, err := NewClient(address, file)
	if err != nil {
		t.Fatal(err)
	}
	a := &asker{prometheus: client, timeout: 5 * time.Second, slots: make(chan struct{}, 1), report: func(string, error) {}}
	return a.ask(t.Context(), ask{query: "up", start: at(0).UnixNano(), end: at(10).UnixNano(), step: 10 * time.Second})
}

func TestClientAsksForTheRange(t *testing.T) {
	var form map[string][]string
	answer, failed := askOnce(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		form = r.Form
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1700000000,"1"],[1700000010,"2"]]}]},"infos":["PromQL info: only a remark"]}`)
	}), "")
	if failed != nil {
		t.Fatalf("%+v", failed)
	}
	if got := read(answer, []time.Time{at(0), at(10)}); got[0].value != 1 || got[1].value != 2 {
		t.Errorf("%+v", got)
	}
	for key, want := range map[string]string{"query": "up", "start": "1700000000", "end": "1700000010", "step": "10", "timeout": "5s"} {
		if got := strings.Join(form[key], ","); got != want {
			t.Errorf("%s = %q; want %q", key, got, want)
		}
	}
}

func TestClientUsesPrometheusOwnConfiguration(t *testing.T) {
	file := filepath.Join(t.TempDir(), "http.yaml")
	if err := os.WriteFile(file, []byte("authorization:\n  credentials: open-sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, failed := askOnce(t, serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer open-sesame" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[]}}`)
	}), file)
	if failed != nil {
		t.Errorf("%+v", failed)
	}
}

func TestClientFailures(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		message string
		invalid string
	}{
		"bad_data": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"status":"error","errorType":"bad_data","error":"1:1: parse error: no"}`)
		}, "", "1:1: parse error: no"},
		"warnings": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"status":"success","data":{"resultType":"matrix","result":[]},"warnings":["remote read from http://me:secret99@far failed"]}`)
		}, "Prometheus warns: remote read from http://…@far failed", ""},
		"401":      {status(http.StatusUnauthorized), "Prometheus refuses to answer: client error: 401", ""},
		"403":      {status(http.StatusForbidden), "Prometheus refuses to answer: client error: 403", ""},
		"503":      {status(http.StatusServiceUnavailable), "Prometheus refuses to answer: server error: 503", ""},
		"a string": {body(`{"status":"success","data":{"resultType":"string","result":[0,"1"]}}`), "Prometheus gave no answer that can be read", ""},
		"no JSON":  {body("<html>login with token abcdefgh</html>"), "Prometheus gave no answer that can be read", ""},
		"cut off":  {body(`{"status":"success","data":{"resultType":"matrix","result":[{"met`), "Prometheus gave no answer that can be read", ""},
		"deep":     {body(strings.Repeat("[", 1<<20)), "Prometheus gave no answer that can be read", ""},
		"17 MiB": {func(w http.ResponseWriter, _ *http.Request) {
			for range 17 {
				_, _ = w.Write(bytes.Repeat([]byte(" "), 1<<20))
			}
		}, "Prometheus: the answer is larger than 16 MiB", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, failed := askOnce(t, serve(t, c.handler), "")
			if failed == nil || failed.message != c.message || failed.invalid != c.invalid {
				t.Errorf("%+v; want %q %q", failed, c.message, c.invalid)
			}
		})
	}
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "token abcdefgh", code) }
}

func body(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

func TestNewClientErrors(t *testing.T) {
	for _, address := range []string{"", "prometheus:9090", "file:///etc/passwd", "http://", "::"} {
		if _, err := NewClient(address, ""); err == nil || !strings.Contains(err.Error(), "a URL like http://") {
			t.Errorf("NewClient(%q): %v", address, err)
		}
	}
	if _, err := NewClient("http://prometheus:9090", filepath.Join(t.TempDir(), "absent.yaml")); err == nil || !strings.Contains(err.Error(), "absent.yaml") {
		t.Errorf("absent file: %v", err)
	}
	var _ Prometheus = promv1.API(nil)
}

// FuzzAnswer: no body that a server could send makes the client panic.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		`{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1700000000,"1"]]}]}}`,
		`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{}]}]}}`,
		`{"status":"success","data":{"resultType":"scalar","result":[0,"NaN"]}}`, `{"data":null}`, `[]`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		raw, err := api.NewClient(api.Config{Address: "http://prometheus", RoundTripper: answerWith(data)})
		if err != nil {
			t.Fatal(err)
		}
		client := promv1.NewAPI(raw)
		a := &asker{prometheus: client, timeout: time.Minute, slots: make(chan struct{}, 1), report: func(string, error) {}}
		for _, step := range []time.Duration{0, time.Second} {
			if answer, failed := a.ask(t.Context(), ask{"up", at(0).UnixNano(), at(0).UnixNano(), step}); failed == nil {
				read(answer, []time.Time{at(0)})
			}
		}
	})
}

// answerWith is a transport on which everything is answered with the same body.
type answerWith []byte

func (a answerWith) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(a))}, nil
}
