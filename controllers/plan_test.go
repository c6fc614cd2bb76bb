package controllers

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	istio "istio.io/api/networking/v1alpha3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

const madeForDetails = `
kind: VirtualService
metadata: {name: reviews-fault-details, labels: {app.kubernetes.io/managed-by: sluice}}
spec:
  hosts: [details]
  http: [{name: sluice-fault-reviews-0, fault: {}, route: [{destination: {host: details}}]}, {name: primary, route: [{destination: {host: details}}]}]`

func described(changes []change) []string {
	var out []string
	for _, ch := range changes {
		verb := "update"
		if ch.want == nil {
			verb = "delete"
		} else if ch.found == nil {
			verb = "create"
		}
		out = append(out, fmt.Sprintf("%s %s", verb, ch.name))
	}
	return out
}

// Two fault steps in a row: what was made for the first one goes, and goes before the traffic of the second comes.
func TestAFaultEndsBeforeTheNextTrafficBegins(t *testing.T) {
	rollout := atHalf("reviews")
	rollout.Status.Traffic.Weight = 60
	rollout.Status.FaultVirtualService = &v1.ManagedVirtualService{Name: "reviews-fault-ratings", Created: true}
	abort := &istio.HTTPFaultInjection_Abort{ErrorType: &istio.HTTPFaultInjection_Abort_HttpStatus{HttpStatus: 503}}
	jason := &istio.HTTPMatchRequest{Headers: map[string]*istio.StringMatch{"end-user": {MatchType: &istio.StringMatch_Exact{Exact: "jason"}}}}
	fault := &v1.FaultInjection{Host: "ratings", Match: v1.HTTPMatches{jason}, Abort: abort}
	adopted := parse(t, madeForDetails)
	adopted.SetLabels(nil)
	for name, tc := range map[string]struct {
		left  *unstructured.Unstructured
		fault *v1.FaultInjection
		want  []string
	}{
		"made for the fault":  {parse(t, madeForDetails), fault, []string{"delete reviews-fault-details", "update reviews", "create reviews-fault-ratings"}},
		"found by it":         {adopted, fault, []string{"update reviews-fault-details", "update reviews", "create reviews-fault-ratings"}},
		"no fault afterwards": {parse(t, madeForDetails), nil, []string{"delete reviews-fault-details", "update reviews"}},
	} {
		t.Run(name, func(t *testing.T) {
			rollout.Status.Traffic.Fault = tc.fault
			p := &planner{rollout: rollout, notes: newNotes(), now: start, sight: &sight{virtualServices: []*unstructured.Unstructured{parse(t, halfRoutes), tc.left}}}
			if diff := cmp.Diff(tc.want, described(p.planRoutes())); diff != "" || p.problem != nil {
				t.Errorf("problem %+v, changes -want +got:\n%s", p.problem, diff)
			}
		})
	}
}

// On the way back users leave the canary first.
func TestTrafficGoesBackBeforeFaultsEnd(t *testing.T) {
	rollout := atHalf("reviews")
	back := rollout.Status.Traffic.AllStable()
	rollout.Status.Traffic = &back
	p := &planner{rollout: rollout, notes: newNotes(), now: start, sight: &sight{
		virtualServices: []*unstructured.Unstructured{parse(t, halfRoutes), parse(t, madeForDetails)},
	}}
	want := []string{"update reviews", "delete reviews-fault-details"}
	if diff := cmp.Diff(want, described(p.planRoutes())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
