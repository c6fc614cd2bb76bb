package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// TestMeshObjects: what people, and the API server's policies, do in mid-run to the objects that the team had before Sluice.
func TestMeshObjects(t *testing.T) {
	t.Parallel()
	s := newStage(t, "objects")
	s.follow(t)
	s.awaitServing(t, "v1")
	u := s.users(t)
	s.holdAtHalf(t, "v3")
	u.sawNothing(t)
	t.Run("edited by hand", func(t *testing.T) { editedByHand(t, s); u.sawNothing(t) })
	t.Run("VirtualService deleted", func(t *testing.T) { routesDeleted(t, s); u.sawNothing(t) })
	t.Run("DestinationRule deleted", func(t *testing.T) {
		ruleDeleted(t, s)
		// Routes that name a subset without a rule lead nowhere until it is back: this can not be kept from users.
		seen := u.forget()
		t.Logf("%d of %d requests failed for their users", seen.Failed, seen.Total)
	})
	t.Run("refused by admission", func(t *testing.T) { refusedByAdmission(t, s); u.sawNothing(t) })
	assertClean(t, s)
}

// Weights are put back, the step's clock starts afresh, and the rest stays as people want it.
func editedByHand(t *testing.T, s *stage) {
	edited := time.Now()
	vs := s.virtualService(t)
	change(t, s, vs, func(vs *networking.VirtualService) {
		vs.Labels = map[string]string{"team": "books"}
		primary := vs.Spec.Http[len(vs.Spec.Http)-1]
		primary.Timeout = durationpb.New(7 * time.Second)
		primary.Route[0].Weight, primary.Route[1].Weight = 95, 5
		vs.Spec.Http = append([]*istio.HTTPRoute{{
			Name:  "static",
			Match: []*istio.HTTPMatchRequest{{Uri: &istio.StringMatch{MatchType: &istio.StringMatch_Prefix{Prefix: "/static"}}}},
			Route: []*istio.HTTPRouteDestination{{Destination: &istio.Destination{Host: "details"}}},
		}}, vs.Spec.Http...)
	})
	s.awaitHalf(t, "v3", edited)
	got := s.virtualService(t)
	if !isHalf(got) {
		t.Errorf("the weights are %v, want 50 and 50", weights(got))
	}
	routes := got.Spec.Http
	if len(routes) != 2 || routes[0].Name != "static" || routes[1].Timeout.AsDuration() != 7*time.Second || got.Labels["team"] != "books" {
		t.Errorf("what was edited besides the weights is lost: labels %v, routes %v", got.Labels, routes)
	}
}

// What the team made is not made again by Sluice; the run waits for it, and goes on.
func routesDeleted(t *testing.T, s *stage) {
	vs := s.virtualService(t)
	if err := s.cluster.Client.Delete(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
	s.awaitTrouble(t, v1.PhaseStalled, v1.ReasonVirtualServiceNotFound, "VirtualService reviews")
	primary := vs.Spec.Http[len(vs.Spec.Http)-1]
	primary.Route = []*istio.HTTPRouteDestination{{Destination: &istio.Destination{Host: "reviews", Subset: "v1"}}}
	vs.ObjectMeta = metav1.ObjectMeta{Namespace: vs.Namespace, Name: vs.Name, Labels: vs.Labels}
	back := time.Now()
	if err := s.cluster.Client.Create(t.Context(), vs); err != nil {
		t.Fatal(err) // also if Sluice had made one in its place
	}
	s.awaitHalf(t, "v3", back)
	if got := s.virtualService(t); !isHalf(got) || got.UID != vs.UID {
		t.Errorf("the weights are %v in %s, want 50 and 50 in %s", weights(got), got.UID, vs.UID)
	}
}

// The rule is written again at once, whoever made it, and the step's clock starts afresh.
func ruleDeleted(t *testing.T, s *stage) {
	rule := &networking.DestinationRule{}
	if err := s.cluster.Client.Get(t.Context(), s.key("reviews"), rule); err != nil {
		t.Fatal(err)
	}
	deleted := time.Now()
	if err := s.cluster.Client.Delete(t.Context(), rule); err != nil {
		t.Fatal(err)
	}
	before := rule.UID
	s.awaitRule(t, before)
	s.awaitHalf(t, "v3", deleted)
	s.answers(t)
	if got := s.virtualService(t); !isHalf(got) {
		t.Errorf("the weights are %v, want 50 and 50", weights(got))
	}
}

// awaitRule waits for another rule than one that is gone, with the subsets of both versions.
func (s *stage) awaitRule(t *testing.T, gone types.UID) {
	t.Helper()
	eventually(t, "the rule is written again", func() bool {
		rule := &networking.DestinationRule{}
		err := s.cluster.Client.Get(t.Context(), s.key("reviews"), rule)
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		var subsets []string
		for _, subset := range rule.Spec.Subsets {
			subsets = append(subsets, subset.Name)
		}
		return err == nil && rule.UID != gone && strings.Join(subsets, " ") == "v1 v3"
	})
}

// A policy of the cluster refuses the next step: the one before stays in force, and the run goes on when the policy is gone.
func refusedByAdmission(t *testing.T, s *stage) {
	policy := fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: %[1]s}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [networking.istio.io], apiVersions: ["*"], operations: [CREATE, UPDATE], resources: [virtualservices]}]
  matchConditions: [{name: here, expression: "object.metadata.namespace == '%[1]s'"}]
  validations:
  - expression: "!object.spec.http.exists(r, r.route.exists(d, has(d.weight) && d.weight == 100))"
    message: nobody gets everything here
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: %[1]s}
spec: {policyName: %[1]s, validationActions: [Deny]}
`, s.Namespace)
	if err := s.cluster.Kube.Apply(t.Context(), "", []byte(policy)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the policy is in force", func() bool {
		trial := s.virtualService(t)
		routes := trial.Spec.Http[len(trial.Spec.Http)-1].Route
		routes[0].Weight, routes[1].Weight = 0, 100
		err := s.cluster.Client.Update(t.Context(), trial, client.DryRunAll)
		return err != nil && strings.Contains(err.Error(), "nobody gets everything here")
	})
	push(t, s, brief("v3", nil))
	r := s.awaitTrouble(t, v1.PhaseStalled, v1.ReasonMeshWriteRefused, "VirtualService reviews", "nobody gets everything here")
	if step := r.Status.Step; step.Name != "full" || step.Applied != nil {
		t.Errorf("step %s, its clock since %v; want full, whose clock stands still", step.Name, step.Applied)
	}
	if got := s.virtualService(t); !isHalf(got) {
		t.Errorf("the weights are %v, want 50 and 50 as before", weights(got))
	}
	if err := s.cluster.Kube.Delete(t.Context(), "", []byte(policy)); err != nil {
		t.Fatal(err)
	}
	s.awaitServing(t, "v3")
}
