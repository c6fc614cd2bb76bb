package lint

import (
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
		if fault != nil && (fault.Scope == v1.FaultScopeEveryone || len(fault.Match) == 0) {
			s.find(ruleUnscoped, s.object, at("spec.steps", i)+".fault",
				"the fault hits everyone's requests: give match, such as a header of the testers; or start the operator with --allow-unscoped-faults")
		}
	}
}
