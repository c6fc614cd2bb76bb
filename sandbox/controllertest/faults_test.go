package controllertest

import (
	"context"
	"fmt"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

// slowRatings is a fault test on ratings, of a host and a hold.
const slowRatings = `
host: %s
version: %s
gates: []
steps:
- name: slow
  hold: %s
  fault: {host: ratings, match: [{headers: {end-user: {exact: jason}}}], delay: {percentage: {value: 100}, fixedDelay: 7s}}
- {name: full, weight: 100}
`

var faultOwner = regexp.MustCompile(`^sluice-fault-(.+)-\d+$`)

// putRatings creates the VirtualService of ratings as its team had it.
func (w *world) putRatings() *networking.VirtualService {
	w.t.Helper()
	vs := &networking.VirtualService{
		ObjectMeta: metav1.ObjectMeta{Name: "ratings"},
		Spec: istio.VirtualService{Hosts: []string{"ratings"}, Http: []*istio.HTTPRoute{
			{Name: "all", Route: []*istio.HTTPRouteDestination{{Destination: &istio.Destination{Host: "ratings"}}}},
		}},
	}
	w.create(vs)
	return vs
}

// front is another Service of the same pods, with a Rollout that tests with ratings.
func (w *world) front(host string) {
	w.t.Helper()
	w.create(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: host}, Spec: corev1.ServiceSpec{
		Selector: map[string]string{"app": "reviews"}, Ports: []corev1.ServicePort{{Name: "http", Port: 9080}},
	}})
	r := &v1.Rollout{ObjectMeta: metav1.ObjectMeta{Name: host}}
	if err := yaml.UnmarshalStrict(fmt.Appendf(nil, slowRatings, host, "v1", "1s"), &r.Spec); err != nil {
		w.t.Fatal(err)
	}
	r.Spec.InitialVersion = "v1"
	w.create(r)
}

// other waits until another Rollout than reviews meets a condition.
func (w *world) other(name, what string, meets func(*v1.Rollout) bool) {
	w.t.Helper()
	r := &v1.Rollout{}
	w.eventually("Rollout "+name+" is "+what, func() error {
		if err := w.client.Get(w.t.Context(), w.key(name), r); err != nil {
			return err
		}
		if !meets(r) {
			return fmt.Errorf("it is %s %s: %s", r.Status.Phase, r.Status.Reason, r.Status.Message)
		}
		return nil
	})
}

func isFaultBusy(r *v1.Rollout) bool {
	return r.Status.Phase == v1.PhaseWaiting && r.Status.Reason == v1.ReasonFaultBusy
}

// TestThreeFaultsTakeTurns: of three Rollouts that test with the same dependency one does so at a time, the others wait, and its
// VirtualService is at last as it was.
func TestThreeFaultsTakeTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.service("ratings")
	before := w.putRatings().Spec.DeepCopy()
	w.rollout(fmt.Sprintf(slowRatings, "reviews", "v1", "1h") + "initialVersion: v1\n")
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	others := []string{"details", "orders"}
	for _, host := range others {
		w.front(host)
		w.other(host, "Healthy", func(r *v1.Rollout) bool { return r.Status.Phase == v1.PhaseHealthy })
	}
	owners := w.watchOwners()

	w.push("v3")
	w.awaitRoutes("ratings", " fault; ")
	for _, host := range others {
		r := &v1.Rollout{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: host}}
		if err := w.client.Patch(t.Context(), r, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"version":"v3"}}`))); err != nil {
			t.Fatal(err)
		}
		w.other(host, "busy", isFaultBusy)
	}
	w.edit(func(r *v1.Rollout) { r.Spec.Steps[0].Hold = nil })
	w.await("v3 serves", func(r *v1.Rollout) bool { return r.Status.Stable == "v3" })
	for _, host := range others {
		w.other(host, "on v3", func(r *v1.Rollout) bool { return r.Status.Phase == v1.PhaseHealthy && r.Status.Stable == "v3" })
	}
	after := w.awaitRoutes("ratings", "")
	if diff := cmp.Diff(before.String(), after.Spec.String()); diff != "" {
		t.Errorf("ratings' VirtualService changed for good (-before +after):\n%s", diff)
	}
	if seen := owners(); len(seen) != 3 {
		t.Errorf("faults were seen of %v, want of all three", seen)
	}
}

// watchOwners follows ratings' VirtualService, in no form of which two Rollouts have a fault; the result ends that, and tells whose
// faults were seen.
func (w *world) watchOwners() func() map[string]bool {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	stream, err := w.client.Watch(ctx, &networking.VirtualServiceList{}, client.InNamespace(w.namespace))
	if err != nil {
		w.t.Fatal(err)
	}
	seen, ended := map[string]bool{}, make(chan struct{})
	go func() {
		defer close(ended)
		for event := range stream.ResultChan() {
			vs, ok := event.Object.(*networking.VirtualService)
			if !ok || vs.Name != "ratings" || event.Type == watch.Deleted {
				continue
			}
			now := map[string]bool{}
			for _, route := range vs.Spec.Http {
				if match := faultOwner.FindStringSubmatch(route.Name); match != nil {
					now[match[1]], seen[match[1]] = true, true
				}
			}
			if len(now) > 1 {
				w.t.Errorf("faults of %v stand on ratings at once", now)
			}
		}
	}()
	return func() map[string]bool {
		cancel()
		<-ended
		return seen
	}
}

// TestFaultOnTheRolloutsOwnVirtualService: one VirtualService routes to both hosts; the step's traffic and its fault come in one
// write, stay beside each other, and go.
func TestFaultOnTheRolloutsOwnVirtualService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.service("ratings")
	prefix := &istio.HTTPMatchRequest{Uri: &istio.StringMatch{MatchType: &istio.StringMatch_Prefix{Prefix: "/ratings"}}}
	books := &networking.VirtualService{
		ObjectMeta: metav1.ObjectMeta{Name: "books"},
		Spec: istio.VirtualService{Hosts: []string{"reviews", "ratings"}, Http: []*istio.HTTPRoute{
			{Name: "ratings", Match: []*istio.HTTPMatchRequest{prefix}, Route: []*istio.HTTPRouteDestination{{Destination: &istio.Destination{Host: "ratings"}}}},
			{Name: "reviews", Route: []*istio.HTTPRouteDestination{{Destination: &istio.Destination{Host: "reviews"}}}},
		}},
	}
	w.create(books)
	w.rollout(fmt.Sprintf(slowRatings, "reviews", "v1", "1h") + "initialVersion: v1\n")
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	rest := w.awaitRoutes("books", "; v1").Spec.DeepCopy()
	w.push("v3")
	w.awaitRoutes("books", " fault; ; v3; v1 100, v3 0")
	w.push("v1")
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	if after := w.awaitRoutes("books", "; v1"); rest.String() != after.Spec.String() {
		t.Errorf("-before +after:\n%s", cmp.Diff(rest.String(), after.Spec.String()))
	}
}

// TestUnscopedFaultIsRefused where the operator's flag is off, before the run begins, and nothing is written.
func TestUnscopedFaultIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(`
host: reviews
version: v1
initialVersion: v1
steps:
- {name: all, weight: 10, fault: {scope: Everyone, traffic: Unchanged, abort: {percentage: {value: 1}, httpStatus: 400}}}
`)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	if r := w.awaitPhase(v1.PhaseStalled, v1.ReasonUnscopedFault); r.Status.Run != nil {
		t.Errorf("a run began: %+v", r.Status.Run)
	}
	w.awaitRoutes("reviews", "v1")
	w.edit(func(r *v1.Rollout) { r.Spec.Steps = nil })
	w.await("without it the run begins", func(r *v1.Rollout) bool { return r.Status.Run != nil || r.Status.Stable == "v3" })
}
