package session

import (
	"context"
	"fmt"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// Seen is one change that the API server told of; exactly one of the objects is set.
type Seen struct {
	// At is when the change arrived here.
	At             time.Time
	Rollout        *v1.Rollout
	VirtualService *networking.VirtualService
	Event          *eventsv1.Event
}

// Watch tells of every change of the namespace's Rollouts and VirtualServices, and of the events about Sluice's kinds,
// until the context ends. What is there when it begins is told first, events of the past apart.
func (b *Bookinfo) Watch(ctx context.Context) (<-chan Seen, error) {
	began := time.Now().Add(-time.Second)
	out := make(chan Seen, 100)
	lists := []client.ObjectList{&v1.RolloutList{}, &networking.VirtualServiceList{}, &eventsv1.EventList{}}
	for _, list := range lists {
		stream, err := b.cluster.Client.Watch(ctx, list, client.InNamespace(b.Namespace))
		if err != nil {
			return nil, fmt.Errorf("watching %T in %s: %w", list, b.Namespace, err)
		}
		go forward(ctx, stream, out, began)
	}
	return out, nil
}

func forward(ctx context.Context, stream watch.Interface, out chan<- Seen, began time.Time) {
	defer stream.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case change, open := <-stream.ResultChan():
			if !open {
				return
			}
			seen, matters := seenOf(change.Object, began)
			if !matters {
				continue
			}
			select {
			case out <- seen:
			case <-ctx.Done():
				return
			}
		}
	}
}

func seenOf(object runtime.Object, began time.Time) (Seen, bool) {
	seen := Seen{At: time.Now()}
	switch o := object.(type) {
	case *v1.Rollout:
		seen.Rollout = o
	case *networking.VirtualService:
		seen.VirtualService = o
	case *eventsv1.Event:
		if o.Regarding.GroupVersionKind().Group != v1.GroupVersion.Group || o.EventTime.Time.Before(began) {
			return seen, false
		}
		seen.Event = o
	default:
		return seen, false
	}
	return seen, true
}

// IsWarning tells whether an event reports something bad.
func IsWarning(e *eventsv1.Event) bool { return e.Type == corev1.EventTypeWarning }
