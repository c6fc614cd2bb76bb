package binaries

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/mod/modfile"
)

// Dir is a folder that holds all servers.
type Dir string

// APIServer is kube-apiserver's file.
func (d Dir) APIServer() string { return filepath.Join(string(d), "kube-apiserver") }

// Etcd is etcd's file.
func (d Dir) Etcd() string { return filepath.Join(string(d), "etcd") }

// Discovery is the file of istiod, pilot-discovery.
func (d Dir) Discovery() string { return filepath.Join(string(d), "pilot-discovery") }

// Prometheus is its file.
func (d Dir) Prometheus() string { return filepath.Join(string(d), "prometheus") }

// Kubectl is its file.
func (d Dir) Kubectl() string { return filepath.Join(string(d), "kubectl") }

// IstioCRDs is Istio's customresourcedefinitions.gen.yaml.
func (d Dir) IstioCRDs() string { return filepath.Join(string(d), "istio-crds.yaml") }

// Ensure returns the folder with the servers, and builds them first when this
// machine has none for this version of sandbox/servers. It tells on out what it
// builds and how long that took; out stays silent when there is nothing to do.
// Processes that call it at the same time wait for the first. The working
// directory must be inside the repository.
func Ensure(ctx context.Context, out io.Writer) (Dir, error) {
	root, err := RepositoryRoot()
	if err != nil {
		return "", err
	}
	source := filepath.Join(root, "sandbox", "servers")
	dir, err := cacheDir(source)
	if err != nil {
		return "", err
	}
	if present(dir) {
		return Dir(dir), nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", fmt.Errorf("cache folder of the servers: %w", err)
	}
	lock, err := waitForLock(ctx, dir+".lock", out)
	if err != nil {
		return "", err
	}
	defer lock.Release()
	if present(dir) { // another process built it while we waited
		return Dir(dir), nil
	}
	return Dir(dir), buildInto(ctx, source, dir, out)
}

// buildInto builds beside dir and renames, so that dir is whole or not there.
func buildInto(ctx context.Context, source, dir string, out io.Writer) error {
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return err
	}
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(out, "building the sandbox's servers into %s (about 10 minutes the first time on this machine)\n", dir)
	start := time.Now()
	if err := build(ctx, source, partial, out); err != nil {
		return err
	}
	fmt.Fprintf(out, "built the sandbox's servers in %s\n", time.Since(start).Round(time.Second))
	return os.Rename(partial, dir)
}

func present(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

// cacheDir names the folder after everything that decides what gets built.
func cacheDir(source string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache folder of the servers: %w", err)
	}
	hash := sha256.New()
	fmt.Fprintln(hash, runtime.Version(), runtime.GOOS, runtime.GOARCH, recipe)
	for _, name := range []string{"go.mod", "go.sum"} {
		content, err := os.ReadFile(filepath.Join(source, name))
		if err != nil {
			return "", fmt.Errorf("what the servers are built from: %w", err)
		}
		hash.Write(content)
	}
	key := hex.EncodeToString(hash.Sum(nil))[:16]
	return filepath.Join(cache, "sluice", "servers-"+key), nil
}

// RepositoryRoot is the folder that holds the product's go.mod, found by walking
// up from the working directory.
func RepositoryRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		name := filepath.Join(dir, "go.mod")
		content, err := os.ReadFile(name)
		switch {
		case err == nil && modfile.ModulePath(content) == product:
			return dir, nil
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return "", err
		case dir == filepath.Dir(dir):
			return "", fmt.Errorf("no go.mod of module %s in %s or above: run this inside the repository", product, start)
		}
	}
}
