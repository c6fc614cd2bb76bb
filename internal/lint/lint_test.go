package lint_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice.dev/sluice/internal/lint"
	"sluice.dev/sluice/internal/manifest"
)

var update = flag.Bool("update", false, "write the goldens and docs/lint.md anew")

func check(t *testing.T, files ...string) []lint.Finding {
	t.Helper()
	objects, err := manifest.Load(t.Context(), files, false, nil)
	findings, err := lint.Unreadable(err)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if o.GetNamespace() == "" {
			o.SetNamespace("bookinfo")
		}
	}
	found, err := lint.Check(context.Background(), objects, lint.Options{
		ScrapeInterval: 15 * time.Second, PropagationDelay: 2 * time.Second, Now: time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC),
	})
	if err != nil {
		t.Fatal(err)
	}
	return append(findings, found...)
}

func lines(findings []lint.Finding) string {
	var out strings.Builder
	for _, f := range findings {
		fmt.Fprintln(&out, strings.TrimPrefix(f.String(), "testdata/"))
	}
	return out.String()
}

// Each rule has a file in which it finds something, with all that is found there beside it, and one like it in which no rule does.
func TestRules(t *testing.T) {
	for _, rule := range lint.Rules() {
		t.Run(rule.ID, func(t *testing.T) {
			bad := check(t, filepath.Join("testdata", rule.ID+".bad.yaml"))
			golden(t, filepath.Join("testdata", rule.ID+".want"), lines(bad))
			found := false
			for _, f := range bad {
				found = found || f.Rule == rule.ID
				if f.Line == 0 || f.Message == "" {
					t.Errorf("finding without a line or message: %+v", f)
				}
			}
			if !found {
				t.Errorf("%s finds nothing in its bad file", rule.ID)
			}
			if good := check(t, filepath.Join("testdata", rule.ID+".good.yaml")); len(good) > 0 {
				t.Errorf("the good file has findings:\n%s", lines(good))
			}
		})
	}
}

// What the product ships is without errors, each example beside the applications that all of them share.
func TestExamples(t *testing.T) {
	const root = "../../examples"
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) < 3 {
		t.Fatalf("%d examples, error %v", len(entries), err)
	}
	for _, entry := range entries {
		example := filepath.Join(root, entry.Name())
		if !entry.IsDir() || entry.Name() == "apps" || manifest.IsKustomization(example) {
			continue
		}
		for _, f := range check(t, example, "../../examples/apps") {
			replaced := f.Rule == "object-twice" && strings.Contains(f.File, "examples/apps") // the example brings its own
			if f.Severity == lint.Error && !replaced {
				t.Errorf("%s", f)
			}
		}
	}
}

// docs/lint.md shows the table of rules.
func TestDocs(t *testing.T) {
	var table strings.Builder
	table.WriteString("| rule | severity | finds | instead |\n|---|---|---|---|\n")
	for _, r := range lint.Rules() {
		fmt.Fprintf(&table, "| `%s` | %s | %s | %s |\n", r.ID, r.Severity, r.Finds, r.Instead)
	}
	const file, begin, end = "../../docs/lint.md", "<!-- rules -->\n", "<!-- end of rules -->\n"
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(raw), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no %q and %q", file, begin, end)
	}
	golden(t, file, head+begin+table.String()+end+tail)
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got); -update writes it anew:\n%s", file, diff)
	}
}
