package kustomization

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// treeOf makes a tree of files given as "-- NAME --" followed by their content.
func treeOf(text string) fstest.MapFS {
	tree := fstest.MapFS{}
	var name string
	for line := range strings.Lines(text) {
		if header, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSuffix(strings.TrimSpace(header), " --")
			tree[name] = &fstest.MapFile{}
		} else if name != "" {
			tree[name].Data = append(tree[name].Data, line...)
		}
	}
	return tree
}

// summary names the objects with their version label and image.
func summary(t *testing.T, rendered Rendered) []string {
	t.Helper()
	var all []string
	for _, encoded := range rendered.Objects {
		var object struct {
			Kind     string
			Metadata struct {
				Name, Namespace string
				Labels          map[string]string
			}
			Data map[string]string
			Spec struct {
				Version  string
				Selector struct{ MatchLabels map[string]string }
				Template struct {
					Metadata struct{ Labels map[string]string }
					Spec     struct{ Containers []struct{ Image string } }
				}
			}
		}
		if err := json.Unmarshal(encoded, &object); err != nil {
			t.Fatal(err)
		}
		line := object.Kind + " " + object.Metadata.Name
		if version := object.Spec.Template.Metadata.Labels["version"]; version != "" {
			line += fmt.Sprintf(" %s %s %s", version, object.Spec.Selector.MatchLabels["version"], object.Spec.Template.Spec.Containers[0].Image)
		}
		for _, key := range []string{"key", "file.txt"} {
			if value, ok := object.Data[key]; ok {
				line += " " + key + "=" + strings.TrimSpace(value)
			}
		}
		all = append(all, line)
	}
	return all
}

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s}\ndata: {key: %q}\n"

const inPlace = `
-- app/kustomization.yaml --
resources: [deployment.yaml, rollout.yaml]
replacements:
- source: {kind: Rollout, name: reviews, fieldPath: spec.version}
  targets:
  - select: {kind: Deployment, name: reviews}
    fieldPaths: [spec.selector.matchLabels.version, spec.template.metadata.labels.version]
  - select: {kind: Deployment, name: reviews}
    fieldPaths: ["spec.template.spec.containers.[name=reviews].image"]
    options: {delimiter: ":", index: 1}
  - select: {kind: Deployment, name: reviews}
    fieldPaths: [metadata.name]
    options: {delimiter: "-", index: 1}
-- app/deployment.yaml --
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec:
  selector: {matchLabels: {app: reviews, version: VERSION}}
  template:
    metadata: {labels: {app: reviews, version: VERSION}}
    spec: {containers: [{name: reviews, image: "example/reviews:VERSION"}]}
-- app/rollout.yaml --
apiVersion: sluice.dev/v1
kind: Rollout
metadata: {name: reviews}
spec: {host: reviews, version: v2}
`

func TestRender(t *testing.T) {
	for name, tc := range map[string]struct {
		tree, folder string
		want         []string
	}{
		"resources": {"-- app/kustomization.yaml --\nresources: [a.yaml]\n-- app/a.yaml --\n" + fmt.Sprintf(configMap, "a", "1"), "app", []string{"ConfigMap a key=1"}},
		"root":      {"-- Kustomization --\nresources: [a.yaml]\nnamePrefix: x-\n-- a.yaml --\n" + fmt.Sprintf(configMap, "a", "1"), ".", []string{"ConfigMap x-a key=1"}},
		"base and a file beside it, above the folder": {
			"-- deploy/prod/kustomization.yml --\nresources: [../base, ../common.yaml]\npatches: [{path: patch.yaml}]\n-- deploy/prod/patch.yaml --\n" + fmt.Sprintf(configMap, "a", "2") +
				"-- deploy/base/kustomization.yaml --\nresources: [a.yaml]\n-- deploy/base/a.yaml --\n" + fmt.Sprintf(configMap, "a", "1") + "-- deploy/common.yaml --\n" + fmt.Sprintf(configMap, "c", "3"),
			"deploy/prod",
			[]string{"ConfigMap a key=2", "ConfigMap c key=3"},
		},
		"generator": {
			"-- app/kustomization.yaml --\nconfigMapGenerator: [{name: g, files: [file.txt, key=.hidden], options: {disableNameSuffixHash: true}}]\n-- app/file.txt --\ntext: [\n-- app/.hidden --\nh\n", "app",
			[]string{"ConfigMap g key=h file.txt=text: ["},
		},
		"component": {
			"-- app/kustomization.yaml --\nresources: [a.yaml]\ncomponents: [part]\n-- app/a.yaml --\n" + fmt.Sprintf(configMap, "a", "1") +
				"-- app/part/kustomization.yaml --\napiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnameSuffix: -x\n", "app",
			[]string{"ConfigMap a-x key=1"},
		},
		"a file that only looks remote": {"-- app/kustomization.yaml --\nresources: [./github.com/a/b.yaml]\n-- app/github.com/a/b.yaml --\n" + fmt.Sprintf(configMap, "a", "1"), "app", []string{"ConfigMap a key=1"}},
		"a version in place":            {inPlace, "app", []string{"Deployment reviews-v2 v2 v2 example/reviews:v2", "Rollout reviews"}},
		"a name of several parts": {
			strings.NewReplacer("metadata: {name: reviews}\nspec:\n", "metadata: {name: my-app}\nspec:\n", "{kind: Deployment, name: reviews}", "{kind: Deployment, name: my-app}",
				`"-", index: 1`, `"-", index: 2`).Replace(inPlace), "app",
			[]string{"Deployment my-app-v2 v2 v2 example/reviews:v2", "Rollout reviews"},
		},
		"a registry with a port": {
			strings.NewReplacer("example/reviews:VERSION", "example:5000/reviews:VERSION", `":", index: 1`, `":", index: 2`).Replace(inPlace), "app",
			[]string{"Deployment reviews-v2 v2 v2 example:5000/reviews:v2", "Rollout reviews"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			rendered, err := Render(t.Context(), treeOf(tc.tree), tc.folder)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, summary(t, rendered)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What could leave the repository, run a program, be lost, or grow without bound is refused by file and field, before kustomize
// sees it.
func TestRenderRefuses(t *testing.T) {
	const a = "-- app/a.yaml --\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"
	k := func(text string) string { return "-- app/kustomization.yaml --\n" + text + "\n" + a }
	for name, tc := range map[string]struct{ tree, want string }{
		"https resource":     {k("resources: [a.yaml, 'https://127.0.0.1:1/x.yaml']"), `app/kustomization.yaml: resources[1]: "https://127.0.0.1:1/x.yaml" is or looks like a remote address`},
		"github":             {k("resources: [GitHub.com/a/b]"), "looks like a remote address"},
		"scp":                {k("resources: ['git@example.com:a/b']"), "looks like a remote address"},
		"forced git":         {k("components: ['git::https://example.com/a/b']"), "app/kustomization.yaml: components[0]: "},
		"file url":           {k("resources: ['file:///etc']"), "looks like a remote address"},
		"remote base":        {k("bases: ['https://example.com/a/b?ref=v1']"), "resources[0]: "},
		"remote patch":       {k("resources: [a.yaml]\npatches: [{path: 'http://127.0.0.1:1/p.yaml'}]"), "patches[0].path: "},
		"remote json patch":  {k("resources: [a.yaml]\npatchesJson6902: [{path: 'http://127.0.0.1:1/p.yaml', target: {kind: X, name: a}}]"), "patchesJson6902[0].path: "},
		"remote merge patch": {k("resources: [a.yaml]\npatchesStrategicMerge: ['http://127.0.0.1:1/p.yaml']"), "patchesStrategicMerge[0]: "},
		"remote replacement": {k("resources: [a.yaml]\nreplacements: [{path: 'http://127.0.0.1:1/p.yaml'}]"), "replacements[0].path: "},
		"remote file":        {k("configMapGenerator: [{name: g, files: ['k=http://127.0.0.1:1/p']}]"), "configMapGenerator[0].files[0]: "},
		"remote env":         {k("secretGenerator: [{name: g, envs: ['http://127.0.0.1:1/p']}]"), "secretGenerator[0].envs[0]: "},
		"remote old env":     {k("configMapGenerator: [{name: g, env: 'http://127.0.0.1:1/p'}]"), "configMapGenerator[0].envs[0]: "},
		"remote crds":        {k("resources: [a.yaml]\ncrds: ['http://127.0.0.1:1/p']"), "crds[0]: "},
		"remote config":      {k("resources: [a.yaml]\nconfigurations: ['http://127.0.0.1:1/p']"), "configurations[0]: "},
		"other case":         {k("Resources: ['http://127.0.0.1:1/p']"), "resources[0]: "},
		"two signs":          {k("configMapGenerator: [{name: g, files: ['k=a=http://127.0.0.1:1/p']}]"), "must be a path or key=path"},
		"absolute":           {k("resources: [/etc/passwd]"), "is absolute"},
		"outside":            {k("resources: [../../etc/passwd]"), `"../../etc/passwd" leaves the repository`},
		"outside by detour":  {k("resources: [x/../../../etc]"), "leaves the repository"},
		"missing":            {k("resources: [gone/b.yaml]"), "app/kustomization.yaml: resources[0]: app/gone is not in the repository"},
		"folder as a patch":  {k("resources: [a.yaml]\npatches: [{path: ../app}]"), "patches[0].path: app is a folder"},
		"file as component":  {k("components: [a.yaml]"), "must be a folder with a component"},
		"plain folder":       {k("resources: [plain]") + "-- app/plain/b.yaml --\nx: 1\n", "folder app/plain has no kustomization.yaml"},
		"two kustomizations": {k("resources: [a.yaml]") + "-- app/Kustomization --\nresources: []\n", "has kustomization.yaml and Kustomization: keep one"},
		"generators":         {k("generators: [a.yaml]"), "app/kustomization.yaml: generators: refused, plugins do not run here"},
		"transformers":       {k("transformers: ['{apiVersion: builtin, kind: PatchTransformer, metadata: {name: p}, path: \"http://127.0.0.1:1/p\"}']"), "transformers: refused"},
		"validators":         {k("validators: [a.yaml]"), "validators: refused"},
		"helm":               {k("helmCharts: [{name: x}]"), "helmCharts: refused"},
		"old helm":           {k("helmChartInflationGenerator: [{chartName: x}]"), "helmCharts: refused"},
		"openapi":            {k("openapi: {path: a.yaml}"), "openapi: refused"},
		"vars":               {k("vars: [{name: X, objref: {kind: ConfigMap, name: a, apiVersion: v1}}]"), "vars: refused"},
		"copy":               {k("resources: [a.yaml]\npatches: [{target: {kind: ConfigMap}, patch: '[{\"\\u006fp\": \"c\\u006fpy\", \"from\": \"/metadata\", \"path\": \"/metadata/x\"}]'}]"), "patches[0]: the operation copy is refused"},
		"copy in a file":     {k("resources: [a.yaml]\npatches: [{target: {kind: ConfigMap}, path: p.yaml}]") + "-- app/p.yaml --\n- op: copy\n  from: /a\n  path: /b\n", "patches[0]: the operation copy"},
		"unknown field":      {k("resource: [a.yaml]"), `app/kustomization.yaml: invalid Kustomization: json: unknown field "resource"`},
		"twice":              {k("resources: [a.yaml]\nresources: []"), `key "resources" already set in map`},
		"twice in a base":    {k("resources: [b.yaml]") + "-- app/b.yaml --\nkind: X\nkind: Y\n", `resources[0]: app/b.yaml (document 1): `},
		"circle":             {k("resources: [../b]") + "-- b/kustomization.yaml --\nresources: [../app]\n", "b/kustomization.yaml: resources[0]: kustomizations name each other in a circle: app → b → app"},
		"itself":             {k("resources: [.]"), "in a circle: app → app"},
		"component alone":    {"-- app/kustomization.yaml --\nkind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\nnamePrefix: x\n", "a Component is rendered as part"},
		"of another kind":    {k("kind: ConfigMap\nresources: [a.yaml]"), "kind should be Kustomization or Component"},
		"kustomize's own":    {k("resources: [a.yaml]\npatches: [{patch: 'apiVersion: v1\n\n\nkind: Gone\n\nmetadata: {name: a}'}]"), "app/kustomization.yaml: "},
		"nothing":            {k(""), "app/kustomization.yaml: must be one YAML document"},
	} {
		t.Run(name, func(t *testing.T) {
			rendered, err := Render(t.Context(), treeOf(tc.tree), "app")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v (%d objects), want %q", err, len(rendered.Objects), tc.want)
			}
		})
	}
}

func TestRenderFollowsNoLinks(t *testing.T) {
	for _, named := range []string{"link.yaml", "linked/a.yaml", "linked"} {
		tree := treeOf("-- app/kustomization.yaml --\nresources: [" + named + "]\n-- other/a.yaml --\n" + fmt.Sprintf(configMap, "a", "1"))
		for _, link := range []string{"app/link.yaml", "app/linked"} {
			tree[link] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../other")}
		}
		if _, err := Render(t.Context(), tree, "app"); err == nil || !strings.Contains(err.Error(), "is a symbolic link") {
			t.Errorf("%s: %v", named, err)
		}
	}
}

// What would grow past the limits is refused in little time, and what comes near them is rendered.
func TestRenderIsBounded(t *testing.T) {
	var doubling strings.Builder
	for i := range 10 {
		fmt.Fprintf(&doubling, "-- l%d/a/kustomization.yaml --\nresources: [../../l%d]\nnamePrefix: a-\n-- l%d/b/kustomization.yaml --\nresources: [../../l%d]\nnamePrefix: b-\n-- l%d/kustomization.yaml --\nresources: [a, b]\n", i, i+1, i, i+1, i)
	}
	doubling.WriteString("-- l10/kustomization.yaml --\nresources: [a.yaml]\n-- l10/a.yaml --\n" + fmt.Sprintf(configMap, "a", "1"))
	var growing strings.Builder
	growing.WriteString("-- app/kustomization.yaml --\nresources: [a.yaml]\nreplacements:\n")
	for range 40 {
		growing.WriteString("- {source: {kind: ConfigMap, name: a, fieldPath: data.key}, targets: [{select: {kind: ConfigMap}, fieldPaths: [data.key], options: {delimiter: x, index: -1}}]}\n")
	}
	growing.WriteString("-- app/a.yaml --\n" + fmt.Sprintf(configMap, "a", "1"))
	many := func(objects int, more string) string {
		var b strings.Builder
		b.WriteString("-- app/kustomization.yaml --\nresources: [a.yaml]\n" + more + "\n-- app/a.yaml --\n")
		for i := range objects {
			b.WriteString("---\n" + fmt.Sprintf(configMap, fmt.Sprintf("a%d", i), "1"))
		}
		return b.String()
	}
	var referring strings.Builder
	for i := range 400 {
		fmt.Fprintf(&referring, "---\napiVersion: v1\nkind: Pod\nmetadata: {name: d%d}\nspec: {containers: [{name: a, envFrom: [%s]}]}\n", i, strings.Repeat("{configMapRef: {name: a0}},", 40))
	}
	for name, tc := range map[string]struct{ tree, folder, want string }{
		"references":   {strings.Replace(many(400, ""), "[a.yaml]", "[a.yaml, b.yaml]", 1) + "-- app/b.yaml --\n" + referring.String(), "app", "refer to each other by name too often"},
		"entries":      {many(MaxObjects, "images: ["+strings.Repeat("{name: x, newTag: v2},", MaxPasses/MaxObjects+1)+"]"), "app", "look at objects more than 200000 times"},
		"folders":      {doubling.String(), "l0", "more than 200 kustomizations"},
		"replacements": {growing.String(), "app", "may come to more than"},
		"objects":      {many(MaxObjects+1, ""), "app", "more than 1000 objects"},
		"patches":      {many(MaxObjects, "commonAnnotations: {a: "+strings.Repeat("x", MaxWork/MaxObjects)+"}"), "app", "may come to more than"},
		"big file":     {"-- app/kustomization.yaml --\nconfigMapGenerator: [{name: g, files: [big]}]\n-- app/big --\n" + strings.Repeat("x", MaxFileBytes+1), "app", "at most 1048576 are allowed"},
		"bytes":        {"-- app/kustomization.yaml --\nconfigMapGenerator: [" + strings.Repeat("{name: g, files: [big]},", 9) + "]\n-- app/big --\n" + strings.Repeat("x", MaxFileBytes), "app", "more than 8388608 bytes"},
		"no bound hit": {many(MaxObjects, "labels: [{pairs: {app: x}}]\nnamePrefix: x-\npatches: [{target: {kind: ConfigMap}, patch: '[{\"op\": \"add\", \"path\": \"/data/b\", \"value\": \"c\"}]'}]"), "app", ""},
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := Render(t.Context(), treeOf(tc.tree), tc.folder)
			t.Logf("%v after %s", err, time.Since(start))
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// A rendering that does not get its turn in time says so: another try may do better.
func TestRenderWaits(t *testing.T) {
	if err := turn.Acquire(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	defer turn.Release(1)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := Render(ctx, treeOf(inPlace), "app"); !errors.Is(err, ErrNoTurn) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
