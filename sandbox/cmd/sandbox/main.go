package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"sluice.dev/sluice/sandbox/binaries"
)

const usage = `what to do? Choose one of
  sandbox demo [--scenario happy|errors|breaker|revert]   tell a rollout of reviews, v1 to v3
  sandbox up [--operator on|off]                          stay until a signal; .sandbox/env tells where things are
  sandbox build-servers                                   build the servers into the user's cache folder`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "sandbox:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	flags := flag.NewFlagSet("sandbox "+args[0], flag.ContinueOnError)
	switch args[0] {
	case "build-servers":
		_, err := binaries.Ensure(ctx, os.Stdout)
		return err
	case "demo":
		name := flags.String("scenario", "happy", "the story to tell: happy, errors, breaker or revert")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return demo(ctx, *name, os.Stdout)
	case "up":
		operator := flags.String("operator", "on", "off leaves the operator out")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		if *operator != "on" && *operator != "off" {
			return fmt.Errorf("--operator is %q: choose on or off", *operator)
		}
		return up(ctx, *operator == "on", os.Stdout)
	default:
		return errors.New(usage)
	}
}

// dataDir is where everything that runs keeps its state, below the repository's root.
func dataDir() (string, error) {
	root, err := binaries.RepositoryRoot()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, ".sandbox"), nil
}

// operatorBinary is the operator that `make build` built, or the one that SLUICE_OPERATOR names.
func operatorBinary() (string, error) {
	if path := os.Getenv("SLUICE_OPERATOR"); path != "" {
		return path, nil
	}
	root, err := binaries.RepositoryRoot()
	return filepath.Join(root, "bin", "operator"), err
}
