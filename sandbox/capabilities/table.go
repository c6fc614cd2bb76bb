package capabilities

import (
	"fmt"
	"slices"
	"strings"
)

const heading = `# Capabilities

What Istio's traffic-management tutorials show, under Sluice. Each example is a folder of manifests; its test runs exactly those
manifests in the sandbox and asserts on what clients see. "pass (configuration)": the objects arrive, istiod sends the proxies
what they stand for, and a Rollout of the same host goes on without a failed request; the effect lies in Envoy's own filters or
certificates. Generated from the tests' results by ` + "`make capabilities`" + `; a test run fails when this page says something else.

| # | capability | example | test | verdict |
|---|---|---|---|---|
`

// Table renders docs/capabilities.md.
func Table(results []Result) string {
	var page strings.Builder
	page.WriteString(heading)
	for _, c := range Catalogue {
		page.WriteString(rowOf(c, results))
	}
	return page.String()
}

func rowOf(c Capability, results []Result) string {
	var examples, tests []string
	verdict := NotYet
	for _, r := range results {
		if r.Number != c.Number {
			continue
		}
		examples = append(examples, fmt.Sprintf("[%s](../examples/%s)", r.Example, r.Example))
		tests = append(tests, "`"+r.Test+"`")
		verdict = worse(verdict, r.Verdict)
	}
	slices.Sort(examples)
	return fmt.Sprintf("| %d | %s | %s | %s | %s |\n",
		c.Number, c.Name, strings.Join(slices.Compact(examples), ", "), strings.Join(tests, ", "), verdict)
}

// worse of two verdicts; anything says more than NotYet.
func worse(a, b Verdict) Verdict {
	order := []Verdict{NotYet, Pass, PassConfiguration, Fail}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}
