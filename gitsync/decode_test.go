package gitsync

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const good = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: good\n"

func named(manifests []Manifest) []string {
	var all []string
	for _, m := range manifests {
		all = append(all, m.Where()+" "+describe(m.Object))
	}
	return all
}

func TestDecode(t *testing.T) {
	for name, tc := range map[string]struct {
		file, content string
		want          []string
	}{
		"one":              {"a.yaml", good, []string{"a.yaml (document 1) ConfigMap good"}},
		"several":          {"a.yaml", "# first\n---\n" + good + "---\n# nothing\n---\n" + strings.ReplaceAll(good, "good", "second"), []string{"a.yaml (document 2) ConfigMap good", "a.yaml (document 4) ConfigMap second"}},
		"comment after --": {"a.yaml", "--- # first\n" + good + "--- # second\n" + strings.ReplaceAll(good, "good", "second"), []string{"a.yaml (document 1) ConfigMap good", "a.yaml (document 2) ConfigMap second"}},
		"windows":          {"a.yaml", strings.ReplaceAll(good+"---\n"+strings.ReplaceAll(good, "good", "second"), "\n", "\r\n"), []string{"a.yaml (document 1) ConfigMap good", "a.yaml (document 2) ConfigMap second"}},
		"json":             {"a.json", "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"ConfigMap\",\n\t\"metadata\": {\"name\": \"good\"}\n}\n", []string{"a.json (document 1) ConfigMap good"}},
		"json in yaml":     {"a.yaml", `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "good"}}`, []string{"a.yaml (document 1) ConfigMap good"}},
		"list":             {"a.yaml", "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: b}}\n", []string{"a.yaml (document 1) ConfigMap a", "a.yaml (document 1) ConfigMap b"}},
		"aliases":          {"a.yaml", good + "data: {a: &x text, b: *x}\n", []string{"a.yaml (document 1) ConfigMap good"}},
		"dashes in text":   {"a.yaml", good + "data:\n  a: |\n    ---\n    text\n", []string{"a.yaml (document 1) ConfigMap good"}},
	} {
		t.Run(name, func(t *testing.T) {
			manifests, err := Decode([]File{{Path: tc.file, Content: []byte(tc.content)}})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, named(manifests)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// bomb is the YAML of a billion laughs.
func bomb() string {
	var b strings.Builder
	b.WriteString(good + "data:\n  a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := 1; i < 9; i++ {
		fmt.Fprintf(&b, "  a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return b.String()
}

func TestDecodeRefuses(t *testing.T) {
	object := func(metadata string) string { return "apiVersion: v1\nkind: ConfigMap\nmetadata: " + metadata + "\n" }
	for name, tc := range map[string]struct{ file, content, want string }{
		"syntax":                {"a.yaml", "a: [", "bad/a.yaml (document 1): "},
		"second document":       {"a.yaml", good + "---\na: [", "bad/a.yaml (document 2): "},
		"json syntax":           {"a.json", `{"a": `, "bad/a.json (document 1): "},
		"duplicate key":         {"a.yaml", good + "kind: Secret\n", `key "kind" already set in map`},
		"duplicate nested key":  {"a.yaml", good + "data: {a: x, a: y}\n", `key "a" already set in map`},
		"duplicate key in json": {"a.json", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","name":"b"}}`, `duplicate field "metadata.name"`},
		"alias bomb":            {"a.yaml", bomb(), "its aliases expand to more than 600000 nodes"},
		"alias of itself":       {"a.yaml", good + "data: &a [*a]\n", "bad/a.yaml (document 1)"},
		"hidden document":       {"a.yaml", good + "--- {apiVersion: v1, kind: Secret, metadata: {name: x}}\n", "invalid Yaml document separator"},
		"document after an end": {"a.yaml", good + "...\n" + good, "a second document begins in it"},
		"too many documents":    {"a.yaml", strings.Repeat("---\na\n", MaxDocuments+1), "is no object"},
		"too many empty ones":   {"a.yaml", strings.Repeat("---\n#\n", MaxDocuments+2), "more than 10000 documents"},
		"too many items":        {"a.yaml", "apiVersion: v1\nkind: List\nitems: [" + strings.TrimSuffix(strings.Repeat("1,", MaxDocuments+1), ",") + "]", "more than 10000 objects"},
		"big file":              {"a.yaml", strings.Repeat("#", MaxFileBytes+1), "bad/a.yaml has 1048577 bytes"},
		"no text":               {"a.yaml", "a: \xff\xfe", "bad/a.yaml is no text in UTF-8"},
		"nul":                   {"a.yaml", "a: \x00", "bad/a.yaml is no text in UTF-8"},
		"no object":             {"a.yaml", "- a\n- b\n", "is no object"},
		"no apiVersion":         {"a.yaml", "kind: ConfigMap\nmetadata: {name: a}\n", "apiVersion is missing"},
		"no kind":               {"a.yaml", "apiVersion: v1\nmetadata: {name: a}\n", "kind is missing"},
		"helm values":           {"a.yaml", "replicas: 3\n", "apiVersion is missing"},
		"no metadata":           {"a.yaml", "apiVersion: v1\nkind: ConfigMap\n", "metadata is missing"},
		"no name":               {"a.yaml", object("{}"), "metadata.name is missing"},
		"generateName":          {"a.yaml", object("{generateName: a-}"), "metadata.name is missing"},
		"name is a number":      {"a.yaml", object("{name: 1}"), "metadata.name is 1: must be a string"},
		"namespace is a bool":   {"a.yaml", object("{name: a, namespace: true}"), "metadata.namespace is true: must be a string"},
		"label is a number":     {"a.yaml", object("{name: a, labels: {version: 1}}"), "metadata.labels: all values must be strings"},
		"command":               {"a.yaml", object("{name: a, annotations: {sluice.dev/command: promote v3 1}}"), "the annotation sluice.dev/command is refused"},
		"command in a list":     {"a.yaml", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: X, metadata: {name: a, annotations: {sluice.dev/command: x}}}]", "items[0]: X a: the annotation"},
		"kustomization":         {"a.yaml", "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n", "is rendered only if its file is called kustomization.yaml"},
		"list without items":    {"a.yaml", "apiVersion: v1\nkind: List\n", "items is missing"},
		"list in a list":        {"a.yaml", "apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: List, items: []}]", "a List in a List"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Decode([]File{{Path: "fine.yaml", Content: []byte(good)}, {Path: "bad/" + tc.file, Content: []byte(tc.content)}})
			content := new(ContentError)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "bad/") || !errors.As(err, &content) {
				t.Errorf("got %v, want a ContentError with %q", err, tc.want)
			}
		})
	}
}

func TestDecodeRefusesEmptyRevision(t *testing.T) {
	for _, files := range [][]File{nil, {{Path: "a.yaml", Content: []byte("# nothing yet\n---\n")}}, {{Path: "a.json"}}} {
		if _, err := Decode(files); err == nil || !strings.Contains(err.Error(), "no manifest below the path") {
			t.Errorf("got %v", err)
		}
	}
}

// What passes can be applied without a surprise: it has a kind and a name and never the command annotation.
func FuzzDecode(f *testing.F) {
	for _, content := range []string{good, bomb(), good + "---\n" + good, "{}", "a: &a [*a]", "--- {a: b}", "apiVersion: v1\nkind: List\nitems: [{}]", "? [a]\n: b", "<<: {a: b}", "a: !!binary x", "%YAML 1.1\n---\na: b"} {
		f.Add([]byte(content), true)
		f.Add([]byte(content), false)
	}
	f.Fuzz(func(t *testing.T, content []byte, asJSON bool) {
		name := "a.yaml"
		if asJSON {
			name = "a.json"
		}
		manifests, err := Decode([]File{{Path: name, Content: content}})
		if err != nil {
			if !strings.Contains(err.Error(), name) && !strings.Contains(err.Error(), "no manifest") {
				t.Errorf("an error that names no file: %v", err)
			}
			return
		}
		for _, m := range manifests {
			if m.Object.GetKind() == "" || m.Object.GetName() == "" || m.Object.GetAnnotations()["sluice.dev/command"] != "" {
				t.Errorf("%s passes: %v", m.Where(), m.Object)
			}
			m.Object.DeepCopy() // panics on what is no JSON
			if _, ok := podLabels(m.Object); ok && IsRouting(m.Object) {
				t.Errorf("%s is two things", m.Where())
			}
		}
	})
}
