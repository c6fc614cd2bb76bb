package mesh

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

var update = flag.Bool("update", false, "write the goldens instead of comparing with them")

// scene is a golden's input: a Rollout with its status, and the objects found.
type scene struct {
	rollout *v1.Rollout
	found   []*unstructured.Unstructured
}

func readScene(t *testing.T, file string) scene {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var s scene
	for i, document := range bytes.Split(data, []byte("\n---\n")) {
		if i == 0 {
			s.rollout = &v1.Rollout{}
			if err := yaml.UnmarshalStrict(document, s.rollout); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			continue
		}
		s.found = append(s.found, parseObject(t, document))
	}
	return s
}

func parseObject(t testing.TB, document []byte) *unstructured.Unstructured {
	t.Helper()
	data, err := yaml.YAMLToJSON(document)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return u
}

func (s scene) object(kind, name string) *unstructured.Unstructured {
	for _, u := range s.found {
		if u.GetKind() == kind && u.GetName() == name {
			return u
		}
	}
	return nil
}

// render gives every object of the scene as status wants it.
func (s scene) render(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	var out []*unstructured.Unstructured
	add := func(u *unstructured.Unstructured, problem *Problem) {
		t.Helper()
		if problem != nil {
			t.Fatalf("%s: %s", problem.Reason, problem.Message)
		}
		if u != nil {
			out = append(out, u)
		}
	}
	status := s.rollout.Status
	add(DestinationRule(s.rollout, s.object("DestinationRule", status.DestinationRule.Name), nil))
	for _, vs := range status.VirtualServices {
		add(VirtualService(s.rollout, vs, s.object("VirtualService", vs.Name)))
	}
	if f := status.FaultVirtualService; f != nil && managedOf(s.rollout, f.Name) != nil {
		driven := out[len(out)-1]
		out = out[:len(out)-1]
		add(FaultVirtualService(s.rollout, f, driven))
	} else if f != nil {
		add(FaultVirtualService(s.rollout, f, s.object("VirtualService", f.Name)))
	}
	return out
}

func toYAML(t *testing.T, objects []*unstructured.Unstructured) string {
	t.Helper()
	documents := make([]string, 0, len(objects))
	for _, u := range objects {
		data, err := yaml.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		documents = append(documents, string(data))
	}
	return strings.Join(documents, "---\n")
}

// TestGoldens: NAME.in.yaml renders to NAME.out.yaml, and rendering the result again changes nothing.
func TestGoldens(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d goldens, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".in.yaml"), func(t *testing.T) {
			s := readScene(t, file)
			before := toYAML(t, s.found)
			rendered := s.render(t)
			got := toYAML(t, rendered)
			if after := toYAML(t, s.found); after != before {
				t.Errorf("rendering changed what was found:\n%s", cmp.Diff(before, after))
			}
			golden := strings.Replace(file, ".in.", ".out.", 1)
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", golden, diff)
			}
			again := scene{rollout: s.rollout, found: rendered}
			if diff := cmp.Diff(got, toYAML(t, again.render(t))); diff != "" {
				t.Errorf("rendering twice changes something (-once +twice):\n%s", diff)
			}
		})
	}
}
