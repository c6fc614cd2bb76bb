package cli

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"sluice.dev/sluice/internal/plan"
)

// printPlans writes the plans, or what keeps a run from its end: then the exit code is 1.
func (t *tool) printPlans(o *planOptions, plans []*plan.Plan) error {
	if o.output != "text" {
		if err := t.printValue(o.output, planList(plans)); err != nil {
			return err
		}
		return problemOf(plans)
	}
	for i, p := range plans {
		if i > 0 {
			fmt.Fprintln(t.Out)
		}
		content, err := planText(p, o, differOf(o.format))
		if err != nil {
			return err
		}
		fmt.Fprint(t.Out, content)
	}
	return problemOf(plans)
}

func problemOf(plans []*plan.Plan) error {
	for _, p := range plans {
		if p.Problem != nil {
			return codeError(1)
		}
	}
	return nil
}

// printValue writes a value as JSON or YAML.
func (t *tool) printValue(format string, value any) error {
	raw, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	raw = append(raw, '\n')
	if format == "yaml" {
		if raw, err = yaml.JSONToYAML(raw); err != nil {
			return err
		}
	}
	_, err = t.Out.Write(raw)
	return err
}

// planText is a plan for people.
func planText(p *plan.Plan, o *planOptions, diff differ) (string, error) {
	var out strings.Builder
	fmt.Fprintf(&out, "Rollout %s/%s: %s\n", p.Namespace, p.Name, headline(p))
	if len(p.Assumed) > 0 {
		fmt.Fprintf(&out, "assumed: %s\n", strings.Join(p.Assumed, "; "))
	}
	for i := range p.Stages {
		stage := &p.Stages[i]
		fmt.Fprintf(&out, "\n%s\n", stageLine(stage, o.delay))
		for _, w := range stage.Writes {
			if err := writeText(&out, w, diff); err != nil {
				return "", err
			}
		}
	}
	if p.Problem != nil {
		fmt.Fprintf(&out, "\nIt would not get further: %s: %s\n", p.Problem.Reason, p.Problem.Message)
	}
	return out.String(), nil
}

func headline(p *plan.Plan) string {
	steps := 0
	for i := range p.Stages {
		if p.Stages[i].Step {
			steps++
		}
	}
	switch {
	case steps > 0:
		return fmt.Sprintf("%s → %s of %s, %s, at least %s", p.From, p.To, p.Host, count(steps, "step"), short(p.Least()))
	case p.Problem != nil && (p.From == "" || p.From == p.To):
		return fmt.Sprintf("to %s of %s", p.To, p.Host)
	case p.Problem != nil:
		return fmt.Sprintf("%s → %s of %s", p.From, p.To, p.Host)
	case p.From == p.To:
		return fmt.Sprintf("as far as can be told, %s of %s serves already (--from names what does, --to what is to)", p.To, p.Host)
	}
	return fmt.Sprintf("%s → %s of %s at once", p.From, p.To, p.Host)
}

// count says how many of something there are.
func count(n int, of string) string {
	if n != 1 {
		of += "s"
	}
	return fmt.Sprintf("%d %s", n, of)
}

func stageLine(s *plan.Stage, delay time.Duration) string {
	if !s.Step {
		return fmt.Sprintf("%s: %s", s.Name, s.Traffic)
	}
	line := fmt.Sprintf("step %s: %s; at least %s", s.Name, s.Traffic, short(s.Least))
	var why []string
	if s.Hold > 0 {
		why = append(why, "hold "+short(s.Hold))
	}
	for _, g := range s.Gates {
		why = append(why, fmt.Sprintf("gate %s %s + %s + %d × %s", g.Name, short(delay), short(g.Window), g.Samples-1, short(g.Interval)))
	}
	if s.Probe != nil {
		why = append(why, fmt.Sprintf("probe %s + %d × %s", short(delay), s.Probe.Requests-1, short(s.Probe.Interval)))
	}
	if len(why) > 0 {
		line += " (" + strings.Join(why, ", ") + ")"
	}
	return line
}

// short is a duration without its zeros: 10m, 1h.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func writeText(out *strings.Builder, w plan.Write, diff differ) error {
	verb := ""
	switch {
	case w.Before == nil:
		verb = " (created)"
	case w.After == nil:
		verb = " (deleted)"
	}
	fmt.Fprintf(out, "  %s %s%s\n", w.Kind, w.Name, verb)
	if w.After == nil {
		return nil
	}
	content, err := diff(w.Before, w.After)
	if err != nil {
		return fmt.Errorf("%s %s: %w", w.Kind, w.Name, err)
	}
	for line := range strings.Lines(content) {
		fmt.Fprintf(out, "    %s", line)
	}
	return nil
}

// planJSON is a plan for programs: durations as Kubernetes writes them, and of each write the whole object, null when it goes.
type planJSON struct {
	*plan.Plan
	Stages []stageJSON `json:"stages"`
	Least  string      `json:"leastDuration"`
}

type stageJSON struct {
	*plan.Stage
	Gates  []gateJSON  `json:"gates,omitempty"`
	Probe  *probeJSON  `json:"probe,omitempty"`
	Writes []writeJSON `json:"writes,omitempty"`
	Hold   string      `json:"hold,omitempty"`
	Least  string      `json:"leastDuration,omitempty"`
}

type gateJSON struct {
	plan.Gate
	Window   string `json:"window"`
	Interval string `json:"interval"`
}

type probeJSON struct {
	plan.Probe
	Interval string `json:"interval"`
}

type writeJSON struct {
	plan.Write
	Object *unstructured.Unstructured `json:"object"`
}

func planList(plans []*plan.Plan) map[string]any {
	items := []planJSON{}
	for _, p := range plans {
		item := planJSON{Plan: p, Least: short(p.Least())}
		for i := range p.Stages {
			item.Stages = append(item.Stages, stageOf(&p.Stages[i]))
		}
		items = append(items, item)
	}
	return map[string]any{"plans": items}
}

func stageOf(s *plan.Stage) stageJSON {
	stage := stageJSON{Stage: s}
	if s.Step {
		stage.Hold, stage.Least = short(s.Hold), short(s.Least)
	}
	for _, g := range s.Gates {
		stage.Gates = append(stage.Gates, gateJSON{Gate: g, Window: short(g.Window), Interval: short(g.Interval)})
	}
	if s.Probe != nil {
		stage.Probe = &probeJSON{Probe: *s.Probe, Interval: short(s.Probe.Interval)}
	}
	for _, w := range s.Writes {
		item := writeJSON{Write: w}
		if w.After != nil {
			item.Object = bare(w.After)
		}
		stage.Writes = append(stage.Writes, item)
	}
	return stage
}
