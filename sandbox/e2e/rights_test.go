package e2e

import (
	"slices"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/setup"
)

// limited is an operator whose rights come and go.
type limited struct {
	user, kubeconfig string
	// all are the rights that it should have.
	all []rbacv1.PolicyRule
}

// TestRights: an operator that lacks a right says which one, leaves the mesh as it is, and goes on when it has it. The team
// has no VirtualService of its own here: the one that Sluice makes is made again when somebody deletes it.
func TestRights(t *testing.T) {
	t.Parallel()
	l := limited{user: setup.UniqueName("sluice-operator-limited")}
	var err error
	l.kubeconfig, err = cluster.KubeConfigFor(l.user, "system:authenticated")
	if err != nil {
		t.Fatal(err)
	}
	l.all = operatorRules(t)
	l.grant(t, without(l.all, "destinationrules", "list"))
	s := newStageIn(t, cluster, "rights", []string{"rbac.yaml"}, "--kubeconfig="+l.kubeconfig)
	u := s.users(t)
	s.follow(t)
	t.Run("a kind that may not be listed", func(t *testing.T) {
		s.awaitTrouble(t, v1.PhaseStalled, v1.ReasonForbidden, "cannot list", "destinationrules", l.user)
		l.grant(t, l.all)
		s.awaitServing(t, "v1")
		if w := weights(s.virtualService(t)); w["v1"] != 100 {
			t.Errorf("the Rollout is Healthy and the weights are %v, want everything on v1", w)
		}
		u.sawNothing(t)
	})
	t.Run("a kind that may not be updated", func(t *testing.T) { updatesForbidden(t, s, l); u.sawNothing(t) })
	t.Run("what Sluice made is deleted", func(t *testing.T) { createdDeleted(t, s); u.sawNothing(t) })
	s.finish(t, "v3")
	u.sawNothing(t)
	assertClean(t, s)
}

func updatesForbidden(t *testing.T, s *stage, l limited) {
	l.grant(t, without(l.all, "virtualservices", "update"))
	eventually(t, "updates are forbidden", func() bool {
		return apierrors.IsForbidden(clientOf(t, l.kubeconfig).Update(t.Context(), s.virtualService(t), client.DryRunAll))
	})
	push(t, s, brief("v3", forGood))
	r := s.awaitTrouble(t, v1.PhaseStalled, v1.ReasonForbidden, "cannot update", "virtualservices", l.user)
	if r.Status.Step == nil || r.Status.Step.Applied != nil {
		t.Errorf("step %+v; want one whose clock stands still", r.Status.Step)
	}
	if w := weights(s.virtualService(t)); w["v1"] != 100 || w["v3"] != 0 {
		t.Errorf("the weights are %v, want everything on v1 as before", w)
	}
	l.grant(t, l.all)
	s.awaitHalf(t, "v3", time.Time{})
	if got := s.virtualService(t); !isHalf(got) {
		t.Errorf("the weights are %v, want 50 and 50", weights(got))
	}
}

func createdDeleted(t *testing.T, s *stage) {
	vs := s.virtualService(t)
	deleted := time.Now()
	if err := s.cluster.Client.Delete(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
	again := s.awaitRoutes(t, "v3", 50)
	t.Logf("VirtualService written again within %s", time.Since(deleted))
	if again.UID == vs.UID {
		t.Error("the VirtualService was not deleted")
	}
	s.awaitHalf(t, "v3", deleted)
}

// operatorRules are the operator's rights as config/rbac has them, each verb on each resource by itself.
func operatorRules(t *testing.T) []rbacv1.PolicyRule {
	t.Helper()
	role := &rbacv1.ClusterRole{}
	if err := cluster.Client.Get(t.Context(), types.NamespacedName{Name: "sluice-operator"}, role); err != nil {
		t.Fatal(err)
	}
	var single []rbacv1.PolicyRule
	for _, rule := range role.Rules {
		for _, resource := range rule.Resources {
			for _, verb := range rule.Verbs {
				single = append(single, rbacv1.PolicyRule{APIGroups: rule.APIGroups, Resources: []string{resource}, Verbs: []string{verb}})
			}
		}
	}
	return single
}

func without(rules []rbacv1.PolicyRule, resource, verb string) []rbacv1.PolicyRule {
	return slices.DeleteFunc(slices.Clone(rules), func(r rbacv1.PolicyRule) bool { return r.Resources[0] == resource && r.Verbs[0] == verb })
}

// grant gives the operator these rights and no others.
func (l limited) grant(t *testing.T, rules []rbacv1.PolicyRule) {
	t.Helper()
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: l.user}, Rules: rules}
	if err := cluster.Client.Update(t.Context(), role); err != nil { // roles are created on update
		t.Fatal(err)
	}
	err := cluster.Client.Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: l.user},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: l.user},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: l.user}},
	})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
}

func clientOf(t *testing.T, kubeconfig string) client.Client {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: cluster.Client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
