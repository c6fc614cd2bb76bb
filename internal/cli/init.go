package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/draft"
	"sluice.dev/sluice/internal/manifest"
)

const initLong = `Prints a Rollout for a Service, with comments: the version that serves, the versions that there are, which routes would be managed
and which left alone, and steps to begin with. It reads the cluster, or with -f or -k files alone. Nothing is written.`

const initExample = `  kubectl sluice init reviews -n bookinfo > deploy/rollout.yaml
  kubectl sluice init reviews -f deploy/`

func (t *tool) initCommand() *cobra.Command {
	o := &files{}
	cmd := &cobra.Command{
		Use: "init SERVICE [-f FILE | -k FOLDER]", Short: "Write the first Rollout of a Service",
		Long: initLong, Example: initExample, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return t.init(cmd.Context(), o, args[0]) },
	}
	o.addFlags(cmd)
	return cmd
}

func (t *tool) init(ctx context.Context, o *files, service string) error {
	objects, namespace, err := t.around(ctx, o)
	if err != nil {
		return err
	}
	in := draft.Input{Service: service, Namespace: namespace, Now: t.clock.Now()}
	for _, object := range objects {
		in.Objects = append(in.Objects, object.Unstructured)
	}
	text, err := draft.Rollout(ctx, in)
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(t.Out, text)
	return err
}

// around reads a namespace's objects from files, or else from the cluster.
func (t *tool) around(ctx context.Context, o *files) ([]manifest.Object, string, error) {
	if !o.given() {
		c, err := t.cluster()
		if err != nil {
			return nil, "", err
		}
		objects, err := c.list(ctx, c.namespace)
		return objects, c.namespace, err
	}
	objects, err := t.read(ctx, o)
	if err != nil {
		return nil, "", err
	}
	namespace, err := t.namespaceOf(objects)
	if err != nil {
		return nil, "", err
	}
	settleIn(objects, namespace)
	return objects, namespace, nil
}

// namespaceOf files is that of -n, else the one that they name, if it is one only, else the kubeconfig's.
func (t *tool) namespaceOf(objects []manifest.Object) (string, error) {
	names := map[string]bool{}
	for _, o := range objects {
		if name := o.GetNamespace(); name != "" {
			names[name] = true
		}
	}
	if *t.config.Namespace == "" && len(names) == 1 {
		return slices.Collect(maps.Keys(names))[0], nil
	}
	return t.namespace()
}
