package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/manifest"
	"sluice.dev/sluice/internal/plan"
)

const planLong = `Prints what a run of a Rollout writes: each step's VirtualServices and DestinationRule as differences from the step before,
and the least time that each step takes.

With -f or -k it works offline: the objects of the files are all that there is, and what they leave open, such as a Service
or the pods of a version, is assumed and told. With --live the objects that the files do not name are read from the cluster,
and with a NAME alone the Rollout too. Nothing is written. The exit code is 1 where the run would not get to its end.`

const planExample = `  # What the steps of reviews will write once v3 is asked for, where v1 serves
  kubectl sluice plan -f deploy/ --from v1 --to v3
  # The Rollout of the cluster, from where it is now
  kubectl sluice plan reviews -n bookinfo --to v3
  # For another program
  kubectl sluice plan -k deploy/prod -o json`

// planOptions are the flags of plan and diff that shape a plan.
type planOptions struct {
	files
	from, to string
	delay    time.Duration
	unscoped bool
	live     bool
	output   string
	format   string
}

func (o *planOptions) addFlags(cmd *cobra.Command) {
	o.files.addFlags(cmd)
	cmd.Flags().StringVar(&o.to, "to", "", "version to plan for instead of spec.version")
	cmd.Flags().DurationVar(&o.delay, "propagation-delay", 2*time.Second, "the operator's --propagation-delay")
	cmd.Flags().BoolVar(&o.unscoped, "allow-unscoped-faults", false, "the operator's --allow-unscoped-faults")
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "text, json or yaml")
	cmd.Flags().StringVar(&o.format, "diff", "unified", "form of the differences in text: unified, or dyff")
}

func (o *planOptions) check() error {
	switch {
	case o.output != "text" && o.output != "json" && o.output != "yaml":
		return fmt.Errorf("--output %q: text, json or yaml is expected", o.output)
	case o.format != "unified" && o.format != "dyff":
		return fmt.Errorf("--diff %q: unified or dyff is expected", o.format)
	case o.delay < 0:
		return fmt.Errorf("--propagation-delay %s: it can not be negative", o.delay)
	}
	return nil
}

func (t *tool) planCommand() *cobra.Command {
	o := &planOptions{}
	cmd := &cobra.Command{
		Use: "plan [NAME] (-f FILE | -k FOLDER | NAME)", Short: "Show what each step of a run will write, before it does",
		Long: planLong, Example: planExample, Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) > 0 {
				name = args[0]
			}
			return t.plan(cmd.Context(), o, name)
		},
	}
	o.addFlags(cmd)
	cmd.Flags().StringVar(&o.from, "from", "", "version that serves; default: as the operator finds out, by routes, initialVersion or endpoints")
	cmd.Flags().BoolVar(&o.live, "live", false, "read what the files do not name from the cluster")
	return cmd
}

func (t *tool) plan(ctx context.Context, o *planOptions, name string) error {
	if err := o.check(); err != nil {
		return err
	}
	objects, rollouts, err := t.planned(ctx, o, name)
	if err != nil {
		return err
	}
	plans, err := t.plans(ctx, o, objects, rollouts)
	if err != nil {
		return err
	}
	return t.printPlans(o, plans)
}

// planned gathers all objects, and the Rollouts to plan.
func (t *tool) planned(ctx context.Context, o *planOptions, name string) (objects, rollouts []manifest.Object, err error) {
	if o.given() {
		if objects, err = t.read(ctx, &o.files); err != nil {
			return nil, nil, err
		}
		if _, err = t.settle(objects); err != nil {
			return nil, nil, err
		}
		if err = refuse(ctx, objects); err != nil {
			return nil, nil, err
		}
		if rollouts, err = t.named(objects, name); err != nil || !o.live {
			return objects, rollouts, err
		}
		objects, err = t.withLive(ctx, objects, rollouts)
		return objects, rollouts, err
	}
	if name == "" {
		return nil, nil, fmt.Errorf("nothing to plan: give -f FILE or -k FOLDER, or the NAME of a Rollout of the cluster")
	}
	return t.liveRollout(ctx, name)
}

// named are the Rollouts of a name, or all where it is empty; with a name, -n tells those of several namespaces apart.
func (t *tool) named(objects []manifest.Object, name string) ([]manifest.Object, error) {
	rollouts, err := rolloutsOf(objects, name)
	namespace := *t.config.Namespace
	if err != nil || name == "" || namespace == "" {
		return rollouts, err
	}
	in := slices.DeleteFunc(slices.Clone(rollouts), func(r manifest.Object) bool { return r.GetNamespace() != namespace })
	if len(in) == 0 {
		return nil, fmt.Errorf("there is no Rollout %s in namespace %s among what was read, but %s", name, namespace, namesOf(rollouts))
	}
	return in, nil
}

// plans makes each Rollout's plan.
func (t *tool) plans(ctx context.Context, o *planOptions, objects, rollouts []manifest.Object) ([]*plan.Plan, error) {
	if len(rollouts) > 1 && (o.from != "" || o.to != "") {
		return nil, fmt.Errorf("--from and --to are versions of one Rollout, and there are %d: %s; name one of them, with -n if need be, or give its files alone",
			len(rollouts), namesOf(rollouts))
	}
	var plans []*plan.Plan
	for _, r := range rollouts {
		in := plan.Input{
			Rollout: r.Unstructured, From: o.from, To: o.to, PropagationDelay: o.delay, UnscopedFaults: o.unscoped, Now: t.clock.Now(),
		}
		for _, other := range objects {
			if other.Unstructured != r.Unstructured {
				in.Objects = append(in.Objects, other.Unstructured)
			}
		}
		p, err := plan.Make(ctx, in)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.At(""), err)
		}
		plans = append(plans, p)
	}
	return plans, nil
}

func namesOf(rollouts []manifest.Object) string {
	var names []string
	for _, r := range rollouts {
		names = append(names, r.GetNamespace()+"/"+r.GetName())
	}
	return strings.Join(names, ", ")
}
