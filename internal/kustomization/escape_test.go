package kustomization

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"sigs.k8s.io/kustomize/api/hasher"
	"sigs.k8s.io/kustomize/api/resource"
)

// watchedTree tells of reads that a Tree does not promise to serve.
type watchedTree struct {
	fstest.MapFS
	t *testing.T
}

func (w watchedTree) ReadFile(name string) ([]byte, error) {
	if file := w.MapFS[name]; file == nil || !file.Mode.IsRegular() || path.Clean(name) != name {
		w.t.Errorf("%q is read, which is no regular file of the tree", name)
	}
	return w.MapFS.ReadFile(name)
}

// alarm is told of each request.
type alarm struct{ requested func(string) }

func (a alarm) RoundTrip(r *http.Request) (*http.Response, error) {
	a.requested(r.URL.String())
	return nil, errors.New("refused")
}

// No kustomization makes the process read what is not in the tree, ask a server, run git, or panic.
func FuzzRender(f *testing.F) {
	bin, marker := f.TempDir(), filepath.Join(f.TempDir(), "git-ran")
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\necho \"$@\" >"+marker+"\nexit 1\n"), 0o700); err != nil {
		f.Fatal(err)
	}
	f.Setenv("PATH", bin)
	var asked string
	before := http.DefaultTransport
	http.DefaultTransport = alarm{func(address string) { asked = address }}
	f.Cleanup(func() { http.DefaultTransport = before })
	for _, seed := range []string{
		"resources: [a.yaml, ../base]\nnamePrefix: x-", "resources: ['https://127.0.0.1:1/x']", "resources: [github.com/a/b]", "resources: ['git::git@h:a/b.git']", "resources: [../../x, /etc/passwd, link]",
		"generators: [\"apiVersion: builtin\\nkind: HelmChartInflationGenerator\\nmetadata: {name: x}\\nname: x\"]", "transformers: [a.yaml]", "openapi: {path: a.yaml}",
		"configMapGenerator: [{name: g, files: [a=a.yaml], envs: [.env], literals: [a=b]}]", "components: [part]", "crds: [a.yaml]\nresources: [a.yaml]",
		"resources: [a.yaml]\npatches: [{path: p.yaml}, {patch: \"- {op: copy, from: /a, path: /b}\", target: {kind: X}}]", "resources: [a.yaml]\npatchesStrategicMerge: [p.yaml, '{kind: X}']",
		"resources: [a.yaml]\nreplacements: [{sourceValue: .nan, targets: [{select: {kind: ConfigMap}, fieldPaths: [data.key]}]}]", "bases: [part]\nvars: []", "a: &a [*a]", "resources: ['a@b:c']", "images: [{name: a, newTag: b}]\nresources: [a.yaml]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		tree := treeOf("-- base/kustomization.yaml --\nresources: [b.yaml]\n-- base/b.yaml --\n" + fmt.Sprintf(configMap, "b", "1") + "-- app/a.yaml --\n" + fmt.Sprintf(configMap, "a", "1") +
			"-- app/p.yaml --\n" + fmt.Sprintf(configMap, "a", "2") + "-- app/.env --\nPATH\nA=b\n-- app/part/kustomization.yaml --\nnamePrefix: y\nkind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\n")
		tree["app/link"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("/etc")}
		tree["app/kustomization.yaml"] = &fstest.MapFile{Data: []byte(text)}
		_, err := Render(t.Context(), watchedTree{tree, t}, "app")
		if asked != "" {
			t.Fatalf("%q was asked for", asked)
		}
		if ran, readErr := os.ReadFile(marker); readErr == nil {
			t.Fatalf("git was run: %s", ran)
		}
		if err != nil && strings.Contains(err.Error(), "kustomize gave up") {
			t.Logf("recovered: %v", err)
		}
		if err != nil && !strings.Contains(err.Error(), "kustomization.yaml") {
			t.Errorf("an error that names no kustomization: %v", err)
		}
	})
}

// kustomize ends the process where it can not print an object; while it renders, that is a panic, and so an error.
func TestLogFatalIsAnError(t *testing.T) {
	object, err := resource.NewFactory(&hasher.Hasher{}).FromBytes([]byte("apiVersion: v1\nkind: X\nmetadata: {name: x}\nvalue: .nan\n"))
	if err != nil {
		t.Fatal(err)
	}
	var printed bytes.Buffer
	log.SetOutput(&printed)
	defer log.SetOutput(os.Stderr)
	defer guardLog()()
	log.Print("of others")
	defer func() {
		if crash := recover(); crash == nil {
			t.Error("no panic")
		}
		if !strings.Contains(printed.String(), "of others") {
			t.Errorf("what others log is %q", printed.String())
		}
	}()
	t.Log(object.MustYaml())
}
