package lint

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"sluice.dev/sluice/analysis"
	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// placed is a gate with its place.
type placed struct {
	v1.Gate
	path string
}

// gates of the spec, of its steps and of its soak.
func (s *subject) gates() []placed {
	spec := &s.rollout.Spec
	var all []placed
	add := func(gates []v1.Gate, list string) {
		for i := range gates {
			all = append(all, placed{gates[i], at(list, i)})
		}
	}
	add(spec.Gates, "spec.gates")
	for i := range spec.Steps {
		add(spec.Steps[i].Gates, at("spec.steps", i)+".gates")
	}
	if spec.Soak != nil {
		add(spec.Soak.Gates, "spec.soak.gates")
	}
	return all
}

var (
	canaryNamed     = regexp.MustCompile(`\{\{[^}]*\.Canary(Workload)?\b[^}]*\}\}`)
	canaryHostNamed = regexp.MustCompile(`\{\{[^}]*\.CanaryHost\b[^}]*\}\}`)
)

// namesCanary tells whether a query can tell the canary from stable: by its version or workload, or by its host where versions have
// hosts of their own.
func (s *subject) namesCanary(query string) bool {
	elsewhere := slices.ContainsFunc(s.rollout.Spec.Versions, func(v v1.Version) bool { return v.Destination != nil })
	return canaryNamed.MatchString(query) || elsewhere && canaryHostNamed.MatchString(query)
}

// checkQueries parses what the queries become, with names that stand for those of a run.
func (s *subject) checkQueries() {
	for _, g := range s.gates() {
		if g.Query == "" {
			continue
		}
		expr, err := s.parse(g.Gate)
		if err != nil {
			s.find(rulePromQL, s.object, g.path+".query", "%v", err)
			continue
		}
		switch t := expr.Type(); t {
		case parser.ValueTypeMatrix, parser.ValueTypeString:
			s.find(ruleQueryType, s.object, g.path+".query", "the query yields %s: one number is expected, as of sum(rate(…[{{ .Window }}]))", parser.DocumentedType(t))
		}
		if !pipeline.QueryHasWindow(g.Query) {
			s.find(ruleQueryWindow, s.object, g.path+".query", "the query has no {{ .Window }}, so that what it looks at is not bound to the step: give its range as [{{ .Window }}]")
		}
		if !s.namesCanary(g.Query) {
			s.find(ruleQueryCanary, s.object, g.path+".query", "the query names neither {{ .Canary }} nor {{ .CanaryWorkload }}, so that it judges every version alike")
		}
		if flag := unseenFlag(expr); flag != "" {
			s.find(ruleBlind, s.object, g.path+".query",
				`reporter="destination" with response_flags %s: only the caller's proxy reports that, the canary's own does not; reporter="source" is right`, flag)
		}
	}
}

// checkLimits finds gates that decide nothing, or against everything.
func (s *subject) checkLimits() {
	for _, g := range s.gates() {
		watch := pipeline.GateWatch{Name: g.Name, Metric: g.Metric, Max: g.Max, Min: g.Min}
		if err := analysis.NeverPasses(watch); err != nil {
			s.find(ruleNeverPasses, s.object, g.path, "%v", err)
		} else if err := analysis.AlwaysPasses(watch); err != nil {
			s.find(ruleAlwaysPasses, s.object, g.path, "%v", err)
		}
	}
}

// parse fills in a query as a run from "stable" to the asked-for version would.
func (s *subject) parse(g v1.Gate) (parser.Expr, error) {
	watch := pipeline.GateWatch{
		Name: g.Name, Query: g.Query, Window: time.Minute, Host: s.rollout.Spec.Host, Namespace: s.object.GetNamespace(),
		Canary: pipeline.GateTarget{Version: s.rollout.Spec.Version, Workload: s.rollout.Spec.Host + "-canary"},
		Stable: pipeline.GateTarget{Version: "stable", Workload: s.rollout.Spec.Host + "-stable"},
	}
	query, err := analysis.Query(watch)
	if err != nil {
		return nil, err
	}
	return parseQuery(query)
}

func parseQuery(query string) (parser.Expr, error) {
	expr, err := parser.NewParser(parser.Options{}).ParseExpr(query)
	if err != nil {
		return nil, fmt.Errorf("%s: Prometheus would refuse it: %w", strings.TrimSpace(query), err)
	}
	return expr, nil
}

// selectors of an expression.
func selectors(expr parser.Expr) []*parser.VectorSelector {
	var found []*parser.VectorSelector
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if v, ok := node.(*parser.VectorSelector); ok {
			found = append(found, v)
		}
		return nil
	})
	return found
}

// admits tells whether a selector lets a label's value through.
func admits(v *parser.VectorSelector, label, value string) bool {
	for _, m := range v.LabelMatchers {
		if m.Name == label && !m.Matches(value) {
			return false
		}
	}
	return true
}

// unseenFlag is a response flag that a selector asks of the destination's reporter alone, which never sees such requests.
func unseenFlag(expr parser.Expr) string {
	for _, v := range selectors(expr) {
		if admits(v, "reporter", "source") || !admits(v, "reporter", "destination") {
			continue
		}
		for _, m := range v.LabelMatchers {
			if m.Name != "response_flags" || m.Matches("-") || m.Type == labels.MatchNotEqual || m.Type == labels.MatchNotRegexp {
				continue
			}
			for _, flag := range []string{"UO", "UH", "URX", "FI", "DI"} {
				if m.Matches(flag) {
					return flag
				}
			}
		}
	}
	return ""
}

// seesMirrored tells whether every Istio metric that an expression reads has a reporter that sees mirrored requests.
func seesMirrored(expr parser.Expr) bool {
	for _, v := range selectors(expr) {
		if strings.HasPrefix(v.Name, "istio_") && !admits(v, "reporter", "destination") {
			return false
		}
	}
	return true
}

// asksOfDestination tells whether an expression reads a metric of Istio about requests to a certain destination.
func asksOfDestination(expr parser.Expr) bool {
	return slices.ContainsFunc(selectors(expr), func(v *parser.VectorSelector) bool {
		return strings.HasPrefix(v.Name, "istio_") && slices.ContainsFunc(v.LabelMatchers, func(m *labels.Matcher) bool {
			positive := m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp
			return positive && slices.Contains([]string{"destination_version", "destination_workload", "destination_canonical_revision"}, m.Name)
		})
	})
}

// checkWindows compares windows with the scrape interval.
func (s *subject) checkWindows() {
	least := 2 * s.options.ScrapeInterval
	check := func(path string, window time.Duration) {
		if window > 0 && window < least {
			s.find(ruleWindow, s.object, path+".window", "%s is shorter than two scrapes, at one each %s: increases within it are often empty; at least %s is needed",
				window, s.options.ScrapeInterval, least)
		}
	}
	spec := &s.rollout.Spec
	if d := spec.GateDefaults; d != nil && d.Window != nil {
		check("spec.gateDefaults", d.Window.Duration)
	}
	if b := spec.Breaker; b != nil && b.Window != nil {
		check("spec.breaker", b.Window.Duration)
	}
	for _, g := range s.gates() {
		if g.Window != nil {
			check(g.path, g.Window.Duration)
		}
	}
}
