package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"sluice.dev/sluice/internal/lint"
	"sluice.dev/sluice/internal/manifest"
)

const lintLong = `Finds in manifests what the API server would refuse, what would stop a run, and what would make its evidence worthless.
Each finding has file, line and column, the field, and what would be right. It needs no cluster.

The exit code is 1 if there is an error; warnings do not change it. docs/lint.md lists the rules.`

const lintExample = `  kubectl sluice lint -f deploy/
  kubectl sluice lint -R -f . -o json
  kubectl sluice lint -k deploy/prod`

// lintOptions are the flags of lint.
type lintOptions struct {
	files
	output string
	scrape time.Duration
	delay  time.Duration
	// assumed is the namespace of objects without one where nobody named it.
	assumed string
}

func (t *tool) lintCommand() *cobra.Command {
	o := &lintOptions{}
	cmd := &cobra.Command{
		Use: "lint (-f FILE | -k FOLDER)", Short: "Find mistakes in Rollouts and GitSyncs, offline",
		Long: lintLong, Example: lintExample, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return t.lint(cmd.Context(), o) },
	}
	o.files.addFlags(cmd)
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "text, json or yaml")
	cmd.Flags().DurationVar(&o.scrape, "scrape-interval", 15*time.Second, "how often Prometheus scrapes; windows shorter than two scrapes are reported")
	cmd.Flags().DurationVar(&o.delay, "propagation-delay", 2*time.Second, "the operator's --propagation-delay")
	return cmd
}

func (t *tool) lint(ctx context.Context, o *lintOptions) error {
	switch {
	case !o.given():
		return errors.New("nothing to lint: give -f FILE or -k FOLDER")
	case o.output != "text" && o.output != "json" && o.output != "yaml":
		return fmt.Errorf("--output %q: text, json or yaml is expected", o.output)
	case o.delay < 0:
		return fmt.Errorf("--propagation-delay %s: it can not be negative", o.delay)
	}
	objects, err := t.read(ctx, &o.files)
	findings, err := lint.Unreadable(err)
	if err != nil {
		return err
	}
	if len(objects)+len(findings) == 0 {
		return errors.New("nothing to lint: what was read holds no object")
	}
	namespace, err := t.settle(objects)
	if err != nil {
		return err
	}
	if *t.config.Namespace == "" {
		o.assumed = namespace
	}
	found, err := lint.Check(ctx, objects, lint.Options{ScrapeInterval: o.scrape, PropagationDelay: o.delay, Now: t.clock.Now()})
	if err != nil {
		return err
	}
	findings = append(findings, found...)
	slices.SortStableFunc(findings, lint.ByPlace)
	return t.printFindings(o, findings, objects)
}

// printFindings writes them all; the exit code is 1 if one is an error.
func (t *tool) printFindings(o *lintOptions, findings []lint.Finding, objects []manifest.Object) error {
	failed := 0
	for _, f := range findings {
		if f.Severity == lint.Error {
			failed++
		}
	}
	if o.output == "text" {
		for _, f := range findings {
			fmt.Fprintln(t.Out, f)
		}
		fmt.Fprintf(t.ErrOut, "%s, %s, %s\n", count(len(objects), "object"), count(failed, "error"), count(len(findings)-failed, "warning"))
		if failed > 0 && o.assumed != "" {
			fmt.Fprintf(t.ErrOut, "objects without a namespace were taken to be in %s: -n names another\n", o.assumed)
		}
	} else {
		list := append([]lint.Finding{}, findings...)
		if err := t.printValue(o.output, map[string]any{"findings": list, "errors": failed, "warnings": len(findings) - failed}); err != nil {
			return err
		}
	}
	if failed > 0 {
		return codeError(1)
	}
	return nil
}
