package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/scenario"
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
		assertPlanned(t, s, plugin, "reviews", func() { push(t, s, func(spec *v1.RolloutSpec) { spec.Version = scenario.Canary }) })
	})
	t.Run("adopt", func(t *testing.T) {
		t.Parallel()
		s := newGatewayStage(t, "plan-adopt")
		applyAdoption(t, s, "mesh.yaml")
		applyAdoption(t, s, "rollout.yaml")
		assertPlanned(t, s, plugin, "adopt", func() { editAdoption(t, s, func(spec *v1.RolloutSpec) { spec.Version = scenario.Canary }) })
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

func buildPlugin(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubectl-sluice")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/kubectl-sluice")
	build.Dir = cluster.Root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the plugin: %v: %s", err, out)
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
