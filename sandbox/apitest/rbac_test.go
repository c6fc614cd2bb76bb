package apitest

import (
	"path/filepath"
	"testing"

	authorization "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"sluice.dev/sluice/sandbox/binaries"
)

// The operator may do what it needs and no more; that it may act as service accounts is how GitSync is kept to their rights.
func TestOperatorRole(t *testing.T) {
	root, err := binaries.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "-k", filepath.Join(root, "config", "rbac"))
	clients, err := kubernetes.NewForConfig(server.RESTConfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, access := range []struct {
		verb, group, resource, subresource string
		allowed                            bool
	}{
		{"patch", "sluice.dev", "rollouts", "", true},
		{"update", "sluice.dev", "rollouts", "status", true},
		{"create", "networking.istio.io", "virtualservices", "", true},
		{"update", "networking.istio.io", "destinationrules", "", true},
		{"impersonate", "", "serviceaccounts", "", true},
		{"delete", "sluice.dev", "rollouts", "", false},
		{"list", "", "secrets", "", false},
		{"update", "", "secrets", "", false},
		{"create", "", "pods", "", false},
		{"update", "apps", "deployments", "", false},
		{"impersonate", "", "users", "", false},
		{"impersonate", "", "groups", "", false},
		{"create", "rbac.authorization.k8s.io", "clusterrolebindings", "", false},
	} {
		review := &authorization.SubjectAccessReview{Spec: authorization.SubjectAccessReviewSpec{
			User: "system:serviceaccount:sluice-system:sluice-operator",
			ResourceAttributes: &authorization.ResourceAttributes{
				Namespace: namespace, Verb: access.verb, Group: access.group, Resource: access.resource, Subresource: access.subresource,
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
