package validate

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// rendering is what the renderer's own tests write, see internal/mesh/corpus_test.go.
type rendering struct {
	Found  int            `json:"found"`
	Step   string         `json:"step"`
	Object map[string]any `json:"object"`
}

// TestIstioCorpus: every VirtualService in Istio's samples and tests, and those that the renderer's tests draw, are valid at every
// step of a run if they were before. The walk itself, and what it leaves as it was, is checked by the renderer's tests, which run
// in the product's module: this one can not import it.
func TestIstioCorpus(t *testing.T) {
	given := istioVirtualServices(t)
	if len(given) < 150 {
		t.Fatalf("%d VirtualServices found in Istio's samples and tests, want more than 150", len(given))
	}
	valid, invalid := map[int]bool{}, 0
	steps, drawn := 0, 0
	for _, r := range walkThrough(t, given) {
		data, err := json.Marshal(r.Object)
		if err != nil {
			t.Fatal(err)
		}
		err = admit(data)
		switch {
		case r.Step == "as found":
			valid[r.Found] = err == nil
			if err != nil {
				invalid++
			}
			if r.Found >= len(given) {
				drawn++
			}
		case !valid[r.Found]:
		case err != nil:
			t.Errorf("%s: %v in\n%s", r.Step, err, data)
		default:
			steps++
		}
	}
	t.Logf("%d VirtualServices of Istio's and %d drawn, %d of them invalid before; %d renderings validated", len(given), drawn, invalid, steps)
	if len(valid)-invalid < 200 || steps < 1500 {
		t.Errorf("only %d were valid before and %d renderings validated", len(valid)-invalid, steps)
	}
}

// walkThrough runs the renderer's tests over VirtualServices, and returns what they rendered.
func walkThrough(t *testing.T, given []any) []rendering {
	t.Helper()
	in, out := filepath.Join(t.TempDir(), "found.json"), filepath.Join(t.TempDir(), "rendered.json")
	data, err := json.Marshal(given)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(in, data, 0o600); err != nil {
		t.Fatal(err)
	}
	walk := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^TestCorpus$", "./internal/mesh", "-args", "-walk.in="+in, "-walk.out="+out)
	walk.Dir = "../../.."
	if text, err := walk.CombinedOutput(); err != nil {
		t.Fatalf("the renderer's tests: %v\n%s", err, text)
	}
	if data, err = os.ReadFile(out); err != nil {
		t.Fatal(err)
	}
	var all []rendering
	if err := json.Unmarshal(data, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

var documentStart = regexp.MustCompile(`(?m)^---.*$`)

// istioVirtualServices reads every VirtualService from the YAML files of the module istio.io/istio. A file that is a template, or
// that is broken on purpose, does not parse and is passed over.
func istioVirtualServices(t *testing.T) []any {
	t.Helper()
	where, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "istio.io/istio").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []any
	err = filepath.WalkDir(strings.TrimSpace(string(where)), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || (filepath.Ext(path) != ".yaml" && filepath.Ext(path) != ".yml") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(data, []byte("VirtualService")) {
			return err
		}
		for _, document := range documentStart.Split(string(data), -1) {
			var object map[string]any
			if yaml.Unmarshal([]byte(document), &object) == nil && object["kind"] == "VirtualService" && object["spec"] != nil {
				all = append(all, object)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
