package environment_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"

	"sluice.dev/sluice/sandbox/environment"
)

func (n *namespace) kubectl(args ...string) string {
	n.t.Helper()
	all := append([]string{"--kubeconfig", plane.KubeConfig, "-n", n.Namespace}, args...)
	out, err := exec.CommandContext(n.t.Context(), plane.Kubectl, all...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (n *namespace) entries(app, version string) []string {
	n.t.Helper()
	return strings.Fields(n.kubectl("get", "workloadentries", "-l", "app="+app+",version="+version, "-o", "name"))
}

func (n *namespace) status(deployment string) (d appsv1.Deployment) {
	n.t.Helper()
	if err := json.Unmarshal([]byte(n.kubectl("get", "deployment", deployment, "-o", "json")), &d); err != nil {
		n.t.Fatal(err)
	}
	return d
}

func TestDeploymentsAreObeyed(t *testing.T) {
	n := deploy(t, "kubelet", environment.Options{})
	n.kubectl("rollout", "status", "deployment", "--timeout=10s")

	n.kubectl("scale", "deployment/reviews-v2", "--replicas=3")
	n.kubectl("rollout", "status", "deployment/reviews-v2", "--timeout=20s")
	if got := n.entries("reviews", "v2"); len(got) != 3 {
		t.Errorf("3 replicas have entries %v", got)
	}
	n.kubectl("scale", "deployment/reviews-v2", "--replicas=0")
	n.eventually("no entries of 0 replicas", func() bool { return len(n.entries("reviews", "v2")) == 0 })
	n.kubectl("rollout", "status", "deployment/reviews-v2", "--timeout=20s")

	before := n.entries("reviews", "v3")
	n.kubectl("set", "env", "deployment/reviews-v3", "ERROR_RATE=1")
	n.kubectl("rollout", "status", "deployment/reviews-v3", "--timeout=20s")
	after := n.entries("reviews", "v3")
	if len(after) != 1 || after[0] == before[0] {
		t.Errorf("a new template: entries %v, before %v", after, before)
	}
	n.apply(subsets + "---\n" + routes("reviews", toV3))
	n.eventually("the new template's errors", func() bool {
		status, _ := n.get("http://reviews:9080/reviews/0")
		return status == http.StatusInternalServerError
	})

	n.kubectl("set", "env", "deployment/reviews-v1", "READY=false")
	n.eventually("a rollout that hangs", func() bool { return n.status("reviews-v1").Status.UpdatedReplicas == 1 })
	if s := n.status("reviews-v1").Status; s.Replicas != 2 || s.AvailableReplicas != 1 {
		t.Errorf("the old pod should stay while the new one is not ready: %+v", s)
	}

	n.kubectl("delete", "deployment/reviews-v3")
	n.eventually("no entries of a deleted Deployment", func() bool { return len(n.entries("reviews", "v3")) == 0 })
}

// TestLateDeployment: what is deployed into an empty environment comes up.
func TestLateDeployment(t *testing.T) {
	n := deploy(t, "late", environment.Options{Empty: true})
	n.apply(`
apiVersion: v1
kind: Service
metadata: {name: recommendation}
spec: {selector: {app: recommendation}, ports: [{name: http, port: 8080, targetPort: web}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: recommendation-v2}
spec:
  selector: {matchLabels: {app: recommendation, version: v2}}
  template:
    metadata: {labels: {app: recommendation, version: v2}}
    spec: {containers: [{name: app, image: example.com/recommendation:v2, ports: [{name: web, containerPort: 8080}]}]}
`)
	n.kubectl("rollout", "status", "deployment/recommendation-v2", "--timeout=20s")
	n.eventually("an answer", func() bool {
		status, body := n.get("http://recommendation:8080/hello")
		return status == http.StatusOK && strings.Contains(body, "recommendation v2")
	})
}

func TestSetReady(t *testing.T) {
	n := deploy(t, "ready", environment.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := n.SetReady(ctx, "reviews-v3", false); err != nil {
		t.Fatal(err)
	}
	d := n.status("reviews-v3")
	if d.Status.ReadyReplicas != 0 || d.Status.Replicas != 1 || len(n.entries("reviews", "v3")) != 0 {
		t.Errorf("an unready Deployment: %+v, entries %v", d.Status, n.entries("reviews", "v3"))
	}
	if err := n.SetReady(ctx, "reviews-v3", true); err != nil {
		t.Fatal(err)
	}
	n.kubectl("wait", "deployment/reviews-v3", "--for=condition=Available", "--timeout=10s")
	if len(n.entries("reviews", "v3")) != 1 {
		t.Error("a ready pod has no entry")
	}
}

func TestClose(t *testing.T) {
	n := deploy(t, "close", environment.Options{})
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	if left := n.kubectl("get", "workloadentries", "-o", "name"); strings.Contains(left, "workloadentry") {
		t.Errorf("left behind: %s", left)
	}
}
