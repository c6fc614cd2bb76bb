package main

import (
	"os"
	"path/filepath"
	"testing"

	"sluice.dev/sluice/internal/kustomization"
)

// What kustomize says of deprecated fields is no log line.
func TestQuiet(t *testing.T) {
	before := os.Stderr
	t.Cleanup(func() { os.Stderr = before })
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	os.Stderr = file
	if out := quiet(); out != file {
		t.Error("what quiet returns is not where the process logs to")
	}
	folder := t.TempDir()
	for name, content := range map[string]string{
		"kustomization.yaml": "resources: [a.yaml]\ncommonLabels: {team: a}\n",
		"a.yaml":             "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
	} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, ok := os.DirFS(folder).(kustomization.Tree)
	if !ok {
		t.Fatal("a folder is no tree")
	}
	if rendered, err := kustomization.Render(t.Context(), tree, "."); err != nil || len(rendered.Objects) != 1 {
		t.Fatalf("%d objects, error %v", len(rendered.Objects), err)
	}
	if said, err := os.ReadFile(file.Name()); err != nil || len(said) > 0 {
		t.Errorf("standard error has %q, error %v", said, err)
	}
}
