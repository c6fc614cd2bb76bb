package controllertest

import (
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/setup"
)

// repository is what Git holds beside a Rollout that has gone from v1 to v3 since: routes as they were outside of runs, workloads without
// the API server's defaults, and now v4. NAMESPACE is the world's.
const repository = `
apiVersion: v1
kind: Namespace
metadata: {name: NAMESPACE}
---
apiVersion: v1
kind: Secret
metadata: {name: settings}
stringData: {same: not to be seen, other: nor this}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - {name: primary, route: [{destination: {host: reviews, subset: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v3}
spec:
  selector: {matchLabels: {app: reviews, version: v3}}
  template:
    metadata: {labels: {app: reviews, version: v3}}
    spec: {containers: [{name: reviews, image: "reviews:v3"}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews-v4}
spec:
  selector: {matchLabels: {app: reviews, version: v4}}
  template:
    metadata: {labels: {app: reviews, version: v4}}
    spec: {containers: [{name: reviews, image: "reviews:v4"}]}
---
apiVersion: sluice.dev/v1
kind: Rollout
metadata: {name: reviews}
spec:
  host: reviews
  version: v4
  initialVersion: v1
  gates: []
  steps: [{name: half, weight: 50}, {name: full, weight: 100}]
`

// TestPluginBesideTheCluster: what plan --live and diff say of the files is what a push of them would bring. What the Rollout drives stays,
// a workload is the one that runs, unless it changes, and then it is taken to run.
func TestPluginBesideTheCluster(t *testing.T) {
	t.Parallel()
	plugin, err := setup.BuildPlugin(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.adopt()
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "settings"}, StringData: map[string]string{"same": "not to be seen", "other": "nor that"}})
	w.rollout("host: reviews\nversion: v1\ngates: []\nsteps: [{name: half, weight: 50}, {name: full, weight: 100}]\n")
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.await("v3 serves", func(r *v1.Rollout) bool { return r.Status.Phase == v1.PhaseHealthy && r.Status.Stable == "v3" })
	file := w.file(repository)

	t.Run("plan", func(t *testing.T) {
		said, code := w.plug(plugin, "plan", "-f", file, "--live")
		contains(t, said, "Rollout "+w.namespace+"/reviews: v3 → v4 of reviews, 2 steps", "step 1/2 half: weight 50", "VirtualService edge", "+        subset: v4")
		lacks(t, said, "assumed", "before:", "subset: v1", "It would not get further")
		if code != 0 {
			t.Errorf("exit code %d, want 0", code)
		}
	})
	t.Run("diff", func(t *testing.T) {
		said, code := w.plug(plugin, "diff", "-f", file)
		in := w.namespace + "/"
		contains(t, said, "Deployment "+in+"reviews-v4 would be made", "Rollout "+in+"reviews would change", "+  version: v4",
			"Secret "+in+"settings would change", "-  other: '*** (before)'", "+  other: '*** (after)'", "step 1/2 half: weight 50")
		lacks(t, said, "Namespace", "VirtualService "+in, "DestinationRule "+in, "reviews-v3 would", "assumed", "before:", "It would not get further",
			base64.StdEncoding.EncodeToString([]byte("not to be seen")), base64.StdEncoding.EncodeToString([]byte("nor this")))
		if code != 1 {
			t.Errorf("exit code %d, want 1, since something differs", code)
		}
	})
	t.Run("held back", func(t *testing.T) {
		gone := w.file(strings.Replace(repository, "{name: primary, route:", "{name: other, match: [{uri: {prefix: /x}}], route:", 1))
		said, code := w.plug(plugin, "diff", "-f", gone)
		contains(t, said, "VirtualService "+w.namespace+"/reviews would be left as it is, HeldBack: ")
		if code != 1 {
			t.Errorf("exit code %d, want 1", code)
		}
	})
	w.deploy("v4", 1)
	t.Run("workloads that change", func(t *testing.T) {
		changed := w.file(strings.NewReplacer("reviews:v3", "reviews:v3.1", "reviews:v4", "reviews:v4.1").Replace(repository))
		for _, command := range [][]string{{"plan", "--live"}, {"diff"}} {
			said, code := w.plug(plugin, append(command, "-f", changed)...)
			contains(t, said, "v3 → v4 of reviews, 2 steps")
			lacks(t, said, "It would not get further")
			if code > 1 || (command[0] == "plan" && code != 0) {
				t.Errorf("%s: exit code %d", command[0], code)
			}
		}
	})
}

// file writes manifests of the world's namespace, and returns their path.
func (w *world) file(manifests string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), "manifests.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(manifests, "NAMESPACE", w.namespace)), 0o600); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// plug runs the plugin in the world's namespace, and returns all that it prints and its exit code.
func (w *world) plug(plugin string, args ...string) (string, int) {
	w.t.Helper()
	command := exec.CommandContext(w.t.Context(), plugin, append(args, "--kubeconfig", server.KubeConfig, "-n", w.namespace)...)
	out, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return string(out), command.ProcessState.ExitCode()
}

func contains(t *testing.T, said string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(said, part) {
			t.Errorf("it does not say %q:\n%s", part, said)
		}
	}
}

func lacks(t *testing.T, said string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if strings.Contains(said, part) {
			t.Errorf("it says %q:\n%s", part, said)
		}
	}
}
