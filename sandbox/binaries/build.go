package binaries

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
)

const (
	product = "sluice.dev/sluice"
	// recipe changes when this file builds something else from the same go.mod.
	recipe = "1"
)

// programs are in the order of the longest build first. Names follow the
// upstream projects; etcd's package would otherwise give a file called v3.
var programs = []struct{ name, pkg string }{
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"},
	{"pilot-discovery", "istio.io/istio/pilot/cmd/pilot-discovery"},
	{"prometheus", "github.com/prometheus/prometheus/cmd/prometheus"},
	{"etcd", "go.etcd.io/etcd/server/v3"},
	{"kubectl", "k8s.io/kubernetes/cmd/kubectl"},
}

func build(ctx context.Context, source, dir string, out io.Writer) error {
	flags, err := linkerFlags(source)
	if err != nil {
		return err
	}
	for _, p := range programs {
		start := time.Now()
		fmt.Fprintf(out, "  %-16s", p.name)
		_, err := goCommand(ctx, source, "build", "-ldflags", flags, "-o", filepath.Join(dir, p.name), p.pkg)
		if err != nil {
			fmt.Fprintln(out, " failed")
			return fmt.Errorf("build %s: %w", p.name, err)
		}
		fmt.Fprintf(out, " %4.0f s\n", time.Since(start).Seconds())
	}
	return copyIstioCRDs(ctx, source, Dir(dir).IstioCRDs())
}

// copyIstioCRDs takes the CRDs from the very istio.io/api that istiod is built
// with. They lie in its module, though no Go package holds them.
func copyIstioCRDs(ctx context.Context, source, target string) error {
	stdout, err := goCommand(ctx, source, "mod", "download", "-json", "istio.io/api")
	if err != nil {
		return fmt.Errorf("fetch Istio's CRDs: %w", err)
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(stdout, &module); err != nil {
		return fmt.Errorf("fetch Istio's CRDs: answer of go mod download: %w", err)
	}
	content, err := os.ReadFile(filepath.Join(module.Dir, "kubernetes", "customresourcedefinitions.gen.yaml"))
	if err != nil {
		return fmt.Errorf("fetch Istio's CRDs: %w", err)
	}
	return os.WriteFile(target, content, 0o644)
}

// goCommand runs the go tool in dir and returns its standard output.
func goCommand(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	// The caller's flags, workspace and target platform are meant for the
	// product; the servers must come out the same whatever they are.
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w: %s", args[0], err, strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}

// linkerFlags stamp the versions of go.mod into programs that would otherwise
// report none: clients refuse an API server v0.0.0.
func linkerFlags(source string) (string, error) {
	name := filepath.Join(source, "go.mod")
	content, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	file, err := modfile.Parse(name, content, nil)
	if err != nil {
		return "", err
	}
	versions := make(map[string]string)
	for _, r := range file.Require {
		versions[r.Mod.Path] = r.Mod.Version
	}
	kubernetes := versions["k8s.io/kubernetes"]
	parts := strings.Split(strings.TrimPrefix(kubernetes, "v"), ".")
	if len(parts) != 3 {
		return "", fmt.Errorf("%s: version of k8s.io/kubernetes is %q, must be vMAJOR.MINOR.PATCH", name, kubernetes)
	}
	const component = "k8s.io/component-base/version."
	values := []string{
		component + "gitVersion=" + kubernetes,
		component + "gitMajor=" + parts[0],
		component + "gitMinor=" + parts[1],
		component + "gitCommit=unknown",
		component + "gitTreeState=archive",
		"github.com/prometheus/common/version.Version=" + prometheusRelease(versions["github.com/prometheus/prometheus"]),
		"istio.io/istio/pkg/version.buildVersion=" + versions["istio.io/istio"],
	}
	return "-s -w -X " + strings.Join(values, " -X "), nil
}

// prometheusRelease turns a module version into the release it stands for:
// v0.315.0 is Prometheus 3.15.0, since Go would want another import path for v3.
func prometheusRelease(module string) string {
	var number, patch int
	if _, err := fmt.Sscanf(module, "v0.%d.%d", &number, &patch); err != nil {
		return module
	}
	return fmt.Sprintf("%d.%d.%d", number/100, number%100, patch)
}
