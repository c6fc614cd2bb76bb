package kustomization

import (
	"fmt"
	"strings"
	"testing"
)

// A long path to a field would keep kustomize busy for minutes, and all other renderings with it.
func TestLongPaths(t *testing.T) {
	slashes, dots := strings.Repeat("/a", 20_000), strings.Repeat("a.", 20_000)+"a"
	for name, c := range map[string]struct{ kustomization, other string }{
		"label":             {"labels: [{pairs: {k: v}, fields: [{path: " + slashes[1:] + ", create: true}]}]", ""},
		"label, other case": {"labels: [{pairs: {k: v}, fields: [{PATH: " + slashes[1:] + ", create: true}]}]", ""},
		"replacement":       {"replacements: [{sourceValue: x, targets: [{select: {kind: ConfigMap}, fieldPaths: [" + dots + "], options: {create: true}}]}]", ""},
		"replacement file":  {"replacements: [{path: o.yaml}]", "sourceValue: x\ntargets: [{select: {kind: ConfigMap}, fieldPaths: [" + dots + "]}]"},
		"source":            {"replacements: [{source: {kind: ConfigMap, fieldPath: " + dots + "}, targets: [{select: {kind: ConfigMap}}]}]", ""},
		"inline patch":      {"patches: [{target: {kind: ConfigMap}, patch: '[{op: add, path: " + slashes + ", value: x}]'}]", ""},
		"patch file":        {"patches: [{target: {kind: ConfigMap}, path: o.yaml}]", "- {op: add, path: " + slashes + ", value: x}"},
		"configuration":     {"configurations: [o.yaml]\nnamePrefix: x-", "namePrefix: [{path: " + slashes[1:] + ", create: true}]"},
		"both":              {"configurations: [a.yaml]", ""},
	} {
		t.Run(name, func(t *testing.T) {
			tree := treeOf("-- kustomization.yaml --\nresources: [a.yaml]\n" + c.kustomization + "\n-- o.yaml --\n" + c.other + "\n-- a.yaml --\n" +
				fmt.Sprintf(configMap, "a", "1") + "namePrefix: [{path: " + slashes[1:] + "}]\n")
			if _, err := Render(t.Context(), tree, "."); err == nil || !strings.Contains(err.Error(), "at most 100 are allowed") {
				t.Errorf("error %.300v, want one that tells the bound", err)
			}
		})
	}
}

// Nor may documents nest as deep as YAML allows, which takes a merge patch as long.
func TestDeepDocuments(t *testing.T) {
	tree := treeOf("-- kustomization.yaml --\nresources: [a.yaml]\npatches: [{path: o.yaml}]\n-- a.yaml --\n" + fmt.Sprintf(configMap, "a", "1") +
		"-- o.yaml --\n" + fmt.Sprintf(configMap, "a", "1") + "spec: " + strings.Repeat("{a: ", 5000) + "1" + strings.Repeat("}", 5000) + "\n")
	if _, err := Render(t.Context(), tree, "."); err == nil || !strings.Contains(err.Error(), "nests more than 100 deep") {
		t.Errorf("error %.300v, want one that tells the bound", err)
	}
}

// What patches and literals hold may be secret, and is in no message.
func TestErrorsWithoutContent(t *testing.T) {
	for _, text := range []string{"secretGenerator: [{name: s, literals: [hunter2]}]", "resources: [a.yaml]\npatches: [{patch: 'stringData: {p: hunter2}'}]"} {
		tree := treeOf("-- kustomization.yaml --\n" + text + "\n-- a.yaml --\n" + fmt.Sprintf(configMap, "a", "1"))
		if _, err := Render(t.Context(), tree, "."); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: error %v, want one without the secret", text, err)
		}
	}
}
