package gitsynctest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

// What Git says of the routing, for ever.
const (
	virtualService = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - {name: primary, timeout: 1s, route: [{destination: {host: reviews, subset: v1}}]}
`
	destinationRule = `apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
`
	// half is what the status of a Rollout in mid-run holds of it.
	half = `
stable: v1
canary: v3
run: {number: 1, from: v1, to: v3, startedAt: "2026-03-01T11:00:00.000000Z"}
traffic: {stable: {version: v1, subset: v1, labels: {version: v1}}, canary: {version: v3, subset: v3, labels: {version: v3}}, weight: 50}
subsets: [{name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}, added: true}]
virtualServices: [{name: reviews, routes: [{key: primary, subset: v1}]}]
destinationRule: {name: reviews}
`
)

// setStatus plays the Rollout's controller, which does not run here.
func (w *world) setStatus(text string) {
	w.t.Helper()
	r := &v1.Rollout{}
	w.must(admin.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "reviews"}, r))
	r.Status = v1.RolloutStatus{}
	w.must(yaml.UnmarshalStrict([]byte(text), &r.Status))
	w.must(admin.Status().Update(w.t.Context(), r))
}

func (w *world) virtualService() *networking.VirtualService {
	w.t.Helper()
	vs := &networking.VirtualService{}
	w.must(admin.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "reviews"}, vs))
	return vs
}

func (w *world) rule() *networking.DestinationRule {
	w.t.Helper()
	rule := &networking.DestinationRule{}
	w.must(admin.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: "reviews"}, rule))
	return rule
}

// routes are the VirtualService's routes with their time-outs and weights, and the rule's subsets.
func (w *world) routes() string {
	w.t.Helper()
	var lines []string
	for _, route := range w.virtualService().Spec.Http {
		line := fmt.Sprintf("%s %s", route.Name, route.Timeout.AsDuration())
		for _, end := range route.Route {
			line += fmt.Sprintf(" %s=%d", end.Destination.Subset, end.Weight)
		}
		lines = append(lines, line)
	}
	line := "rule"
	for _, subset := range w.rule().Spec.Subsets {
		line += fmt.Sprintf(" %s=%s", subset.Name, subset.Labels["version"])
	}
	return strings.Join(append(lines, line), "; ")
}

func (w *world) routesAre(want string) {
	w.t.Helper()
	if got := w.routes(); got != want {
		w.t.Errorf("the routing is %q, want %q", got, want)
	}
}

// writeHalf does to the mesh what the Rollout does for the status half.
func (w *world) writeHalf() {
	w.t.Helper()
	w.setStatus(half)
	rule := w.rule()
	w.must(yaml.Unmarshal([]byte(`{subsets: [{name: v1, labels: {version: v1}}, {name: v3, labels: {version: v3}}]}`), &rule.Spec))
	w.must(admin.Update(w.t.Context(), rule, client.FieldOwner("sluice")))
	vs := w.virtualService()
	w.must(yaml.Unmarshal([]byte(`{http: [{name: primary, timeout: 1s, route: [{destination: {host: reviews, subset: v1}, weight: 50}, {destination: {host: reviews, subset: v3}, weight: 50}]}]}`), &vs.Spec))
	w.must(admin.Update(w.t.Context(), vs, client.FieldOwner("sluice")))
}

// driven brings up a namespace whose routing and Rollout came from Git in one revision, and are in mid-run by now.
func driven(t *testing.T) *world {
	w := newWorld(t)
	w.allow("default", "*")
	first := w.push("deploy/rollout.yaml", rollout, "deploy/rule.yaml", destinationRule, "deploy/vs.yaml", virtualService)
	w.sync(nil)
	w.applied(first)
	w.routesAre("primary 1s v1=0; rule v1=v1")
	w.writeHalf()
	return w
}

// A push arrives but for the traffic, which is the Rollout's, in mid-run and after another version was promoted.
func TestPushThroughARollout(t *testing.T) {
	w := driven(t)
	before := w.virtualService()
	w.passes(3)
	if after := w.virtualService(); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("drift correction fights the Rollout: %s", w.routes())
	}
	w.applied(w.push("deploy/vs.yaml", strings.Replace(virtualService, "1s", "2s", 1), "deploy/rule.yaml", strings.Replace(destinationRule, "host: reviews,", "host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}},", 1)))
	w.routesAre("primary 2s v1=50 v3=50; rule v1=v1 v3=v3")
	if policy := w.rule().Spec.TrafficPolicy; policy == nil {
		t.Error("the pushed trafficPolicy did not arrive")
	}
	vs := w.virtualService()
	vs.Spec.Http[0].Timeout = nil
	w.must(admin.Update(t.Context(), vs))
	w.eventually("an edit by hand to be put back", func(context.Context) error {
		if got := w.routes(); got != "primary 2s v1=50 v3=50; rule v1=v1 v3=v3" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})

	// A rollback that is committed and not written yet; then it is written.
	w.setStatus(strings.Replace(half, "canary: {version: v3, subset: v3, labels: {version: v3}}, weight: 50", "weight: 0", 1))
	w.applied(w.push("deploy/vs.yaml", strings.Replace(virtualService, "1s", "3s", 1)))
	w.routesAre("primary 3s v1=50 v3=50; rule v1=v1 v3=v3")
	vs = w.virtualService()
	vs.Spec.Http[0].Route = vs.Spec.Http[0].Route[:1]
	vs.Spec.Http[0].Route[0].Weight = 0
	w.must(admin.Update(t.Context(), vs))
	w.applied(w.push("deploy/vs.yaml", strings.Replace(virtualService, "1s", "4s", 1)))
	w.routesAre("primary 4s v1=0; rule v1=v1 v3=v3")

	// v3 was promoted; Git says v1 as ever.
	w.setStatus(strings.NewReplacer("stable: v1", "stable: v3", "canary: v3", "previous: v1",
		"traffic: {stable: {version: v1, subset: v1, labels: {version: v1}}, canary: {version: v3, subset: v3, labels: {version: v3}}, weight: 50}",
		"traffic: {stable: {version: v3, subset: v3, labels: {version: v3}}, weight: 0}").Replace(half))
	vs = w.virtualService()
	vs.Spec.Http[0].Route[0].Destination.Subset = "v3"
	w.must(admin.Update(t.Context(), vs))
	w.applied(w.push("deploy/vs.yaml", strings.Replace(virtualService, "1s", "5s", 1)))
	w.routesAre("primary 5s v3=0; rule v1=v1 v3=v3")

	// The Rollout goes: from now on Git alone says where the traffic goes.
	_, err := w.work.Git(t.Context(), "rm", "--quiet", "deploy/rollout.yaml")
	w.must(err)
	w.applied(w.push())
	w.eventually("Git's own routing", func(context.Context) error {
		if got := w.routes(); got != "primary 5s v1=0; rule v1=v1" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

// A route that a Rollout drives is not taken from under it; everything else of the revision arrives.
func TestPushWithoutTheDrivenRoute(t *testing.T) {
	w := driven(t)
	commit := w.push("deploy/vs.yaml", strings.Replace(virtualService, "primary", "renamed", 1), "deploy/a.yaml", configMap("a", "1"))
	sync := w.ready(v1.ReasonHeldBack, "deploy/vs.yaml (document 1): VirtualService "+w.namespace+"/reviews is held back: Rollout reviews drives its route primary")
	if sync.Status.Revision == commit || sync.Status.AttemptedRevision != commit || !meta.IsStatusConditionTrue(sync.Status.Conditions, v1.ConditionReconciling) {
		t.Errorf("status %+v", sync.Status)
	}
	if _, err := w.configMap("a"); err != nil {
		t.Errorf("the rest of the revision: %v", err)
	}
	w.routesAre("primary 1s v1=50 v3=50; rule v1=v1 v3=v3")

	// Without its Rollout, which goes although the revision is not whole, it is Git's.
	_, err := w.work.Git(t.Context(), "rm", "--quiet", "deploy/rollout.yaml")
	w.must(err)
	w.applied(w.push())
	w.eventually("Git's own routing", func(context.Context) error {
		if got := w.routes(); got != "renamed 1s v1=0; rule v1=v1" {
			return fmt.Errorf("%s", got)
		}
		return nil
	})
}

// What a Rollout drives is released when it leaves the repository.
func TestDrivenObjectsAreReleased(t *testing.T) {
	w := driven(t)
	_, err := w.work.Git(t.Context(), "rm", "--quiet", "deploy/vs.yaml", "deploy/rule.yaml")
	w.must(err)
	sync := w.applied(w.push())
	if got := len(sync.Status.Inventory); got != 1 {
		t.Errorf("inventory %+v, want the Rollout alone", sync.Status.Inventory)
	}
	w.routesAre("primary 1s v1=50 v3=50; rule v1=v1 v3=v3")
	w.eventually("an event", func(context.Context) error {
		if got := w.events(); got["Released"] != 1 || got["Pruned"] != 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// While a Rollout writes weights as fast as it can, pushes arrive and none of them moves one.
func TestPushesRaceTheRollout(t *testing.T) {
	w := driven(t)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { done <- w.walk(ctx) }()
	for i := range 4 {
		w.applied(w.push("deploy/vs.yaml", strings.Replace(virtualService, "1s", fmt.Sprint(i+2, "s"), 1)))
		if timeout := w.virtualService().Spec.Http[0].Timeout.AsDuration(); timeout != time.Duration(i+2)*time.Second {
			t.Errorf("push %d: the time-out is %s", i, timeout)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// walk commits one weight after the other, writes it, and fails when the one before is not there any more.
func (w *world) walk(ctx context.Context) error {
	key := client.ObjectKey{Namespace: w.namespace, Name: "reviews"}
	for last := int32(50); ; {
		next := last%100 + 1
		r, vs := &v1.Rollout{}, &networking.VirtualService{}
		if err := admin.Get(ctx, key, r); err != nil {
			return ignoreEnd(ctx, err)
		}
		r.Status.Traffic.Weight = next
		if err := admin.Status().Update(ctx, r); metaReason(err) == metav1.StatusReasonConflict {
			continue // a push marked the Rollout with its commit
		} else if err != nil {
			return ignoreEnd(ctx, err)
		}
		for wrote := false; !wrote; {
			if err := admin.Get(ctx, key, vs); err != nil {
				return ignoreEnd(ctx, err)
			}
			ends := vs.Spec.Http[0].Route
			if len(ends) != 2 || ends[0].Weight != 100-last || ends[1].Weight != last {
				return fmt.Errorf("weights are %v, the Rollout wrote %d last", ends, last)
			}
			ends[0].Weight, ends[1].Weight = 100-next, next
			err := admin.Update(ctx, vs, client.FieldOwner("sluice"))
			if wrote = err == nil; err != nil && metaReason(err) != metav1.StatusReasonConflict {
				return ignoreEnd(ctx, err)
			}
		}
		last = next
	}
}
