package sidecar

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

const faultFilterName = "envoy.filters.http.fault"

// faultFilter is Envoy's fault filter as a route configures it. It stands
// before the router: what it injects is outside the route's timeout and
// retries.
type faultFilter struct {
	spec  *faultv3.HTTPFault
	match []predicate
}

func compileFault(perFilter map[string]*anypb.Any) (*faultFilter, error) {
	config, ok := perFilter[faultFilterName]
	if !ok {
		return nil, nil
	}
	f := &faultFilter{spec: &faultv3.HTTPFault{}}
	if err := config.UnmarshalTo(f.spec); err != nil {
		return nil, fmt.Errorf("%s: %w", faultFilterName, err)
	}
	for _, h := range f.spec.GetHeaders() {
		p, err := compileHeader(h)
		if err != nil {
			return nil, fmt.Errorf("%s: header %q: %w", faultFilterName, h.GetName(), err)
		}
		f.match = append(f.match, p)
	}
	return f, nil
}

// faultFor gives the fault of the most specific level that configures one.
func (c choice) faultFor(req *http.Request) (*faultFilter, error) {
	f := c.fault
	if own, err := compileFault(c.weighted.GetTypedPerFilterConfig()); err != nil || own != nil {
		f = own
		if err != nil {
			return nil, err
		}
	}
	if f == nil {
		return nil, nil
	}
	if upstream := f.spec.GetUpstreamCluster(); upstream != "" && upstream != c.cluster {
		return nil, nil
	}
	for _, p := range f.match {
		if !p(req) {
			return nil, nil
		}
	}
	return f, nil
}

// inject delays and aborts as configured; it tells whether the request was
// answered. The delay ends early when the client goes away.
func (f *faultFilter) inject(ctx context.Context, w http.ResponseWriter, e *exchange) (answered bool) {
	abort := f.spec.GetAbort()
	aborting := abort != nil && chance(abort.GetPercentage())
	if d := f.spec.GetDelay(); d != nil && chance(d.GetPercentage()) {
		e.flag(flagDelayInjected)
		if !pause(ctx, d.GetFixedDelay().AsDuration()) {
			return false
		}
	}
	if !aborting {
		return false
	}
	e.flag(flagFaultInjected)
	if grpc := abort.GetGrpcStatus(); grpc != 0 {
		e.grpcStatus = strconv.Itoa(int(grpc))
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", e.grpcStatus)
		w.Header().Set("Grpc-Message", "fault filter abort")
		e.answer(w, http.StatusOK, "")
		return true
	}
	e.answer(w, int(abort.GetHttpStatus()), "fault filter abort")
	return true
}

// pause waits; false means that the context ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
