package session

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// KubectlRun runs kubectl as a cluster administrator and returns what it prints.
func (c *Cluster) KubectlRun(ctx context.Context, args ...string) (string, error) {
	return c.KubectlStdin(ctx, "", args...)
}

// KubectlStdin is KubectlRun with something to read.
func (c *Cluster) KubectlStdin(ctx context.Context, stdin string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, c.Kubectl, append([]string{"--kubeconfig=" + c.KubeConfig}, args...)...)
	command.Stdin = strings.NewReader(stdin)
	var out, problems bytes.Buffer
	command.Stdout, command.Stderr = &out, &problems
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(problems.String()))
	}
	return out.String(), nil
}
