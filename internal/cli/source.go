package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/lint"
	"sluice.dev/sluice/internal/manifest"
)

// files are the flags that name what to read.
type files struct {
	names     []string
	recursive bool
	kustomize string
}

func (f *files) addFlags(cmd *cobra.Command) {
	cmd.Flags().StringSliceVarP(&f.names, "filename", "f", nil, "file, folder or - for standard input; may be repeated")
	cmd.Flags().BoolVarP(&f.recursive, "recursive", "R", false, "read the folders of -f with all that is below them")
	cmd.Flags().StringVarP(&f.kustomize, "kustomize", "k", "", "folder with a kustomization")
	cmd.MarkFlagsMutuallyExclusive("filename", "kustomize")
}

func (f *files) given() bool { return len(f.names) > 0 || f.kustomize != "" }

// read returns the objects, and what could not be read as a joined error. A folder of -f with a kustomization is rendered, as
// GitSync does with its path.
func (t *tool) read(ctx context.Context, f *files) ([]manifest.Object, error) {
	if f.kustomize != "" {
		return manifest.Kustomize(ctx, f.kustomize)
	}
	return manifest.Load(ctx, f.names, f.recursive, t.In)
}

// namespace is that of -n, else of the kubeconfig's context, else default: kubectl's convention.
func (t *tool) namespace() (string, error) {
	if *t.config.Namespace != "" {
		return *t.config.Namespace, nil
	}
	namespace, _, err := t.config.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return "", fmt.Errorf("the namespace of what names none is that of the kubeconfig, unless -n names one: %w", err)
	}
	return namespace, nil
}

// settle gives each object without a namespace that of the command, and returns it; "": each object names its own.
func (t *tool) settle(objects []manifest.Object) (string, error) {
	if !slices.ContainsFunc(objects, func(o manifest.Object) bool { return o.GetNamespace() == "" }) {
		return "", nil
	}
	namespace, err := t.namespace()
	if err == nil {
		settleIn(objects, namespace)
	}
	return namespace, err
}

func settleIn(objects []manifest.Object, namespace string) {
	for _, o := range objects {
		if o.GetNamespace() == "" {
			o.SetNamespace(namespace)
		}
	}
}

func isRollout(o manifest.Object) bool {
	return o.GroupVersionKind() == v1.GroupVersion.WithKind("Rollout")
}

// refuse tells what of the files the API server would refuse: a run of it would never be.
func refuse(ctx context.Context, objects []manifest.Object) error {
	var refusals []error
	for _, o := range objects {
		findings, err := lint.Refusals(ctx, o)
		if err != nil {
			return err
		}
		for _, f := range findings {
			refusals = append(refusals, errors.New(f.String()))
		}
	}
	return errors.Join(refusals...)
}

// rolloutsOf are the Rollouts among the objects; of a name, if one is given.
func rolloutsOf(objects []manifest.Object, name string) ([]manifest.Object, error) {
	var rollouts []manifest.Object
	for _, o := range objects {
		if isRollout(o) && (name == "" || o.GetName() == name) {
			rollouts = append(rollouts, o)
		}
	}
	switch {
	case len(rollouts) > 0:
		return rollouts, nil
	case name != "":
		return nil, fmt.Errorf("there is no Rollout %s among the %d objects that were read", name, len(objects))
	}
	return nil, errors.New("there is no Rollout (sluice.dev/v1) among what was read")
}
