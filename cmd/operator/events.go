package main

import (
	"context"
	"fmt"

	v1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	eventsv1 "k8s.io/client-go/kubernetes/typed/events/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/flowcontrol"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// The greatest rate of events per second, and how many may come at once. When many Rollouts move together, what tells of it
// waits behind what moves them. An event bears the time at which it was told all the same.
const eventRate, eventBurst = 50, 50

// newEvents returns where events are told, and what sends them.
func newEvents(config *rest.Config, scheme *runtime.Scheme) (events.EventRecorder, manager.Runnable, error) {
	client, err := eventsv1.NewForConfig(config)
	if err != nil {
		return nil, nil, fmt.Errorf("making a client for events: %w", err)
	}
	broadcaster := events.NewBroadcaster(&pacedSink{
		EventSink: &events.EventSinkImpl{Interface: client}, limiter: flowcontrol.NewTokenBucketRateLimiter(eventRate, eventBurst),
	})
	send := manager.RunnableFunc(func(ctx context.Context) error {
		// What was told before the end is sent as long as the process lives.
		if err := broadcaster.StartRecordingToSinkWithContext(context.WithoutCancel(ctx)); err != nil {
			return fmt.Errorf("sending events: %w", err)
		}
		<-ctx.Done()
		return nil
	})
	return broadcaster.NewRecorder(scheme, "sluice"), send, nil
}

// pacedSink sends events no faster than its limiter allows.
type pacedSink struct {
	events.EventSink
	limiter flowcontrol.RateLimiter
}

// Create implements events.EventSink.
func (s *pacedSink) Create(ctx context.Context, event *v1.Event) (*v1.Event, error) {
	if err := s.limiter.Wait(ctx); err != nil {
		return nil, fmt.Errorf("waiting to send an event: %w", err)
	}
	return s.EventSink.Create(ctx, event)
}

// Patch implements events.EventSink; an event that repeats is patched.
func (s *pacedSink) Patch(ctx context.Context, event *v1.Event, data []byte) (*v1.Event, error) {
	if err := s.limiter.Wait(ctx); err != nil {
		return nil, fmt.Errorf("waiting to send an event: %w", err)
	}
	return s.EventSink.Patch(ctx, event, data)
}
