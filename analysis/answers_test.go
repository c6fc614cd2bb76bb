package analysis

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"

	"sluice.dev/sluice/internal/pipeline"
)

func TestUnanswered(t *testing.T) {
	refusedConnection := &url.Error{Op: "Post", URL: "http://user:hunter22@prom:9090/api", Err: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}}
	for name, c := range map[string]struct {
		err     error
		message string
		result  string
	}{
		"refused connection": {refusedConnection, "Prometheus can not be reached: connection refused", resultError},
		"no such host":       {&url.Error{Op: "Post", URL: "http://x", Err: &net.DNSError{Err: "no such host", Name: "prom"}}, "Prometheus can not be reached", resultError},
		"deadline":           {&url.Error{Op: "Post", URL: "http://x", Err: context.DeadlineExceeded}, "Prometheus did not answer in time", resultTimeout},
		"evaluation timeout": {&promv1.Error{Type: promv1.ErrTimeout, Msg: "query timed out"}, "Prometheus did not answer in time", resultTimeout},
		"unauthorized":       {&promv1.Error{Type: promv1.ErrClient, Msg: "client error: 401", Detail: "token abcdefgh"}, "Prometheus refuses to answer: client error: 401", resultError},
		"server error":       {&promv1.Error{Type: promv1.ErrServer, Msg: "server error: 503", Detail: "<html>"}, "Prometheus refuses to answer: server error: 503", resultError},
		"execution":          {&promv1.Error{Type: promv1.ErrExec, Msg: "many-to-many matching not allowed"}, "Prometheus can not evaluate the query: many-to-many matching not allowed", resultInvalid},
		"garbage":            {&promv1.Error{Type: promv1.ErrBadResponse, Msg: "secret body"}, "Prometheus gave no answer that can be read", resultError},
		"too large":          {&url.Error{Op: "Post", URL: "http://x", Err: errAnswerTooLarge}, "Prometheus: the answer is larger than 16 MiB", resultError},
		"anything":           {errors.New("http://user:pass@x"), "Prometheus gave no answer that can be read", resultError},
	} {
		got, result := unanswered(c.err)
		if got.message != c.message || result != c.result || got.verdict != pipeline.Error || !got.provisional || got.invalid != "" {
			t.Errorf("%s: %+v, %s; want %q, %s", name, got, result, c.message, c.result)
		}
	}
	got, result := unanswered(&promv1.Error{Type: promv1.ErrBadData, Msg: "invalid parameter \"query\": 1:5: parse error"})
	if got.invalid != `invalid parameter "query": 1:5: parse error` || result != resultInvalid {
		t.Errorf("bad_data: %+v, %s", got, result)
	}
}

func TestTidy(t *testing.T) {
	for text, want := range map[string]string{
		"two\nlines\t of it":                "two lines of it",
		"http://user:pass@host/path failed": "http://…@host/path failed",
		"sent Bearer abcdef.ghi-jkl to it":  "sent Bearer … to it",
		"?token=abcdefgh&x=1":               "?token=…&x=1",
		"parse error: unexpected token":     "parse error: unexpected token",
		"invalid \xff bytes":                "invalid � bytes",
	} {
		if got := tidy(text); got != want {
			t.Errorf("tidy(%q) = %q; want %q", text, got, want)
		}
	}
	long := tidy(strings.Repeat("é", maxMessage))
	if len(long) > maxMessage+len("…") || !utf8.ValidString(long) {
		t.Errorf("%d bytes, valid %v", len(long), utf8.ValidString(long))
	}
}
