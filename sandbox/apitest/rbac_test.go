package apitest

import (
	"cmp"
	"testing"

	authorization "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const system = "sluice-system"

// The operator may do what it needs and no more; that it may act as service accounts is how GitSync is kept to their rights.
func TestOperatorRole(t *testing.T) {
	clients, err := kubernetes.NewForConfig(server.RESTConfig)
	if err != nil {
		t.Fatal(err)
	}
	install(t, clients)
	for _, access := range []struct {
		verb, group, resource, subresource string
		namespace, name                    string // empty: bookinfo, and all names
		allowed                            bool
	}{
		{verb: "patch", group: "sluice.dev", resource: "rollouts", allowed: true},
		{verb: "update", group: "sluice.dev", resource: "rollouts", subresource: "status", allowed: true},
		{verb: "create", group: "networking.istio.io", resource: "virtualservices", allowed: true},
		{verb: "update", group: "networking.istio.io", resource: "destinationrules", allowed: true},
		{verb: "impersonate", resource: "serviceaccounts", allowed: true},
		{verb: "patch", group: "sluice.dev", resource: "gitsyncs", subresource: "status", allowed: true},
		{verb: "create", group: "events.k8s.io", resource: "events", allowed: true},
		{verb: "create", group: "coordination.k8s.io", resource: "leases", namespace: system, allowed: true},
		{verb: "update", group: "coordination.k8s.io", resource: "leases", namespace: system, name: "sluice-operator", allowed: true},
		{verb: "update", group: "coordination.k8s.io", resource: "leases", namespace: system, name: "another"},
		{verb: "delete", group: "coordination.k8s.io", resource: "leases", namespace: system, name: "sluice-operator"},
		{verb: "get", group: "coordination.k8s.io", resource: "leases", name: "sluice-operator"},
		{verb: "create", resource: "events", namespace: system, allowed: true},
		{verb: "create", resource: "events"},
		{verb: "delete", group: "sluice.dev", resource: "rollouts"},
		{verb: "list", resource: "secrets"},
		{verb: "update", resource: "secrets"},
		{verb: "create", resource: "pods"},
		{verb: "update", group: "apps", resource: "deployments"},
		{verb: "impersonate", resource: "users"},
		{verb: "impersonate", resource: "groups"},
		{verb: "create", group: "rbac.authorization.k8s.io", resource: "clusterrolebindings"},
	} {
		review := &authorization.SubjectAccessReview{Spec: authorization.SubjectAccessReviewSpec{
			User: "system:serviceaccount:sluice-system:sluice-operator",
			// As the API server has it for a service account.
			Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + system, "system:authenticated"},
			ResourceAttributes: &authorization.ResourceAttributes{
				Namespace: cmp.Or(access.namespace, namespace), Name: access.name, Verb: access.verb, Group: access.group, Resource: access.resource, Subresource: access.subresource,
			},
		}}
		answer, err := clients.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), review, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status.Allowed != access.allowed {
			t.Errorf("%+v: allowed %v", access, answer.Status.Allowed)
		}
	}
}
