package manifest_test

import (
	"strings"
	"testing"

	"sluice.dev/sluice/internal/manifest"
)

// Whatever a file holds, it is read or refused, and what is said of it lies within it.
func FuzzRead(f *testing.F) {
	f.Add(two, "spec.ports[0].port")
	f.Add("--- {apiVersion: v1, kind: A}\n---\n&a [*a]\n", `metadata.labels["a"]`)
	f.Add("apiVersion: v1\nkind: List\nitems: [{apiVersion: v1, kind: B}, 1]\n", "items[")
	f.Add("a: &x {b: 1}\nkind: C\napiVersion: v1\nspec: *x\n", "spec.b..[]")
	f.Fuzz(func(t *testing.T, text, path string) {
		objects, err := manifest.Read("f.yaml", []byte(text))
		if err != nil && err.Error() == "" {
			t.Error("an error without a message")
		}
		last := strings.Count(text, "\n") + 1
		for _, o := range objects {
			if o.GetKind() == "" {
				t.Error("an object without a kind")
			}
			if at := o.At(path); at.Line < 0 || at.Line > last {
				t.Errorf("%s stands at line %d of %d", path, at.Line, last)
			}
		}
	})
}
