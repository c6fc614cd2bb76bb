package main

import (
	"context"
	"testing"
	"time"

	v1 "k8s.io/api/events/v1"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
	testclock "k8s.io/utils/clock/testing"
)

type countingSink struct {
	events.EventSink
	sent int
}

func (s *countingSink) Create(_ context.Context, event *v1.Event) (*v1.Event, error) {
	s.sent++
	return event, nil
}

func TestEventsArePaced(t *testing.T) {
	clock := testclock.NewFakeClock(time.Unix(0, 0))
	inner := &countingSink{}
	sink := &pacedSink{EventSink: inner, limiter: flowcontrol.NewTokenBucketRateLimiterWithClock(1, 2, clock)}
	ctx, cancel := context.WithCancel(t.Context())
	for range 2 {
		if _, err := sink.Create(ctx, &v1.Event{}); err != nil {
			t.Fatal(err)
		}
	}
	cancel() // the third would have to wait
	if _, err := sink.Create(ctx, &v1.Event{}); err == nil || inner.sent != 2 {
		t.Errorf("%d events sent, error %v; 2 of a burst of 2 are to be sent at once", inner.sent, err)
	}
}
