package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/scenario"
	"sluice.dev/sluice/sandbox/setup"
)

// TestPlan: what kubectl sluice plan says of an example, offline, is what a run writes: each version of each VirtualService and
// DestinationRule, to the byte and in its order. Beside the cluster it says the same.
func TestPlan(t *testing.T) {
	t.Parallel()
	plugin := buildPlugin(t)
	t.Run("reviews", func(t *testing.T) {
		t.Parallel()
		s := newStage(t, "plan-reviews")
		if err := s.Follow(t.Context()); err != nil {
			t.Fatal(err)
		}
		assertPlanned(t, s, plugin, "reviews", func() { push(t, s, patiently) })
	})
	t.Run("adopt", func(t *testing.T) {
		t.Parallel()
		s := newGatewayStage(t, "plan-adopt")
		applyAdoption(t, s, "mesh.yaml")
		assertFirst(t, s, plugin)
		applyAdoption(t, s, "rollout.yaml")
		wait(t, s, v1.PhaseHealthy, v1.ReasonServing)
		assertDifferences(t, s, plugin, scenario.Stable, 0)
		said := assertDifferences(t, s, plugin, scenario.Canary, 1)
		for _, part := range []string{"-  version: v1\n", "+  version: v3\n", "step 1/4 shadow: weight 0, mirror 100", "VirtualService storefront.reviews"} {
			if !strings.Contains(said, part) {
				t.Errorf("diff does not say %q:\n%s", part, said)
			}
		}
		assertPlanned(t, s, plugin, "adopt", func() { editAdoption(t, s, func(spec *v1.RolloutSpec) { spec.Version = scenario.Canary }) })
		assertDifferences(t, s, plugin, scenario.Canary, 0)
	})
}

// assertPlanned runs an example from v1 to v3, which ask begins, and compares.
func assertPlanned(t *testing.T, s *stage, plugin, example string, ask func()) {
	t.Helper()
	wait(t, s, v1.PhaseHealthy, v1.ReasonServing)
	if _, err := s.StartLoad(t.Context(), rate); err != nil {
		t.Fatal(err)
	}
	offline := planned(t, plugin, "-f", filepath.Join(s.cluster.Root, "examples", example), "-n", s.Namespace, "--from", scenario.Stable, "--to", scenario.Canary)
	live := planned(t, plugin, "reviews", "--kubeconfig", s.cluster.KubeConfig, "-n", s.Namespace, "--to", scenario.Canary)
	if diff := cmp.Diff(offline, live); diff != "" {
		t.Errorf("beside the cluster another plan is made (-offline +live):\n%s", diff)
	}
	seen := record(t, s)
	ask()
	if _, err := s.WaitRollout(t.Context(), "v3 serves", func(r *v1.Rollout) bool {
		if r.Status.Phase == v1.PhaseRolledBack {
			t.Fatalf("rolled back: %s", r.Status.Message)
		}
		return r.Status.Phase == v1.PhaseHealthy && r.Status.Stable == scenario.Canary
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "as many versions are seen as were planned", func() bool { return len(seen.all()) >= len(offline) })
	if diff := cmp.Diff(offline, seen.all()); diff != "" {
		t.Errorf("the run wrote something else (-planned +written):\n%s", diff)
	}
	t.Logf("%d writes, as planned", len(offline))
}

// patiently asks for v3 with limits that a machine busy with other tests keeps as well: they have no part in what is written.
func patiently(spec *v1.RolloutSpec) {
	spec.Version = scenario.Canary
	for i := range spec.Gates {
		if spec.Gates[i].Metric == v1.MetricLatency {
			spec.Gates[i].Max = "1m"
		}
	}
	for i := range spec.Steps {
		if probe := spec.Steps[i].Probe; probe != nil {
			probe.MaxLatency, probe.MinSuccess = &metav1.Duration{Duration: time.Minute}, "1%"
		}
	}
}

// assertFirst: init writes a Rollout of what the cluster has, which lint and the API server accept.
func assertFirst(t *testing.T, s *stage, plugin string) {
	t.Helper()
	said, code := plug(t, plugin, "", "init", "reviews", "--kubeconfig", s.cluster.KubeConfig, "-n", s.Namespace)
	if code != 0 || !strings.Contains(said, "# Will be managed: VirtualService storefront.reviews") {
		t.Fatalf("init: exit code %d:\n%s", code, said)
	}
	if found, code := plug(t, plugin, said, "lint", "-f", "-"); code != 0 {
		t.Errorf("lint of what init wrote: exit code %d:\n%s", code, found)
	}
	if _, err := s.cluster.KubectlStdin(t.Context(), said, "apply", "-n", s.Namespace, "--dry-run=server", "-f", "-"); err != nil {
		t.Error(err)
	}
}

// assertDifferences runs diff on the example with a version, and returns what it says.
func assertDifferences(t *testing.T, s *stage, plugin, version string, want int) string {
	t.Helper()
	manifest, err := os.ReadFile(filepath.Join(s.cluster.Root, "examples", "adopt", "rollout.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(manifest), "version: v1", "version: "+version, 1)
	said, code := plug(t, plugin, text, "diff", "-f", "-", "--kubeconfig", s.cluster.KubeConfig, "-n", s.Namespace)
	if code != want || (want == 0 && said != "") {
		t.Errorf("diff with %s: exit code %d, want %d:\n%s", version, code, want, said)
	}
	return said
}

// plug runs the plugin, and returns what it prints and its exit code.
func plug(t *testing.T, plugin, stdin string, args ...string) (string, int) {
	t.Helper()
	command := exec.CommandContext(t.Context(), plugin, args...)
	command.Stdin = strings.NewReader(stdin)
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if problems.Len() > 0 {
		t.Logf("kubectl sluice %s: %s", strings.Join(args, " "), &problems)
	}
	return out.String(), command.ProcessState.ExitCode()
}

func buildPlugin(t *testing.T) string {
	t.Helper()
	path, err := setup.BuildPlugin(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// planned are the writes of a plan, object by object, each as one line.
func planned(t *testing.T, plugin string, args ...string) []string {
	t.Helper()
	var out, problems bytes.Buffer
	command := exec.CommandContext(t.Context(), plugin, append([]string{"plan", "-o", "json"}, args...)...)
	command.Stdout, command.Stderr = &out, &problems
	if err := command.Run(); err != nil {
		t.Fatalf("kubectl sluice plan %s: %v: %s%s", strings.Join(args, " "), err, &problems, &out)
	}
	var list struct {
		Plans []struct {
			Stages []struct {
				Writes []struct {
					Kind, Name string
					Object     *unstructured.Unstructured
				}
			}
		}
	}
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Plans) != 1 {
		t.Fatalf("%d plans, want one", len(list.Plans))
	}
	r := &recording{}
	for _, stage := range list.Plans[0].Stages {
		for _, w := range stage.Writes {
			r.add(w.Kind, w.Name, w.Object)
		}
	}
	return r.all()
}

// recording is what was written to each object, in its order. The order between objects has its own tests.
type recording struct {
	mu     sync.Mutex
	writes map[string][]string
}

func (r *recording) add(kind, name string, object *unstructured.Unstructured) {
	r.mu.Lock()
	defer r.mu.Unlock()
	content := "deleted"
	if object != nil {
		raw, err := json.Marshal(map[string]any{"spec": object.Object["spec"], "labels": object.GetLabels()})
		if err != nil {
			panic(err)
		}
		content = string(raw)
	}
	if r.writes == nil {
		r.writes = map[string][]string{}
	}
	key := kind + " " + name
	if n := len(r.writes[key]); n > 0 && strings.HasSuffix(r.writes[key][n-1], ": "+content) {
		return // of metadata alone, such as managed fields
	}
	r.writes[key] = append(r.writes[key], fmt.Sprintf("%s #%d: %s", key, len(r.writes[key])+1, content))
}

func (r *recording) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, lines := range r.writes {
		all = append(all, lines...)
	}
	slices.Sort(all)
	return all
}

// record watches the mesh's objects of the stage until the test ends.
func record(t *testing.T, s *stage) *recording {
	t.Helper()
	r := &recording{}
	for _, kind := range []string{"VirtualService", "DestinationRule"} {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(schema.GroupVersionKind{Group: "networking.istio.io", Version: "v1", Kind: kind + "List"})
		if err := s.cluster.Client.List(t.Context(), list, client.InNamespace(s.Namespace)); err != nil {
			t.Fatal(err)
		}
		options := &client.ListOptions{Namespace: s.Namespace}
		options.Raw = &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}
		stream, err := s.cluster.Client.Watch(t.Context(), list, options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stream.Stop)
		go r.follow(t.Context(), kind, stream)
	}
	return r
}

func (r *recording) follow(ctx context.Context, kind string, stream watch.Interface) {
	for {
		select {
		case <-ctx.Done():
			return
		case event, open := <-stream.ResultChan():
			object, ok := event.Object.(*unstructured.Unstructured)
			switch {
			case !open:
				return
			case !ok:
			case event.Type == watch.Deleted:
				r.add(kind, object.GetName(), nil)
			default:
				r.add(kind, object.GetName(), object)
			}
		}
	}
}
