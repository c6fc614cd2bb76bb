package capabilities

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice.dev/sluice/sandbox/binaries"
)

func TestTable(t *testing.T) {
	t.Parallel()
	old := []Result{{Number: 5, Example: "05-weights", Test: "Test05Weights", Verdict: Fail}, {Number: 2, Example: "02-all", Test: "Test02B", Verdict: Pass}}
	results := Merge(old, []Result{
		{Number: 5, Example: "05-weights", Test: "Test05Weights", Verdict: Pass},
		{Number: 2, Example: "02-all", Test: "Test02A", Verdict: PassConfiguration},
	})
	rows := strings.Split(strings.TrimPrefix(Table(results), heading), "\n")
	want := map[int]string{
		0: "| 1 | Subsets per version |  |  | not yet |",
		1: "| 2 | All traffic to one version | [02-all](../examples/02-all) | `Test02A`, `Test02B` | pass (configuration) |",
		4: "| 5 | Weight shifts: 50/50, 90/10, 75/25, then all | [05-weights](../examples/05-weights) | `Test05Weights` | pass |",
	}
	for at, line := range want {
		if diff := cmp.Diff(line, rows[at]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	again, err := Read(Table(results))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Table(results), Table(again)); diff != "" {
		t.Errorf("a page that was read is rendered otherwise (-before +after):\n%s", diff)
	}
}

// TestPage: docs/capabilities.md has each capability once, and names examples and tests that are there, and no failure.
func TestPage(t *testing.T) {
	t.Parallel()
	root, err := binaries.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "capabilities.md"))
	if err != nil {
		t.Fatal(err)
	}
	results, err := Read(string(page))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Table(results), string(page)); diff != "" {
		t.Errorf("docs/capabilities.md was edited by hand (-what make capabilities writes +what there is):\n%s", diff)
	}
	tests := testsHere(t)
	for _, r := range results {
		if _, err := os.Stat(filepath.Join(root, "examples", r.Example)); err != nil {
			t.Errorf("capability %d: %v", r.Number, err)
		}
		if function, _, _ := strings.Cut(r.Test, "/"); !tests[function] {
			t.Errorf("capability %d: there is no test %s", r.Number, r.Test)
		}
		if r.Verdict != Pass && r.Verdict != PassConfiguration {
			t.Errorf("capability %d: the verdict of %s is %s", r.Number, r.Test, r.Verdict)
		}
	}
}

// testsHere are the names of this package's tests.
func testsHere(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range parsed.Decls {
			if f, is := declaration.(*ast.FuncDecl); is && strings.HasPrefix(f.Name.Name, "Test") {
				names[f.Name.Name] = true
			}
		}
	}
	return names
}

// maxReadme is how many lines a README of an example may have.
const maxReadme = 15

// TestExamples: each capability has a folder, and each folder with a number is a capability's, has manifests and a short README, and a test runs it.
func TestExamples(t *testing.T) {
	t.Parallel()
	root, err := binaries.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	folders, err := filepath.Glob(filepath.Join(root, "examples", "[0-9]*"))
	if err != nil {
		t.Fatal(err)
	}
	shown := map[int]bool{}
	tests := slices.Collect(maps.Keys(testsHere(t)))
	for _, folder := range folders {
		name := filepath.Base(folder)
		number, err := NumberOf(name)
		if err != nil {
			t.Error(err)
			continue
		}
		shown[number] = true
		readme, err := os.ReadFile(filepath.Join(folder, "README.md"))
		if err != nil {
			t.Error(err)
		}
		if lines := strings.Count(string(readme), "\n"); lines > maxReadme {
			t.Errorf("examples/%s/README.md has %d lines, want at most %d", name, lines, maxReadme)
		}
		if !isFlawless(name) && !slices.ContainsFunc(tests, func(test string) bool { return strings.HasPrefix(test, "Test"+name[:2]) }) {
			t.Errorf("examples/%s: no test of this package is called Test%s…, and TestNoFailedRequests does not run it", name, name[:2])
		}
	}
	for _, c := range Catalogue {
		if !shown[c.Number] {
			t.Errorf("capability %d, %s, has no folder in examples/", c.Number, c.Name)
		}
	}
}

// TestPromises: TestNoFailedRequests looks at the examples whose README promises that no request fails, and at no others.
func TestPromises(t *testing.T) {
	t.Parallel()
	root, err := binaries.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	readmes, err := filepath.Glob(filepath.Join(root, "examples", "*", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	promising := 0
	for _, path := range readmes {
		readme, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(filepath.Dir(path))
		promises := strings.Contains(strings.ToLower(strings.Join(strings.Fields(string(readme)), " ")), "no request fails")
		if promises {
			promising++
		}
		if looks := isFlawless(name); promises != looks {
			t.Errorf("examples/%s/README.md promises that no request fails: %t; TestNoFailedRequests looks: %t", name, promises, looks)
		}
	}
	if promising != len(flawless) {
		t.Errorf("%d READMEs promise that no request fails, and TestNoFailedRequests looks at %d examples", promising, len(flawless))
	}
}

func isFlawless(dir string) bool {
	return slices.ContainsFunc(flawless, func(w walk) bool { return w.dir == dir })
}
