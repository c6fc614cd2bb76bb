package apitest

import (
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"sluice.dev/sluice/sandbox/binaries"
)

// install applies what a user applies, and returns the Deployment as it is stored.
func install(t *testing.T, clients kubernetes.Interface) *appsv1.Deployment {
	t.Helper()
	root, err := binaries.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "apply", "--server-side", "--force-conflicts", "-k", filepath.Join(root, "config", "default"))
	deployment, err := clients.AppsV1().Deployments(system).Get(t.Context(), "sluice-operator", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return deployment
}

// The operator's pods are admitted in their namespace, which enforces the restricted Pod Security Standard.
func TestPodSecurity(t *testing.T) {
	clients, err := kubernetes.NewForConfig(server.RESTConfig)
	if err != nil {
		t.Fatal(err)
	}
	template := install(t, clients).Spec.Template
	for name, tt := range map[string]struct {
		change func(*corev1.PodSpec)
		refuse string
	}{
		"as it is": {change: func(*corev1.PodSpec) {}},
		"as root": {
			change: func(p *corev1.PodSpec) { p.SecurityContext.RunAsNonRoot, p.SecurityContext.RunAsUser = nil, nil },
			refuse: "runAsNonRoot",
		},
		"with escalation": {
			change: func(p *corev1.PodSpec) { p.Containers[0].SecurityContext.AllowPrivilegeEscalation = nil },
			refuse: "allowPrivilegeEscalation",
		},
		"with capabilities": {
			change: func(p *corev1.PodSpec) { p.Containers[0].SecurityContext.Capabilities = nil },
			refuse: "capabilities",
		},
		"without seccomp": {
			change: func(p *corev1.PodSpec) { p.SecurityContext.SeccompProfile = nil },
			refuse: "seccompProfile",
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: *template.Spec.DeepCopy()}
			pod.GenerateName = "sluice-operator-"
			tt.change(&pod.Spec)
			made, err := clients.CoreV1().Pods(system).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if tt.refuse != "" {
				if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), tt.refuse) {
					t.Errorf("want it refused for its %s, got %v", tt.refuse, err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c := made.Spec.Containers[0].SecurityContext; !ptr.Deref(c.ReadOnlyRootFilesystem, false) {
				t.Error("the root file system is writable")
			}
		})
	}
}

// What is installed belongs together: Services and the budget select the operator's pods, and the ports exist.
func TestInstallation(t *testing.T) {
	clients, err := kubernetes.NewForConfig(server.RESTConfig)
	if err != nil {
		t.Fatal(err)
	}
	deployment := install(t, clients)
	pods := deployment.Spec.Template
	ports := map[string]bool{}
	for _, port := range pods.Spec.Containers[0].Ports {
		ports[port.Name] = true
	}
	selects := func(what string, selector map[string]string) {
		t.Helper()
		for key, value := range selector {
			if pods.Labels[key] != value {
				t.Errorf("%s selects %s=%s, the pods have %q", what, key, value, pods.Labels[key])
			}
		}
	}
	for _, name := range []string{"sluice-hooks", "sluice-metrics"} {
		service, err := clients.CoreV1().Services(system).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		selects("Service "+name, service.Spec.Selector)
		if target := service.Spec.Ports[0].TargetPort.StrVal; !ports[target] {
			t.Errorf("Service %s goes to port %q, which the pods do not have", name, target)
		}
	}
	budget, err := clients.PolicyV1().PodDisruptionBudgets(system).Get(t.Context(), "sluice-operator", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	selects("the PodDisruptionBudget", budget.Spec.Selector.MatchLabels)
	if replicas := *deployment.Spec.Replicas; budget.Spec.MinAvailable.IntValue() >= int(replicas) {
		t.Errorf("the budget of %d lets no pod of %d go", budget.Spec.MinAvailable.IntValue(), replicas)
	}
	if image := pods.Spec.Containers[0].Image; !strings.HasPrefix(image, "sluice-operator:") {
		t.Errorf("image %q, want one that kustomize can set by the name sluice-operator", image)
	}
}
