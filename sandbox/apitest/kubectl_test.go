package apitest

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	v1 "sluice.dev/sluice/api/v1"
)

// kubectl runs the API server's own kubectl and returns what it prints.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), server.Kubectl, append([]string{"--kubeconfig", server.KubeConfig}, args...)...)
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	if err := command.Run(); err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

// create stores an object with a status, in a namespace of the test's own.
func create(t *testing.T, space string, resource schema.GroupVersionResource, object, status any) {
	t.Helper()
	if err := server.CreateNamespace(t.Context(), space); err != nil {
		t.Fatal(err)
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		t.Fatal(err)
	}
	delete(fields, "status")
	created := store(t, space, resource, &unstructured.Unstructured{Object: fields})
	if created.Object["status"], err = runtime.DefaultUnstructuredConverter.ToUnstructured(status); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Resource(resource).Namespace(space).UpdateStatus(t.Context(), created, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestRolloutColumns(t *testing.T) {
	now := time.Now()
	since := metav1.NewMicroTime(now.Add(-12 * time.Minute))
	status := &v1.RolloutStatus{
		Stable: "v1", Canary: "v3", Weight: new(int32(50)), Since: &since, Mode: "mirror 100", Revision: "0123456789abcdef",
		Step:    &v1.StepStatus{Index: 4, Total: 7, Name: "sign-off", Display: "5/7 sign-off", StartedAt: since},
		Traffic: &v1.Traffic{Stable: v1.Target{Version: "v1", Subset: "v1"}, Weight: 50},
	}
	status.SetPhase(v1.PhaseWaiting, "Approval", "waits for a person", 1, metav1.NewTime(now))
	create(t, "columns", rollouts, &v1.Rollout{
		TypeMeta:   metav1.TypeMeta{APIVersion: "sluice.dev/v1", Kind: "Rollout"},
		ObjectMeta: metav1.ObjectMeta{Name: "reviews"},
		Spec:       v1.RolloutSpec{Host: "reviews", Version: "v3"},
	}, status)

	want := [][]string{
		{"NAME", "PHASE", "REASON", "STABLE", "VERSION", "STEP", "WEIGHT", "SINCE", "READY"},
		{"reviews", "Waiting", "Approval", "v1", "v3", "5/7 sign-off", "50", "12m", "False"},
	}
	for _, name := range []string{"rollouts", "slr"} {
		checkTable(t, kubectl(t, "get", name, "-n", "columns"), want)
	}
	wide := [][]string{
		append(want[0], "MODE", "REVISION", "MESSAGE", "AGE"),
		append(want[1], "mirror 100", "0123456789abcdef", "waits for a person", ""),
	}
	checkTable(t, kubectl(t, "get", "rollouts", "-n", "columns", "-o", "wide"), wide)
	if out := kubectl(t, "get", "sluice", "-n", "columns", "-o", "name"); strings.TrimSpace(out) != "rollout.sluice.dev/reviews" {
		t.Errorf("category sluice: %s", out)
	}
}

func TestGitSyncColumns(t *testing.T) {
	status := &v1.GitSyncStatus{Revision: "0123abc", Conditions: []metav1.Condition{{
		Type: v1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1.ReasonApplied, Message: "applied 0123abc",
		LastTransitionTime: metav1.Now(),
	}}}
	const url = "https://git.example.com/team/bookinfo.git"
	create(t, "git-columns", gitsyncs, &v1.GitSync{
		TypeMeta:   metav1.TypeMeta{APIVersion: "sluice.dev/v1", Kind: "GitSync"},
		ObjectMeta: metav1.ObjectMeta{Name: "bookinfo"},
		Spec:       v1.GitSyncSpec{URL: url},
	}, status)
	want := [][]string{
		{"NAME", "URL", "REVISION", "READY", "STATUS", "AGE"},
		{"bookinfo", url, "0123abc", "True", "applied 0123abc", ""},
	}
	for _, name := range []string{"gitsyncs", "gsy"} {
		checkTable(t, kubectl(t, "get", name, "-n", "git-columns"), want)
	}
}

// checkTable compares a printed table cell by cell; an empty wanted cell is any.
func checkTable(t *testing.T, out string, want [][]string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(want), out)
	}
	for i, line := range lines {
		// kubectl separates columns by three spaces.
		var cells []string
		for cell := range strings.SplitSeq(line, "   ") {
			if cell = strings.TrimSpace(cell); cell != "" {
				cells = append(cells, cell)
			}
		}
		if len(cells) != len(want[i]) {
			t.Errorf("got %q, want %q", cells, want[i])
			continue
		}
		for j, cell := range cells {
			if want[i][j] != "" && cell != want[i][j] {
				t.Errorf("column %s: got %q, want %q", want[0][j], cell, want[i][j])
			}
		}
	}
}

func TestExplain(t *testing.T) {
	for field, prose := range map[string]string{
		"rollout.spec.steps.fault.delay":            "Add a fixed delay before forwarding the request.",
		"rollout.spec.steps.fault.delay.fixedDelay": "Add a fixed delay before forwarding the request.",
		"rollout.spec.steps.match.headers":          "header keys must be lowercase",
		"rollout.spec.steps.hold":                   "the least time that the step lasts",
		"rollout.spec.gates.max":                    "a percentage",
		"rollout.spec.breaker.signals":              "outlier detection took endpoints out",
		"rollout.spec.destinationRule.trafficPolicy.connectionPool.http.http1MaxPendingRequests": "Maximum number of requests that will be queued",
		"rollout.spec.versions.trafficPolicy":                                                    "this version's subset",
		"gitsync.spec.serviceAccountName":                                                        "impersonated for every write",
	} {
		if out := kubectl(t, "explain", "--api-version=sluice.dev/v1", field); !strings.Contains(strings.Join(strings.Fields(out), " "), prose) {
			t.Errorf("explain %s does not say %q:\n%s", field, prose, out)
		}
	}
}
