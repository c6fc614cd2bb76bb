package capabilities

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/bookinfo"
)

// TestBookinfoIsTheSandboxs: examples/apps/bookinfo.yaml, which people apply, and what the sandbox brings up by itself are the same.
func TestBookinfoIsTheSandboxs(t *testing.T) {
	t.Parallel()
	root, err := binaries.RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	given, err := os.ReadFile(filepath.Join(root, "examples", "apps", "bookinfo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(bookinfo.Manifests), string(given)); diff != "" {
		t.Errorf("examples/apps/bookinfo.yaml is not sandbox/bookinfo/bookinfo.yaml (-sandbox +examples):\n%s", diff)
	}
}
