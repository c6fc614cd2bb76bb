package clustertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/binaries"
	"sluice.dev/sluice/sandbox/gitserver"
	"sluice.dev/sluice/sandbox/process"
	"sluice.dev/sluice/sandbox/session"
	"sluice.dev/sluice/sandbox/setup"
)

// world is the cluster, and what runs on this machine for it.
var world struct {
	root, kubeConfig, prometheus, dir string

	git      *gitserver.Server
	operator *process.Process
}

func TestMain(m *testing.M) {
	if os.Getenv("SLUICE_E2E") != "cluster" {
		fmt.Println("set SLUICE_E2E=cluster, KUBECONFIG and PROMETHEUS_URL to run this in a cluster of your own")
		return
	}
	setup.Main("clustertest", func(ctx context.Context) (code int, err error) {
		if world.dir, err = os.MkdirTemp("", "sluice-clustertest-"); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(world.dir)) }()
		if err := start(ctx); err != nil {
			return 0, err
		}
		defer world.git.Stop()
		code = m.Run()
		return code, world.operator.Stop()
	})
}

func start(ctx context.Context) (err error) {
	if world.kubeConfig, world.prometheus = os.Getenv("KUBECONFIG"), os.Getenv("PROMETHEUS_URL"); world.kubeConfig == "" || world.prometheus == "" {
		return errors.New("KUBECONFIG and PROMETHEUS_URL are needed: the cluster's, as seen from this machine")
	}
	if world.root, err = binaries.RepositoryRoot(); err != nil {
		return err
	}
	for _, folder := range []string{"crd", "rbac"} {
		if _, err := kubectl(ctx, "apply", "--server-side", "-k", filepath.Join(world.root, "config", folder)); err != nil {
			return err
		}
	}
	ports, err := process.FreePorts(1)
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(world.dir, "git.log"))
	if err != nil {
		return err
	}
	if world.git, err = gitserver.Start(ctx, filepath.Join(world.dir, "git"), process.Address(ports[0]), log); err != nil {
		return err
	}
	return startOperator(ctx)
}

// startOperator runs the operator with the rights of config/rbac and no more.
func startOperator(ctx context.Context) error {
	config, err := operatorKubeConfig(ctx)
	if err != nil {
		return err
	}
	binary, err := session.OperatorBinary(ctx)
	if err != nil {
		return err
	}
	ports, err := process.FreePorts(3)
	if err != nil {
		return err
	}
	health := process.Address(ports[0])
	world.operator, err = process.Start(ctx, process.Spec{
		Name: "operator", Path: binary, LogDir: world.dir,
		Args: []string{
			"--kubeconfig=" + config, "--prometheus-url=" + world.prometheus, "--leader-elect=false",
			"--health-probe-bind-address=" + health, "--metrics-bind-address=" + process.Address(ports[1]), "--hook-bind-address=" + process.Address(ports[2]),
		},
		Ready: process.HTTPReady("http://" + health + "/readyz"), ReadyTimeout: time.Minute,
	})
	return err
}

// operatorKubeConfig is the cluster's with a token of the operator's service account in it.
func operatorKubeConfig(ctx context.Context) (string, error) {
	const namespace, account = "sluice-system", "sluice-operator"
	token, err := kubectl(ctx, "create", "token", account, "--namespace="+namespace, "--duration=4h")
	if err != nil {
		return "", err
	}
	config, err := kubectl(ctx, "config", "view", "--raw", "--flatten", "--minify")
	if err != nil {
		return "", err
	}
	path := filepath.Join(world.dir, "operator.kubeconfig")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"config", "set-credentials", account, "--token=" + strings.TrimSpace(token)},
		{"config", "set-context", "--current", "--user=" + account},
	} {
		if _, err := run(exec.CommandContext(ctx, "kubectl", append([]string{"--kubeconfig=" + path}, args...)...)); err != nil {
			return "", fmt.Errorf("kubectl config: %w", err) // without the token
		}
	}
	return path, nil
}

// kubectl runs kubectl as whoever KUBECONFIG stands for, and returns what it prints.
func kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := run(exec.CommandContext(ctx, "kubectl", append([]string{"--kubeconfig=" + world.kubeConfig}, args...)...))
	if err != nil {
		return out, fmt.Errorf("kubectl %s: %w", strings.Join(args, " "), err)
	}
	return out, nil
}

func run(command *exec.Cmd) (string, error) {
	var problems strings.Builder
	command.Stderr = &problems
	out, err := command.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.TrimSpace(problems.String()))
	}
	return string(out), err
}
