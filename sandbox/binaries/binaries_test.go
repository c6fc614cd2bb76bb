package binaries

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEnsureBuildsOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("may build the servers, which takes ten minutes")
	}
	dir, err := Ensure(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{dir.APIServer(), dir.Etcd(), dir.Discovery(), dir.Prometheus(), dir.Kubectl(), dir.IstioCRDs()} {
		if info, err := os.Stat(file); err != nil || info.Size() == 0 {
			t.Errorf("%s is missing or empty: %v", file, err)
		}
	}
	var out bytes.Buffer
	again, err := Ensure(t.Context(), &out)
	if err != nil || again != dir || out.Len() > 0 {
		t.Errorf("second Ensure = %q, %v, and said %q; want %q in silence", again, err, &out, dir)
	}
}

func TestCacheDirFollowsItsSources(t *testing.T) {
	source := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(source, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key := func() string {
		t.Helper()
		dir, err := cacheDir(source)
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	write("go.mod", "module x\n")
	write("go.sum", "a\n")
	first := key()
	if key() != first {
		t.Error("the same sources give two keys")
	}
	write("go.sum", "b\n")
	if key() == first {
		t.Error("another go.sum gives the same key")
	}
}

func TestLinkerFlags(t *testing.T) {
	root, err := RepositoryRoot()
	if err != nil {
		t.Fatal(err)
	}
	flags, err := linkerFlags(filepath.Join(root, "sandbox", "servers"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"version.gitVersion=v1.", "version.gitMajor=1 ", "common/version.Version=3."} {
		if !strings.Contains(flags, want) {
			t.Errorf("linker flags %q lack %q", flags, want)
		}
	}
}

func TestPrometheusRelease(t *testing.T) {
	for module, want := range map[string]string{"v0.315.0": "3.15.0", "v0.300.1": "3.0.1", "v1.8.2": "v1.8.2"} {
		if got := prometheusRelease(module); got != want {
			t.Errorf("prometheusRelease(%s) = %s, want %s", module, got, want)
		}
	}
}

func TestRepositoryRootOutside(t *testing.T) {
	t.Chdir(t.TempDir())
	if root, err := RepositoryRoot(); err == nil || !strings.Contains(err.Error(), "inside the repository") {
		t.Errorf("RepositoryRoot() = %q, %v; want an error that says where to run", root, err)
	}
}

func TestWaitForLockTellsWhyItWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	held, err := waitForLock(t.Context(), path, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var out bytes.Buffer
	if _, err := waitForLock(ctx, path, &out); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(out.String(), "waiting") {
		t.Errorf("second lock: %v, and said %q; want a wait until the deadline", err, &out)
	}
}
