package cli

import (
	"bytes"
	"strings"

	"github.com/gonvenience/ytbx"
	"github.com/homeport/dyff/pkg/dyff"
	"github.com/pmezard/go-difflib/difflib"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// differ writes how one form of an object becomes another; nil stands for no object.
type differ func(before, after *unstructured.Unstructured) (string, error)

// differOf is the differ of a name.
func differOf(name string) differ {
	if name == "dyff" {
		return byDyff
	}
	return unified
}

// unified is for people who read `git diff`: the order of routes is seen.
func unified(before, after *unstructured.Unstructured) (string, error) {
	a, err := text(before)
	if err != nil {
		return "", err
	}
	b, err := text(after)
	if err != nil {
		return "", err
	}
	return difflib.GetUnifiedDiffString(difflib.UnifiedDiff{A: lines(a), B: lines(b), Context: 3})
}

func lines(text string) []string {
	if text == "" {
		return nil
	}
	return difflib.SplitLines(strings.TrimSuffix(text, "\n"))
}

// byDyff names what changed by its path.
func byDyff(before, after *unstructured.Unstructured) (string, error) {
	a, err := document(before)
	if err != nil {
		return "", err
	}
	b, err := document(after)
	if err != nil {
		return "", err
	}
	report, err := dyff.CompareInputFiles(a, b)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	human := dyff.HumanReport{Report: report, DoNotInspectCerts: true, NoTableStyle: true, OmitHeader: true}
	if err := human.WriteReport(&out); err != nil {
		return "", err
	}
	var kept []string
	for line := range strings.Lines(out.String()) {
		if strings.TrimSpace(line) != "" {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, ""), nil
}

func document(object *unstructured.Unstructured) (ytbx.InputFile, error) {
	content, err := text(object)
	if err != nil {
		return ytbx.InputFile{}, err
	}
	if content == "" {
		content = "{}\n"
	}
	documents, err := ytbx.LoadYAMLDocuments([]byte(content))
	return ytbx.InputFile{Documents: documents}, err
}

// text is an object in YAML, without what the API server alone writes; empty for none.
func text(object *unstructured.Unstructured) (string, error) {
	if object == nil {
		return "", nil
	}
	raw, err := yaml.Marshal(bare(object).Object)
	return string(raw), err
}

// bare is the object as people write it.
func bare(object *unstructured.Unstructured) *unstructured.Unstructured {
	out := object.DeepCopy()
	delete(out.Object, "status")
	for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "namespace"} {
		unstructured.RemoveNestedField(out.Object, "metadata", field)
	}
	return out
}
