package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"sluice.dev/sluice/internal/manifest"
	"sluice.dev/sluice/internal/plan"
)

const diffLong = `Shows what applying files would change: each object as the API server would store it, against the live one, and then for each
Rollout what the run that follows would write, step by step, against the live VirtualServices and DestinationRules.

The API server is asked by a server-side apply as dry-run; nothing is written. As with kubectl diff the exit code is 0 if nothing
differs, 1 if something does, and greater than 1 on an error.`

const diffExample = `  kubectl sluice diff -f deploy/ -n bookinfo
  kubectl sluice diff -k deploy/prod --first`

// failed is the exit code of an error in diff: 1 says that there are differences.
const failed = codeError(2)

const diffName = "diff"

func (t *tool) diffCommand() *cobra.Command {
	o := &planOptions{}
	first := false
	cmd := &cobra.Command{
		Use: diffName + " (-f FILE | -k FOLDER)", Short: "Show what applying files would change, and what would follow in the mesh",
		Long: diffLong, Example: diffExample, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			differs, err := t.diff(cmd.Context(), o, first)
			if err == nil && differs {
				return codeError(1)
			}
			return err
		},
	}
	o.addFlags(cmd)
	cmd.Flags().BoolVar(&first, "first", false, "of each run show what its first step writes, and no more")
	return cmd
}

// diff tells whether anything differs.
func (t *tool) diff(ctx context.Context, o *planOptions, first bool) (bool, error) {
	if err := o.check(); err != nil {
		return false, err
	}
	if !o.given() {
		return false, errors.New("nothing to compare: give -f FILE or -k FOLDER")
	}
	objects, err := t.read(ctx, &o.files)
	if err != nil {
		return false, err
	}
	c, err := t.cluster()
	if err != nil {
		return false, err
	}
	settleIn(objects, c.namespace)
	changes, applied, err := c.changes(ctx, objects)
	if err != nil {
		return false, err
	}
	plans, err := t.plansAfter(ctx, o, c, applied)
	if err != nil {
		return false, err
	}
	differs := len(changes) > 0
	for _, p := range plans {
		differs = differs || len(p.Stages) > 0
		if first {
			p.Stages = upToFirst(p.Stages)
		}
	}
	return differs, t.printDiff(o, changes, plans)
}

// change is one object that applying would change; live nil: it would be made.
type change struct {
	object        manifest.Object
	live, applied *unstructured.Unstructured
}

// changes asks the API server what each object would be.
func (c *cluster) changes(ctx context.Context, objects []manifest.Object) (changes []change, applied []manifest.Object, err error) {
	for _, o := range objects {
		live, err := c.get(ctx, o.Unstructured)
		if err != nil {
			return nil, nil, err
		}
		after, err := c.dryRun(ctx, o)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", o.At(""), err)
		}
		result := fromCluster(after)
		result.File = o.File
		applied = append(applied, result)
		a, err := text(live)
		if err != nil {
			return nil, nil, err
		}
		b, err := text(after)
		if err != nil {
			return nil, nil, err
		}
		if live != nil {
			live.SetManagedFields(nil)
		}
		if a != b {
			changes = append(changes, change{o, live, after})
		}
	}
	return changes, applied, nil
}

// dryRun is what the object would be. Fields of other managers are taken over: that is what applying with force would do.
func (c *cluster) dryRun(ctx context.Context, o manifest.Object) (*unstructured.Unstructured, error) {
	gvk := o.GroupVersionKind()
	resource, err := c.resource(gvk.GroupKind(), o.GetNamespace(), gvk.Version)
	if err != nil {
		return nil, err
	}
	if resource == nil {
		return nil, fmt.Errorf("the cluster does not know %s", gvk)
	}
	body, err := o.MarshalJSON()
	if err != nil {
		return nil, err
	}
	force := true
	after, err := resource.Patch(ctx, o.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{
		DryRun: []string{metav1.DryRunAll}, FieldManager: "kubectl-sluice", Force: &force,
	})
	if apierrors.IsForbidden(err) {
		return nil, fmt.Errorf("comparing needs the right to patch: %w", err)
	}
	return after, err
}

// plansAfter are the plans of the Rollouts as they would be, beside the live objects.
func (t *tool) plansAfter(ctx context.Context, o *planOptions, c *cluster, applied []manifest.Object) ([]*plan.Plan, error) {
	rollouts, err := rolloutsOf(applied, "")
	if err != nil {
		return nil, nil //nolint:nilerr // files without a Rollout may be compared as well
	}
	// The API server gave what was applied with all that it knows of it.
	objects, err := c.around(ctx, applied, rollouts, func(manifest.Object, manifest.Object) {})
	if err != nil {
		return nil, err
	}
	return t.plans(ctx, o, objects, rollouts)
}

func upToFirst(stages []plan.Stage) []plan.Stage {
	for i := range stages {
		if stages[i].Step {
			return stages[:i+1]
		}
	}
	return stages
}

func (t *tool) printDiff(o *planOptions, changes []change, plans []*plan.Plan) error {
	if o.output != "text" {
		list := planList(plans)
		items := []map[string]any{}
		for _, ch := range changes {
			item := map[string]any{"kind": ch.object.GetKind(), "name": ch.object.GetName(), "namespace": ch.object.GetNamespace(), "object": bare(ch.applied)}
			if ch.live != nil {
				item["live"] = bare(ch.live)
			}
			items = append(items, item)
		}
		list["changes"] = items
		return t.printValue(o.output, list)
	}
	diff := differOf(o.format)
	for _, ch := range changes {
		content, err := diff(ch.live, ch.applied)
		if err != nil {
			return err
		}
		verb := "would change"
		if ch.live == nil {
			verb = "would be made"
		}
		fmt.Fprintf(t.Out, "%s %s/%s %s\n", ch.object.GetKind(), ch.object.GetNamespace(), ch.object.GetName(), verb)
		for line := range strings.Lines(content) {
			fmt.Fprintf(t.Out, "    %s", line)
		}
	}
	for _, p := range plans {
		if len(p.Stages) == 0 && p.Problem == nil {
			continue
		}
		content, err := planText(p, o, diff)
		if err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "\n%s", content)
	}
	return nil
}
