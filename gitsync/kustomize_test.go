package gitsync

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

// A folder with a kustomization gives what that renders to, wherever it is; files beside it that it does not name are not applied.
func TestFetchKustomizations(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	object := func(name string) string { return strings.ReplaceAll(good, "good", name) }
	r.write("base/kustomization.yaml", "resources: [a.yaml]\n")
	r.write("base/a.yaml", object("a"))
	r.write("deploy/prod/kustomization.yaml", "resources: [../../base]\nnamePrefix: prod-\n")
	r.write("deploy/prod/unnamed.yaml", object("unnamed"))
	r.write("deploy/prod/below/b.yaml", object("below"))
	r.write("deploy/plain.yaml", object("plain"))
	r.write("deploy/test/Kustomization", "resources: [../../base]\nnamePrefix: test-\n")
	r.push()
	for path, want := range map[string][]string{
		"deploy/prod": {"deploy/prod/kustomization.yaml (rendered) ConfigMap prod-a"},
		"base":        {"base/kustomization.yaml (rendered) ConfigMap a"},
		"deploy": {
			"deploy/plain.yaml (document 1) ConfigMap plain", "deploy/prod/kustomization.yaml (rendered) ConfigMap prod-a",
			"deploy/test/Kustomization (rendered) ConfigMap test-a",
		},
	} {
		snapshot, err := (&Fetcher{}).Fetch(t.Context(), r.source(path, v1.GitRef{}), "")
		if err != nil {
			t.Fatal(err)
		}
		manifests, err := Decode(snapshot.Files)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, named(manifests)); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
}

// What is refused in a plain manifest is refused in what a kustomization renders to.
func TestDecodeRefusesRendered(t *testing.T) {
	for want, object := range map[string]string{
		"a/kustomization.yaml (rendered): ConfigMap a: the annotation sluice.dev/command is refused": `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","annotations":{"sluice.dev/command":"sync 1"}}}`,
		"metadata.labels: all values must be strings":                                                `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","labels":{"a":1}}}`,
	} {
		_, err := Decode([]File{{Path: "a/kustomization.yaml", Content: []byte(object), Rendered: true}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
