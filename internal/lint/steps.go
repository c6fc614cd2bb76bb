package lint

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// checkWeights finds plans in which all users change versions at once.
func (s *subject) checkWeights() {
	steps := s.rollout.Spec.Steps
	for i := range steps {
		if w := steps[i].Weight; w != nil && *w > 0 && *w < 100 {
			return
		}
	}
	path, what := "spec.steps", "no step has a weight between 1 and 99"
	if len(steps) == 0 {
		path, what = "spec", "there are no steps"
	}
	s.find(ruleJump, s.object, path, "%s: at the end all users who were not matched go from 0%% to 100%% of the new version at once; put a step with a small weight before that", what)
}

func (s *subject) checkFaults() {
	for i := range s.rollout.Spec.Steps {
		fault := s.rollout.Spec.Steps[i].Fault
		if fault == nil {
			continue
		}
		path := at("spec.steps", i) + ".fault"
		if d := fault.Delay; d != nil && d.GetPercentage().GetValue() == 0 && d.GetPercent() == 0 { //nolint:staticcheck // deprecated, but obeyed
			s.find(ruleFaultShare, s.object, path+".delay", "it delays no request: give percentage: {value: 100}")
		}
		if a := fault.Abort; a != nil && a.GetPercentage().GetValue() == 0 {
			s.find(ruleFaultShare, s.object, path+".abort", "it aborts no request: give percentage: {value: 100}")
		}
		if fault.Scope == v1.FaultScopeEveryone || len(fault.Match) == 0 || slices.ContainsFunc(s.faultMatch(i), matchesAll) {
			s.find(ruleUnscoped, s.object, path,
				"the fault hits everyone's requests: give match, such as a header of the testers; or start the operator with --allow-unscoped-faults")
		}
	}
}

// faultMatch are the match blocks of a step's fault, as they stand in the manifest.
func (s *subject) faultMatch(step int) []any {
	steps, _, err := unstructured.NestedSlice(s.object.Object, "spec", "steps")
	if err != nil || step >= len(steps) {
		return nil
	}
	fields, _ := steps[step].(map[string]any)
	blocks, _, err := unstructured.NestedSlice(fields, "fault", "match")
	if err != nil {
		return nil
	}
	return blocks
}

// matchesAll tells whether every request meets a match block, since its only condition is that there is a path.
func matchesAll(block any) bool {
	fields, _ := block.(map[string]any)
	fields = maps.Clone(fields)
	delete(fields, "name")
	delete(fields, "ignoreUriCase")
	uri, _ := fields["uri"].(map[string]any)
	if len(fields) > 1 || uri == nil {
		return len(fields) == 0
	}
	return uri["prefix"] == "/" || uri["prefix"] == "" || slices.Contains([]any{".*", "/.*", "^.*$", "^/.*$", "^/.*"}, uri["regex"])
}
