package lint_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	v1 "sluice.dev/sluice/api/v1"
)

// TestPagesOfKinds: the page of each kind tells of every field of its spec that is ours, those that do not work yet among them. Istio's
// blocks have Istio's documentation, and of fields that do not work yet only the name counts.
func TestPagesOfKinds(t *testing.T) {
	t.Parallel()
	later := map[string]bool{
		"workloadRef": true, "schedule": true, "dependsOn": true, "commands": true, "previews": true, "sticky": true,
		"job": true, "call": true, "approval": true, "verify": true, "commitStatus": true,
	}
	for file, spec := range map[string]reflect.Type{
		"rollout.md": reflect.TypeFor[v1.RolloutSpec](), "gitsync.md": reflect.TypeFor[v1.GitSyncSpec](),
	} {
		page, err := os.ReadFile(filepath.Join("..", "..", "docs", file))
		if err != nil {
			t.Fatal(err)
		}
		code := strings.Join(regexp.MustCompile("`[^`\n]+`").FindAllString(string(page), -1), " ")
		walkFields(spec, func(path, name string) bool {
			if !regexp.MustCompile(`\b` + name + `\b`).MatchString(code) {
				t.Errorf("docs/%s does not tell of spec%s.%s", file, path, name)
			}
			return !later[name]
		})
	}
}

// walkFields visits the fields of a struct of this API; below is whether to go on with those of the field.
func walkFields(t reflect.Type, visit func(path, name string) (below bool)) {
	var into func(t reflect.Type, path string)
	into = func(t reflect.Type, path string) {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || t.PkgPath() != reflect.TypeFor[v1.RolloutSpec]().PkgPath() {
			return
		}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			switch {
			case name == "" && f.Anonymous:
				into(f.Type, path)
			case visit(path, name):
				into(f.Type, path+"."+name)
			}
		}
	}
	into(t, "")
}
