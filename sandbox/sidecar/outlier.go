package sidecar

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// outlierPolicy is a cluster's passive health checking.
type outlierPolicy struct {
	consecutive5xx     uint32 // 0: off
	consecutiveGateway uint32
	interval           time.Duration
	baseEjection       time.Duration
	maxEjection        time.Duration
	maxPercent         uint32
}

// hostHealth is what outlier detection remembers of a host.
type hostHealth struct {
	in5xx, inGateway uint32
	ejections        uint32 // the multiplier of the base ejection time
	until            time.Time
}

func (h hostHealth) ejected(now time.Time) bool { return now.Before(h.until) }

func newOutlierPolicy(spec *clusterv3.OutlierDetection) *outlierPolicy {
	if spec == nil {
		return nil
	}
	o := &outlierPolicy{
		consecutive5xx: valueOr(spec.GetConsecutive_5Xx(), 5),
		interval:       durationOr(spec.GetInterval(), 10*time.Second),
		baseEjection:   durationOr(spec.GetBaseEjectionTime(), 30*time.Second),
		maxEjection:    durationOr(spec.GetMaxEjectionTime(), 300*time.Second),
		maxPercent:     valueOr(spec.GetMaxEjectionPercent(), 10),
	}
	if valueOr(spec.GetEnforcingConsecutive_5Xx(), 100) == 0 {
		o.consecutive5xx = 0
	}
	if valueOr(spec.GetEnforcingConsecutiveGatewayFailure(), 0) > 0 {
		o.consecutiveGateway = valueOr(spec.GetConsecutiveGatewayFailure(), 5)
	}
	o.maxEjection = max(o.maxEjection, o.baseEjection)
	return o
}

func valueOr(v *wrapperspb.UInt32Value, fallback uint32) uint32 {
	if v == nil {
		return fallback
	}
	return v.GetValue()
}

func durationOr(d *durationpb.Duration, fallback time.Duration) time.Duration {
	if d == nil {
		return fallback
	}
	return d.AsDuration()
}

// observe counts a host's answer (a failure to answer counts as 503 or 504)
// and ejects the host when it failed too often in a row.
func (c *cluster) observe(h *host, code int, now time.Time) {
	if c.outlier == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h = c.current(h)
	if h == nil {
		return
	}
	h.health.count(code)
	o := c.outlier
	over5xx := o.consecutive5xx > 0 && h.health.in5xx >= o.consecutive5xx
	overGateway := o.consecutiveGateway > 0 && h.health.inGateway >= o.consecutiveGateway
	if (over5xx || overGateway) && !h.health.ejected(now) && c.mayEject(now) {
		h.health.eject(o, now)
	}
}

// current finds the host's present value: discovery may have replaced it.
func (c *cluster) current(old *host) *host {
	for _, h := range c.hosts {
		if h.address == old.address {
			return h
		}
	}
	return nil
}

func (h *hostHealth) count(code int) {
	if code < 500 {
		h.in5xx, h.inGateway = 0, 0
		return
	}
	h.in5xx++
	if code >= 502 && code <= 504 {
		h.inGateway++
		return
	}
	h.inGateway = 0
}

// eject takes the host out: longer each time, and up to the next interval,
// because Envoy brings hosts back at its intervals only.
func (h *hostHealth) eject(o *outlierPolicy, now time.Time) {
	if !h.until.IsZero() && o.interval > 0 { // the multiplier falls with each interval in good health
		h.ejections -= min(h.ejections, uint32(now.Sub(h.until)/o.interval))
	}
	h.ejections++
	h.in5xx, h.inGateway = 0, 0
	h.until = now.Add(min(time.Duration(h.ejections)*o.baseEjection, o.maxEjection))
}

// mayEject keeps to the greatest share of ejected hosts; one may always go.
func (c *cluster) mayEject(now time.Time) bool {
	n := c.ejected(now)
	return n == 0 || 100*(n+1) <= int(c.outlier.maxPercent)*len(c.hosts)
}

func (c *cluster) ejected(now time.Time) int {
	n := 0
	for _, h := range c.hosts {
		if h.health.ejected(now) {
			n++
		}
	}
	return n
}

func (c *cluster) ejections(now time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ejected(now)
}
