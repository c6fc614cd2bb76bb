package pipeline

import (
	"fmt"
	"maps"
	"regexp"
	"slices"

	istio "istio.io/api/networking/v1alpha3"

	v1 "sluice.dev/sluice/api/v1"
)

// longestRegex is Istio's limit, which stands for Envoy's on the size of a compiled one.
const longestRegex = 1024

// regexProblem: a regex in the stage's matches that Istio's webhook refuses. Where there is no webhook, proxies refuse all of their
// routes for it and keep those that they have: the step would have no effect, and pass.
func (s *stage) regexProblem() *Problem {
	fields := map[string]v1.HTTPMatches{"match": s.match}
	if s.mirror != nil {
		fields["mirror.match"] = s.mirror.Match
	}
	if s.fault != nil {
		fields["fault.match"] = s.fault.Match
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		for _, m := range fields[field] {
			for _, pattern := range regexesOf(m) {
				if len(pattern) > longestRegex {
					return &Problem{v1.ReasonInvalidSpec, fmt.Sprintf(
						"%s: a regex has %d characters, and Istio takes %d: shorten it", field, len(pattern), longestRegex)}
				}
				if _, err := regexp.Compile(pattern); err != nil {
					return &Problem{v1.ReasonInvalidSpec, fmt.Sprintf("%s: regex %.100q: %v; write it in the syntax of RE2", field, pattern, err)}
				}
			}
		}
	}
	return nil
}

// regexesOf lists those of a request, without the "*" of headers, which is no regex: Istio turns it to a check for presence.
func regexesOf(m *istio.HTTPMatchRequest) []string {
	conditions := []*istio.StringMatch{m.GetUri(), m.GetScheme(), m.GetMethod(), m.GetAuthority()}
	for _, named := range []map[string]*istio.StringMatch{m.GetHeaders(), m.GetWithoutHeaders(), m.GetQueryParams()} {
		for _, name := range slices.Sorted(maps.Keys(named)) {
			conditions = append(conditions, named[name])
		}
	}
	var patterns []string
	for _, condition := range conditions {
		if pattern := condition.GetRegex(); pattern != "" && pattern != "*" {
			patterns = append(patterns, pattern)
		}
	}
	return patterns
}
