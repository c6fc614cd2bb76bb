package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/manifest"
	"sluice.dev/sluice/internal/plan"
)

const diffLong = `Shows what a push of files would change: each object as the API server would store it, against the live one, and then for each
Rollout what the run that follows would write, step by step, against the live VirtualServices and DestinationRules. What Rollouts
drive in those stays, as GitSync leaves it. Values of Secrets are not shown.

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
	if len(objects) == 0 {
		return false, errors.New("nothing to compare: what was read holds no object")
	}
	c, err := t.cluster()
	if err != nil {
		return false, err
	}
	if err := c.settle(objects); err != nil {
		return false, err
	}
	changes, applied, err := c.changes(ctx, objects)
	if err != nil {
		return false, err
	}
	plans, err := t.plansAfter(ctx, o, c, applied, changes)
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

// settle gives namespaced objects without a namespace the one of the command, and takes it off all others.
func (c *cluster) settle(objects []manifest.Object) error {
	for _, o := range objects {
		mapping, err := c.mapping(o.GroupVersionKind().GroupKind(), o.GroupVersionKind().Version)
		switch {
		case err != nil:
			return err
		case mapping != nil && mapping.Scope.Name() != meta.RESTScopeNameNamespace:
			unstructured.RemoveNestedField(o.Object, "metadata", "namespace")
		case o.GetNamespace() == "":
			o.SetNamespace(c.namespace)
		}
	}
	return nil
}

// change is one object that applying would change; live nil: it would be made. held is why GitSync would leave it as it is.
type change struct {
	object        manifest.Object
	live, applied *unstructured.Unstructured
	held          string
}

// changes asks the API server what each object would be.
func (c *cluster) changes(ctx context.Context, objects []manifest.Object) (changes []change, applied []manifest.Object, err error) {
	neighbours := c.neighbours()
	for _, o := range objects {
		ch := change{object: o}
		if ch.live, err = c.get(ctx, o.Unstructured); err != nil {
			return nil, nil, err
		}
		if ch.applied, err = c.dryRun(ctx, o); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", o.At(""), err)
		}
		if err := ch.leaveDriven(ctx, neighbours); err != nil {
			return nil, nil, err
		}
		result := fromCluster(ch.applied)
		result.File = o.File
		applied = append(applied, result)
		a, err := text(ch.live)
		if err != nil {
			return nil, nil, err
		}
		b, err := text(ch.applied)
		if err != nil {
			return nil, nil, err
		}
		if a != b || ch.held != "" {
			ch.live, ch.applied = masked(ch.live, ch.applied)
			changes = append(changes, ch)
		}
	}
	return changes, applied, nil
}

// neighbours reads what GitSync asks about routing, once for each namespace.
func (c *cluster) neighbours() func(ctx context.Context, namespace string) (*push, error) {
	known := map[string]*push{}
	return func(ctx context.Context, namespace string) (*push, error) {
		if p := known[namespace]; p != nil {
			return p, nil
		}
		p := &push{}
		found, err := c.listKind(ctx, v1.GroupVersion.WithKind("Rollout").GroupKind(), namespace)
		if err != nil {
			return nil, err
		}
		var rollouts []manifest.Object
		for _, o := range found {
			rollouts = append(rollouts, fromCluster(o))
		}
		if p.rollouts, err = decodeRollouts(rollouts); err != nil {
			return nil, err
		}
		p.services, err = c.listKind(ctx, schema.GroupKind{Group: "networking.istio.io", Kind: "VirtualService"}, namespace)
		known[namespace] = p
		return p, err
	}
}

// leaveDriven gives what would be applied to a route or rule what Rollouts drive in the live one.
func (ch *change) leaveDriven(ctx context.Context, neighbours func(context.Context, string) (*push, error)) error {
	if ch.live == nil || !isRouting(ch.applied) {
		return nil
	}
	p, err := neighbours(ctx, ch.live.GetNamespace())
	if err != nil {
		return err
	}
	wanted, problem := driven(p.rollouts, p.services, ch.live, ch.applied)
	if problem != nil {
		ch.held, wanted = problem.Message, ch.live.DeepCopy()
	}
	ch.applied = wanted
	return nil
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

// plansAfter are the plans of the Rollouts as they would be, beside the live objects. The API server gave what was applied with all
// that it knows of it; workloads that would change are taken to run.
func (t *tool) plansAfter(ctx context.Context, o *planOptions, c *cluster, applied []manifest.Object, changes []change) ([]*plan.Plan, error) {
	rollouts, err := rolloutsOf(applied, "")
	if err != nil {
		return nil, nil //nolint:nilerr // files without a Rollout may be compared as well
	}
	p := &push{}
	for i := range changes {
		if isWorkload(changes[i].applied) {
			p.replace(changes[i].applied, changes[i].live)
		}
	}
	over := overlay{each: func(manifest.Object, manifest.Object) {}, stays: p.stays}
	objects, err := c.around(ctx, applied, rollouts, func([]manifest.Object) (overlay, error) { return over, nil })
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
			if ch.held != "" {
				item["heldBack"] = ch.held
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
		fmt.Fprintf(t.Out, "%s %s\n", ch.name(), ch.verb())
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

// name of the object: Deployment bookinfo/reviews-v1, Namespace bookinfo.
func (ch *change) name() string {
	name := ch.object.GetName()
	if namespace := ch.object.GetNamespace(); namespace != "" {
		name = namespace + "/" + name
	}
	return ch.object.GetKind() + " " + name
}

func (ch *change) verb() string {
	switch {
	case ch.held != "":
		return "would be left as it is, HeldBack: " + ch.held
	case ch.live == nil:
		return "would be made"
	}
	return "would change"
}
