package analysis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"syscall"
	"unicode/utf8"

	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
)

// maxMessage bounds, in bytes, what of another program's words goes into a status.
const maxMessage = 512

var errAnswerTooLarge = fmt.Errorf("the answer is larger than %d MiB", maxAnswer>>20)

// The values of the label result of sluice_prometheus_queries_total.
const (
	resultSuccess = "success"
	resultWarning = "warning"
	resultInvalid = "invalid"
	resultTimeout = "timeout"
	resultError   = "error"
)

// unanswered is the reading for each time of an ask that failed, and the result that is counted.
//
// Users read these messages, and Prometheus is the administrator's: so neither its address nor the body of an answer
// goes into them, only what is said about the query itself.
func unanswered(err error) (reading, string) {
	provisional := func(format string, args ...any) reading {
		r := bad(format, args...)
		r.provisional = true
		return r
	}
	var api *promv1.Error
	var network net.Error
	var errno syscall.Errno
	switch {
	case errors.As(err, &api):
		return refused(api, provisional)
	case errors.Is(err, errAnswerTooLarge):
		return provisional("Prometheus: %v", errAnswerTooLarge), resultError
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &network) && network.Timeout():
		return provisional("Prometheus did not answer in time"), resultTimeout
	case errors.As(err, &errno):
		return provisional("Prometheus can not be reached: %v", errno), resultError
	case errors.As(err, &network):
		return provisional("Prometheus can not be reached"), resultError
	}
	return provisional("Prometheus gave no answer that can be read"), resultError
}

func refused(err *promv1.Error, provisional func(string, ...any) reading) (reading, string) {
	switch err.Type {
	case promv1.ErrBadData:
		return reading{invalid: tidy(err.Msg)}, resultInvalid
	case promv1.ErrExec:
		return provisional("Prometheus can not evaluate the query: %s", tidy(err.Msg)), resultInvalid
	case promv1.ErrTimeout, promv1.ErrCanceled:
		return provisional("Prometheus did not answer in time"), resultTimeout
	case promv1.ErrClient, promv1.ErrServer:
		// The client's own words: "client error: 401".
		return provisional("Prometheus refuses to answer: %s", tidy(err.Msg)), resultError
	}
	return provisional("Prometheus gave no answer that can be read"), resultError
}

// warned is the reading for an answer that came with warnings: part of it may be missing.
func warned(warnings promv1.Warnings) reading {
	r := bad("Prometheus warns: %s", tidy(strings.Join(warnings, "; ")))
	r.provisional = true
	return r
}

var (
	userInfo = regexp.MustCompile(`://[^/@\s"]+@`)
	secrets  = regexp.MustCompile(`(?i)\b(bearer +|basic +|(?:token|password|secret)[=:] *)[^\s"&;,]{6,}`)
)

// tidy makes another program's words fit for a status: one line, bounded, no credentials.
func tidy(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "�")), " ")
	text = userInfo.ReplaceAllString(text, "://…@")
	text = secrets.ReplaceAllString(text, "${1}…")
	if len(text) <= maxMessage {
		return text
	}
	cut := maxMessage
	for !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}
