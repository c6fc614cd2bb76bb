package setup

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"sluice.dev/sluice/sandbox/binaries"
)

// BuildPlugin builds kubectl-sluice of this repository into a folder, and returns its path.
func BuildPlugin(ctx context.Context, folder string) (string, error) {
	root, err := binaries.RepositoryRoot()
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, "kubectl-sluice")
	build := exec.CommandContext(ctx, "go", "build", "-o", path, "./cmd/kubectl-sluice")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building kubectl-sluice: %w: %s", err, out)
	}
	return path, nil
}
