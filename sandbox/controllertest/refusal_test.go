package controllertest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	istio "istio.io/api/networking/v1alpha3"
	networking "istio.io/client-go/pkg/apis/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/setup"
)

var (
	errStillWriting = errors.New("something was written")
	errNotYet       = errors.New("it was not yet")
	errStillThere   = errors.New("it is still there")
)

func routeTo(host, subset string) *istio.VirtualService {
	return &istio.VirtualService{
		Hosts: []string{host},
		Http: []*istio.HTTPRoute{{
			Name:  "primary",
			Route: []*istio.HTTPRouteDestination{{Destination: &istio.Destination{Host: host, Subset: subset}}},
		}},
	}
}

func subsetOf(host, subset string) *istio.DestinationRule {
	return &istio.DestinationRule{Host: host, Subsets: []*istio.Subset{{Name: subset, Labels: map[string]string{"version": subset}}}}
}

func TestForeignHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout("host: details\nversion: v1\nsteps: []\n")
	r := w.awaitPhase(v1.PhaseStalled, v1.ReasonForeignHost)
	if !strings.Contains(r.Status.Message, "details") {
		t.Errorf("message %q does not name the host", r.Status.Message)
	}
	w.service("details")
	w.await("its Service was noticed", func(r *v1.Rollout) bool { return r.Status.Reason != v1.ReasonForeignHost })
}

// A host that is no Service's waits for its ServiceEntry; a rule for a wildcard, which one for the host would hide, for a person.
func TestForeignHostOfAServiceEntry(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(&networking.DestinationRule{
		ObjectMeta: metav1.ObjectMeta{Name: "partners"},
		Spec:       istio.DestinationRule{Host: "*.partner.com", TrafficPolicy: &istio.TrafficPolicy{Tls: &istio.ClientTLSSettings{Mode: istio.ClientTLSSettings_SIMPLE}}},
	})
	w.rollout("host: api.partner.com\nversion: v1\nsteps: []\n")
	w.awaitPhase(v1.PhaseStalled, v1.ReasonForeignHost)
	w.create(&networking.ServiceEntry{
		ObjectMeta: metav1.ObjectMeta{Name: "partner"},
		Spec: istio.ServiceEntry{
			Hosts: []string{"api.partner.com"}, Resolution: istio.ServiceEntry_STATIC,
			Ports:     []*istio.ServicePort{{Name: "http", Number: 80, Protocol: "HTTP"}},
			Endpoints: []*istio.WorkloadEntry{{Address: "192.0.2.1", Labels: map[string]string{"version": "v1"}}},
		},
	})
	r := w.awaitPhase(v1.PhaseStalled, v1.ReasonHostConflict)
	if !strings.Contains(r.Status.Message, "partners") {
		t.Errorf("message %q does not name the rule", r.Status.Message)
	}
	w.create(&networking.DestinationRule{ObjectMeta: metav1.ObjectMeta{Name: "partner"}, Spec: istio.DestinationRule{Host: "api.partner.com"}})
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
}

func TestRefusedByAdmission(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	policy := fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: %[1]s}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [networking.istio.io], apiVersions: ["*"], operations: [UPDATE], resources: [virtualservices]}]
  matchConditions: [{name: here, expression: "object.metadata.namespace == '%[1]s'"}]
  validations: [{expression: "!object.spec.http.exists(r, r.route.exists(d, has(d.weight) && d.weight == 50))", message: no halves here}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: %[1]s}
spec: {policyName: %[1]s, validationActions: [Deny]}
`, w.namespace)
	w.rollout(walk)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.awaitRoutes("reviews", "v1")
	if err := server.Kube.Apply(t.Context(), "", []byte(policy)); err != nil {
		t.Fatal(err)
	}
	w.eventually("the policy is in force", func() error {
		// A dry run on the newest version: neither a repair nor a conflict is taken for the policy.
		trial := &networking.VirtualService{}
		if err := w.client.Get(t.Context(), w.key("reviews"), trial); err != nil {
			return err
		}
		trial.Spec.Http[0].Route = []*istio.HTTPRouteDestination{
			{Destination: &istio.Destination{Host: "reviews", Subset: "v1"}, Weight: 50},
			{Destination: &istio.Destination{Host: "reviews", Subset: "v1"}, Weight: 50},
		}
		if err := w.client.Update(t.Context(), trial, client.DryRunAll); err == nil || !strings.Contains(err.Error(), "no halves here") {
			return fmt.Errorf("not refused by the policy: %w", err)
		}
		return nil
	})
	w.push("v3")
	r := w.awaitPhase(v1.PhaseStalled, v1.ReasonMeshWriteRefused)
	if !strings.Contains(r.Status.Message, "no halves here") {
		t.Errorf("message %q lacks the policy's", r.Status.Message)
	}
	if r.Status.Step.Applied != nil {
		t.Error("the step's clock runs although its traffic was refused")
	}
	w.awaitRoutes("reviews", "v3; v1 100, v3 0")
	if err := server.Kube.Delete(t.Context(), "", []byte(policy)); err != nil {
		t.Fatal(err)
	}
	w.await("v3 serves", func(r *v1.Rollout) bool { return r.Status.Stable == "v3" })
}

func TestIstioAbsentAndThenPresent(t *testing.T) {
	t.Parallel()
	bare, err := setup.StartAPI(t.Context(), controlplane.Options{SkipIstioCRDs: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(bare.Stop)
	o := runOperator(t, bare.KubeConfig)
	w := newWorldOn(t, bare, o)
	w.rollout(walk)
	r := w.awaitPhase(v1.PhaseStalled, v1.ReasonIstioNotInstalled)
	if !strings.Contains(r.Status.Message, "CRDs") {
		t.Errorf("message %q does not say what to install", r.Status.Message)
	}
	if err := bare.InstallIstioCRDs(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.await("v3 serves", func(r *v1.Rollout) bool { return r.Status.Stable == "v3" })
	w.awaitRoutes("reviews", "v3")
	// And absent again: with the kind went its objects.
	if err := bare.Kube.Delete(t.Context(), "", []byte(virtualServiceCRD)); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(v1.PhaseStalled, v1.ReasonIstioNotInstalled)
	if err := bare.InstallIstioCRDs(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.awaitRoutes("reviews", "v3")
}

const virtualServiceCRD = "{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: virtualservices.networking.istio.io}}"

func TestRightsThatAreMissing(t *testing.T) {
	t.Parallel()
	limited, err := setup.StartAPI(t.Context(), controlplane.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(limited.Stop)
	grant(t, limited, []rbacv1.PolicyRule{
		{APIGroups: []string{"sluice.dev"}, Resources: []string{"*"}, Verbs: []string{"*"}},
		{APIGroups: []string{"", "apps", "events.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"*"}},
		{APIGroups: []string{"networking.istio.io"}, Resources: []string{"virtualservices", "workloadentries"}, Verbs: []string{"*"}},
	})
	kubeconfig, err := limited.KubeConfigFor("limited", "system:authenticated")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorldOn(t, limited, runOperator(t, kubeconfig))
	w.rollout(walk)
	r := w.awaitPhase(v1.PhaseStalled, v1.ReasonForbidden)
	for _, want := range []string{"list", "destinationrules"} {
		if !strings.Contains(r.Status.Message, want) {
			t.Errorf("message %q lacks %q", r.Status.Message, want)
		}
	}
	grant(t, limited, []rbacv1.PolicyRule{
		{APIGroups: []string{"sluice.dev"}, Resources: []string{"*"}, Verbs: []string{"*"}},
		{APIGroups: []string{"", "apps", "events.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"*"}},
		{APIGroups: []string{"networking.istio.io"}, Resources: []string{"*"}, Verbs: []string{"get", "list", "watch"}},
	})
	w.await("the right to write is missed", func(r *v1.Rollout) bool {
		return r.Status.Reason == v1.ReasonForbidden && strings.Contains(r.Status.Message, "create")
	})
	grant(t, limited, []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}})
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.awaitRoutes("reviews", "v1")
	// A watch that stands is not cut off with the right to it: that shows when it has to begin anew.
	grant(t, limited, []rbacv1.PolicyRule{
		{APIGroups: []string{"sluice.dev"}, Resources: []string{"*"}, Verbs: []string{"*"}},
		{APIGroups: []string{"", "apps", "events.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"*"}},
		{APIGroups: []string{"networking.istio.io"}, Resources: []string{"destinationrules", "workloadentries"}, Verbs: []string{"*"}},
	})
	if err := limited.APIServer.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = w.awaitPhase(v1.PhaseStalled, v1.ReasonForbidden)
	for _, want := range []string{"list", "virtualservices"} {
		if !strings.Contains(r.Status.Message, want) {
			t.Errorf("message %q lacks %q", r.Status.Message, want)
		}
	}
	grant(t, limited, []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}})
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.await("v3 serves", func(r *v1.Rollout) bool { return r.Status.Stable == "v3" })
	// The right to watch alone: what is there can still be listed.
	grant(t, limited, []rbacv1.PolicyRule{
		{APIGroups: []string{"sluice.dev"}, Resources: []string{"*"}, Verbs: []string{"*"}},
		{APIGroups: []string{"", "apps", "events.k8s.io"}, Resources: []string{"*"}, Verbs: []string{"*"}},
		{APIGroups: []string{"networking.istio.io"}, Resources: []string{"destinationrules", "workloadentries", "serviceentries"}, Verbs: []string{"*"}},
		{APIGroups: []string{"networking.istio.io"}, Resources: []string{"virtualservices"}, Verbs: []string{"get", "list", "create", "update", "delete"}},
	})
	if err := limited.APIServer.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = w.awaitPhase(v1.PhaseStalled, v1.ReasonForbidden)
	for _, want := range []string{"cannot watch", "virtualservices"} {
		if !strings.Contains(r.Status.Message, want) {
			t.Errorf("message %q lacks %q", r.Status.Message, want)
		}
	}
	grant(t, limited, []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}})
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
}

// grant gives user limited these rights and no others.
func grant(t *testing.T, s *controlplane.ControlPlane, rules []rbacv1.PolicyRule) {
	t.Helper()
	c, err := newClient(s)
	if err != nil {
		t.Fatal(err)
	}
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "limited"}, Rules: rules}
	if err := c.Update(t.Context(), role); err != nil { // roles are created on update
		t.Fatal(err)
	}
	err = c.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "limited"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "limited"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "limited"}},
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

func runOperator(t *testing.T, kubeconfig string) *operator {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	o, err := startOperator(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.stop(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("the operator ended with %v", err)
		}
	})
	return o
}
