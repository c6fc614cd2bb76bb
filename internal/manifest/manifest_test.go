package manifest_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice.dev/sluice/internal/manifest"
)

const two = `# a comment
apiVersion: v1
kind: Service
metadata: {name: a}
--- # the second
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata:
    name: b
    labels: {"app.kubernetes.io/name": b}
  spec:
    ports:
    - {port: 80}
    - port: 81
---
# nothing
`

func TestPositions(t *testing.T) {
	objects, err := manifest.Read("x.yaml", []byte(two))
	if err != nil || len(objects) != 2 {
		t.Fatalf("%d objects, error %v; want 2", len(objects), err)
	}
	for _, c := range []struct {
		object     int
		path, want string
	}{
		{0, "", "x.yaml:2:1"},
		{0, "metadata.name", "x.yaml:4:12"},
		{0, "spec.selector", "x.yaml:2:1"},
		{1, "", "x.yaml:9:3"},
		{1, "spec.ports[0].port", "x.yaml:16:8"},
		{1, "spec.ports[1]", "x.yaml:17:7"},
		{1, "spec.ports[1].port", "x.yaml:17:7"},
		{1, "spec.ports[2].port", "x.yaml:15:5"},
		{1, `metadata.labels["app.kubernetes.io/name"]`, "x.yaml:13:14"},
	} {
		if got := objects[c.object].At(c.path).String(); got != c.want {
			t.Errorf("%s of %s stands at %s, want %s", c.path, objects[c.object].Ref(), got, c.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"syntax":          {"a: 1\n---\nb: [\n", "x.yaml:3:1: did not find"},
		"duplicate key":   {"kind: A\n---\napiVersion: v1\nkind: A\nkind: B\n", `x.yaml:5:1: key "kind" already set`},
		"keys twice":      {"kind: A\n---\napiVersion: v1\nkind: A\nkind: B\napiVersion: v2\n", `x.yaml:6:1: key "apiVersion" already set`},
		"second object":   {"kind: A\n---\n{kind: A, apiVersion: v1}\n--- {kind: B, apiVersion: v1}\n...\n{kind: C}\n", "x.yaml:4:1: a second document begins in it: put --- on a line of its own"},
		"no text":         {"a: \xff\n", "x.yaml:1:1: this is no text in UTF-8"},
		"no object":       {"- 1\n", "x.yaml:1:1: this is no object"},
		"no kind":         {"apiVersion: v1\n", "x.yaml:1:1: this is no Kubernetes object"},
		"item of no kind": {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}}\n- {a: 1}\n", "x.yaml:5:3: this is no Kubernetes object"},
		"item of no form": {"apiVersion: v1\nkind: List\nitems: [1]\n", "x.yaml:3:9: this is no Kubernetes object"},
		"List in a List":  {"apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: List, items: []}\n", "x.yaml:4:3: a List in a List is refused"},
		"one of several":  {"apiVersion: v1\nkind: Service\nmetadata: {name: a}\n---\nfoo: 1\n", "x.yaml:4:1: this is no Kubernetes object"},
	} {
		_, err := manifest.Read("x.yaml", []byte(c.text))
		var file *manifest.FileError
		if !errors.As(err, &file) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want %q", name, err, c.want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	object := func(name string) []byte {
		return []byte("apiVersion: v1\nkind: Service\nmetadata: {name: " + name + "}\n")
	}
	for file, content := range map[string][]byte{
		"a.yaml": object("a"), "b.json": []byte(`{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"}}`),
		"README.md": []byte("no manifest"), "below/c.yml": object("c"), ".hidden/d.yaml": object("d"), "below/.e.yaml": object("e"),
		"below/kustomized/kustomization.yaml": []byte("resources: [f.yaml]\nnamePrefix: new-\n"), "below/kustomized/f.yaml": object("f"),
	} {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pipe, err := net.Listen("unix", filepath.Join(dir, "pipe.yaml")) // reading it would wait, or fail
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pipe.Close() })
	for _, c := range []struct {
		names     []string
		recursive bool
		want      string
	}{
		{[]string{dir}, false, "a b"},
		{[]string{dir}, true, "a b c new-f"},
		{[]string{filepath.Join(dir, "below", "kustomized"), filepath.Join(dir, ".hidden")}, false, "new-f d"},
		{[]string{filepath.Join(dir, "below", "c.yml"), "-"}, false, "c stream"},
	} {
		objects, err := manifest.Load(t.Context(), c.names, c.recursive, strings.NewReader(string(object("stream"))))
		var names []string
		for _, o := range objects {
			names = append(names, o.GetName())
		}
		if diff := cmp.Diff(c.want, strings.Join(names, " ")); diff != "" || err != nil {
			t.Errorf("%v recursive=%v: error %v (-want +got):\n%s", c.names, c.recursive, err, diff)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	objects, err := manifest.Load(t.Context(), []string{link}, false, nil)
	if err != nil || len(objects) != 2 || objects[0].File != filepath.Join(link, "a.yaml") {
		t.Errorf("through a link to the folder: %d objects, error %v; want 2, in files below the link", len(objects), err)
	}
	if _, err := manifest.Load(t.Context(), []string{filepath.Join(dir, "none.yaml")}, false, nil); err == nil || !strings.Contains(err.Error(), "none.yaml: no such file") {
		t.Errorf("error %v, want one that names the missing file", err)
	}
	if _, err := manifest.Load(t.Context(), []string{t.TempDir()}, false, nil); err == nil || !strings.Contains(err.Error(), "no .yaml, .yml or .json file") {
		t.Errorf("error %v, want one that says that the folder is empty", err)
	}
}

// Objects of a kustomization stand where they come from, also under a prefix; what it makes itself stands in its own file.
func TestKustomize(t *testing.T) {
	dir := t.TempDir()
	for file, content := range map[string]string{
		"base/service.yaml":       "# first line\napiVersion: v1\nkind: Service\nmetadata: {name: shop}\nspec:\n  ports: [{port: 80}]\n",
		"base/kustomization.yaml": "resources: [service.yaml]\n",
		"prod/kustomization.yaml": "resources: [../base]\nnamePrefix: eu-\nconfigMapGenerator: [{name: settings, literals: [a=b]}]\n",
	} {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	objects, err := manifest.Kustomize(t.Context(), "prod")
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{}
	for _, o := range objects {
		places[o.GetKind()] = o.At("spec.ports[0].port").String()
	}
	want := map[string]string{"Service": "base/service.yaml:6:12", "ConfigMap": "prod/kustomization.yaml"}
	if diff := cmp.Diff(want, places); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
	if _, err := manifest.Kustomize(t.Context(), "none"); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("error %v, want one that names the folder", err)
	}
	if _, err := manifest.Kustomize(t.Context(), "prod/kustomization.yaml"); err == nil || !strings.Contains(err.Error(), "this is no folder") {
		t.Errorf("error %v, want one that asks for a folder", err)
	}
	if !manifest.IsKustomization("base") || manifest.IsKustomization(".") {
		t.Error("a kustomization is a folder with a file of that name")
	}
}

// The values of a stream stand in their lines.
func TestStream(t *testing.T) {
	objects, err := manifest.Read("x.json", []byte(strings.Repeat("{\"apiVersion\": \"v1\", \"kind\": \"A\"}\n", 100)))
	if err != nil || len(objects) != 100 || objects[99].At("kind").Line != 100 {
		t.Errorf("%d objects, error %v; want 100, the last one in line 100", len(objects), err)
	}
}
