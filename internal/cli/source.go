package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	v1 "sluice.dev/sluice/api/v1"
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
	var objects []manifest.Object
	var failures []error
	for _, name := range f.names {
		var found []manifest.Object
		var err error
		if manifest.IsKustomization(name) {
			found, err = manifest.Kustomize(ctx, name)
		} else {
			found, err = manifest.Load([]string{name}, f.recursive, t.In)
		}
		objects = append(objects, found...)
		if err != nil {
			failures = append(failures, err)
		}
	}
	return objects, errors.Join(failures...)
}

// offlineNamespace is where objects without a namespace are: that of -n, else default. The kubeconfig has no say, so that the
// same files give the same answer everywhere.
func (t *tool) offlineNamespace() string {
	if *t.config.Namespace != "" {
		return *t.config.Namespace
	}
	return "default"
}

func settleIn(objects []manifest.Object, namespace string) {
	for _, o := range objects {
		if o.GetNamespace() == "" {
			o.SetNamespace(namespace)
		}
	}
}

// rolloutsOf are the Rollouts among the objects; of a name, if one is given.
func rolloutsOf(objects []manifest.Object, name string) ([]manifest.Object, error) {
	var rollouts []manifest.Object
	for _, o := range objects {
		if o.GroupVersionKind().Group == v1.GroupVersion.Group && o.GetKind() == "Rollout" && (name == "" || o.GetName() == name) {
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
