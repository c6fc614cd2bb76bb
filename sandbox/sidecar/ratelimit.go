package sidecar

import (
	"net/http"
	"sync"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
)

const flagRateLimited = "RL"

// rateLimit is Envoy's local rate limit: one bucket of tokens for all requests.
type rateLimit struct {
	spec *ratelimitv3.LocalRateLimit

	mu     sync.Mutex
	tokens uint32
	filled time.Time
}

func newRateLimit(spec *ratelimitv3.LocalRateLimit) *rateLimit {
	return &rateLimit{spec: spec, tokens: spec.GetTokenBucket().GetMaxTokens(), filled: time.Now()}
}

func (l *rateLimit) apply(w http.ResponseWriter, _ *facts, e *exchange) bool {
	enforced := chance(l.spec.GetFilterEnabled().GetDefaultValue()) && chance(l.spec.GetFilterEnforced().GetDefaultValue())
	if l.spec.GetTokenBucket() == nil || !enforced || l.take(time.Now()) {
		return false
	}
	for _, o := range l.spec.GetResponseHeadersToAdd() {
		addHeader(w.Header(), o)
	}
	code := http.StatusTooManyRequests
	if own := l.spec.GetStatus().GetCode(); own != 0 {
		code = int(own)
	}
	e.flag(flagRateLimited)
	e.answer(w, code, "local_rate_limited")
	return true
}

func (l *rateLimit) take(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	bucket := l.spec.GetTokenBucket()
	if interval := bucket.GetFillInterval().AsDuration(); interval > 0 && now.Sub(l.filled) >= interval {
		fills := uint32(now.Sub(l.filled) / interval)
		l.filled = l.filled.Add(time.Duration(fills) * interval)
		l.tokens = min(bucket.GetMaxTokens(), l.tokens+fills*valueOr(bucket.GetTokensPerFill(), 1))
	}
	if l.tokens == 0 {
		return false
	}
	l.tokens--
	return true
}
