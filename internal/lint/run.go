package lint

import (
	"context"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/promql/parser"

	"sluice.dev/sluice/analysis"
	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
	"sluice.dev/sluice/internal/plan"
)

// checkRun plays a run, and looks at what its gates would be asked.
func (s *subject) checkRun(ctx context.Context) {
	p, err := s.play(ctx)
	if err != nil {
		s.find(ruleRun, s.object, "", "%v", err)
		return
	}
	if p.Problem != nil && !s.told(p.Problem.Reason) {
		s.find(ruleRun, s.object, s.placeOf(p.Problem), "a run to %s would stop: %s: %s", p.To, p.Problem.Reason, p.Problem.Message)
	}
	for i := range p.Stages {
		if p.Stages[i].Step {
			s.checkStage(&p.Stages[i])
		}
	}
}

// told tells whether a rule of its own has found the reason already.
func (s *subject) told(reason string) bool {
	own := map[string]string{v1.ReasonVersionsOverlap: ruleOverlap, v1.ReasonHostConflict: ruleHostTwice, v1.ReasonForeignHost: ruleIgnoredHosts}[reason]
	return own != "" && slices.ContainsFunc(s.findings, func(f Finding) bool { return f.Rule == own && f.Object == s.object.Ref() })
}

// placeOf a problem: that of the step which its message begins with, else the field that its reason is about.
func (s *subject) placeOf(p *plan.Problem) string {
	for i := range s.rollout.Spec.Steps {
		if strings.HasPrefix(p.Message, "step "+s.rollout.Spec.Steps[i].Name+":") {
			return at("spec.steps", i)
		}
	}
	switch p.Reason {
	case v1.ReasonForeignHost, v1.ReasonHostConflict:
		return "spec.host"
	case v1.ReasonVirtualServiceNotFound, v1.ReasonRouteNotFound, v1.ReasonMixedRoute:
		return "spec.virtualServices"
	case v1.ReasonVersionsOverlap, v1.ReasonSubsetInUse, v1.ReasonVersionNotFound:
		return "spec.versions"
	}
	return "spec"
}

// play makes the plan of a run: to spec.version, or where that serves already to another version, from where it is told.
func (s *subject) play(ctx context.Context) (*plan.Plan, error) {
	in := plan.Input{Rollout: s.object.Unstructured, PropagationDelay: s.options.PropagationDelay, Now: s.options.Now, UnscopedFaults: true}
	for _, o := range s.near {
		in.Objects = append(in.Objects, o.Unstructured)
	}
	p, err := plan.Make(ctx, in)
	switch {
	case err != nil:
		return nil, err
	case p.Problem != nil && p.Problem.Reason == v1.ReasonInitialVersionUnknown:
		in.From = s.another() // a cluster may know what the files do not tell
	case p.Problem == nil && p.From == p.To:
		in.From, in.To = s.rollout.Spec.Version, s.another()
	default:
		return p, nil
	}
	return plan.Make(ctx, in)
}

// another version than spec.version: one that the files name, else one that is made up.
func (s *subject) another() string {
	var names []string
	for _, v := range s.rollout.Spec.Versions {
		names = append(names, v.Name)
	}
	for _, w := range s.workloads {
		names = append(names, w.labels["version"])
	}
	for _, subset := range s.surveyed.Subsets {
		names = append(names, subset.Labels["version"])
	}
	i := slices.IndexFunc(names, func(name string) bool { return name != "" && name != s.rollout.Spec.Version })
	if i < 0 {
		return "another-version"
	}
	return names[i]
}

// checkStage looks at the gates of a step as they were resolved.
func (s *subject) checkStage(stage *plan.Stage) {
	step := "spec.soak"
	if stage.Index < len(s.rollout.Spec.Steps) {
		step = at("spec.steps", stage.Index)
	}
	for _, g := range stage.Gates {
		if stage.Hold > 0 && stage.Hold < g.Window {
			s.find(ruleHold, s.object, step+".hold", "%s is over before the first window of gate %s, %s, is: step %s takes at least %s",
				stage.Hold, g.Name, g.Window, stage.Name, stage.Least)
		}
		path := s.pathOf(g.Name)
		query, err := analysis.Query(g.Watch)
		if err != nil {
			if g.Watch.Query == "" && !s.found(ruleGateTarget, path) {
				s.find(ruleGateTarget, s.object, path, "step %s: %v", stage.Name, err)
			}
			continue
		}
		if expr, err := parseQuery(query); err == nil && g.Watch.Query != "" && !s.found(ruleBlind, path+".query") {
			s.checkSight(stage, g, path+".query", expr)
		}
	}
}

// checkSight finds a query that does not see the traffic of a step.
func (s *subject) checkSight(stage *plan.Stage, g plan.Gate, path string, expr parser.Expr) {
	switch {
	case !stage.Exposed && s.namesCanary(g.Watch.Query) && asksOfDestination(expr):
		s.find(ruleBlind, s.object, path, "in step %s no request reaches the canary, so that there is no data for it: useGates without %s is right there, or a step with mirror, match or weight",
			stage.Name, g.Name)
	case stage.Exposed && g.Watch.Exposure == pipeline.ExposureMirror && !seesMirrored(expr):
		s.find(ruleBlind, s.object, path, `in step %s the canary gets mirrored requests alone, which reporter="source" does not tell of: reporter="destination" is right there, or useGates without %s`,
			stage.Name, g.Name)
	}
}

// found tells whether a rule has found something about a field already: one finding is enough for all steps.
func (s *subject) found(rule, path string) bool {
	return slices.ContainsFunc(s.findings, func(f Finding) bool { return f.Rule == rule && f.Path == path && f.Object == s.object.Ref() })
}

// pathOf a gate; of the one that stands in no manifest, the spec's.
func (s *subject) pathOf(gate string) string {
	for _, g := range s.gates() {
		if g.Name == gate {
			return g.path
		}
	}
	return "spec"
}
