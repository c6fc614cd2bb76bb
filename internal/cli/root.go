package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/clock"
)

// tool is what all commands share.
type tool struct {
	genericiooptions.IOStreams
	config *genericclioptions.ConfigFlags
	clock  clock.PassiveClock
}

// codeError ends the plugin with an exit code, without a message of its own.
type codeError int

// Error implements error.
func (c codeError) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Run executes the plugin with the arguments that follow its name, and returns its exit code: 0, or 1 on an error. What other
// codes mean is each command's to say.
func Run(ctx context.Context, args []string, streams genericiooptions.IOStreams, clock clock.PassiveClock) int {
	command := newCommand(streams, clock)
	command.SetArgs(args)
	executed, err := command.ExecuteContextC(ctx)
	var code codeError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintf(streams.ErrOut, "error: %v\n", err)
	if executed.Name() == diffName {
		return int(failed) // 1 would say that something differs
	}
	return 1
}

func newCommand(streams genericiooptions.IOStreams, clock clock.PassiveClock) *cobra.Command {
	t := &tool{IOStreams: streams, config: genericclioptions.NewConfigFlags(true), clock: clock}
	root := &cobra.Command{
		Use:   "kubectl-sluice",
		Short: "Progressive delivery for Istio, driven from Git",
		Long: `kubectl sluice tells what a Rollout will do before it does it.

plan and lint read files and need no cluster; diff compares with one; init writes a Rollout from what is there.`,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl sluice"},
		SilenceErrors: true, SilenceUsage: true,
	}
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.ErrOut)
	t.config.AddFlags(root.PersistentFlags())
	root.AddCommand(t.planCommand(), t.diffCommand(), t.lintCommand(), t.initCommand())
	return root
}
