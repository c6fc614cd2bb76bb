package capabilities

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const heading = `# Capabilities

What Istio's traffic-management tutorials show, under Sluice. Each example is a folder of manifests; its test runs exactly those
manifests in the sandbox and asserts on what clients see. "pass (configuration)": the objects arrive, istiod sends the proxies
what they stand for, and a Rollout of the same host goes on without a failed request; the effect lies in Envoy's own filters or
certificates, and ` + "`make test-cluster`" + ` is there to assert it in a cluster of your own. ` + "`TestNoFailedRequests`" + ` sends more than 200
requests a second while a run is reverted in each of its steps, while one ends, and while the version before comes back: none fails. Generated
from the tests' results by ` + "`make capabilities`" + `; a test run fails when this page says something else.

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
		examples = append(examples, r.Example)
		tests = append(tests, "`"+r.Test+"`")
		verdict = worse(verdict, r.Verdict)
	}
	slices.Sort(examples)
	examples = slices.Compact(examples)
	for i, name := range examples {
		examples[i] = fmt.Sprintf("[%[1]s](../examples/%[1]s)", name)
	}
	return fmt.Sprintf("| %d | %s | %s | %s | %s |\n",
		c.Number, c.Name, strings.Join(examples, ", "), strings.Join(tests, ", "), verdict)
}

var (
	tableRow    = regexp.MustCompile(`(?m)^\| (\d+) \| [^|]+ \| ([^|]*) \| ([^|]*) \| ([^|]+) \|$`)
	exampleLink = regexp.MustCompile(`\[([^\]]+)\]`)
	testName    = regexp.MustCompile("`([^`]+)`")
)

// Read gives the results that a page was rendered of. Where a row has several tests, each of them has the row's verdict.
func Read(page string) ([]Result, error) {
	var results []Result
	for _, row := range tableRow.FindAllStringSubmatch(page, -1) {
		number, err := strconv.Atoi(row[1])
		if err != nil {
			return nil, fmt.Errorf("capability %s: %w", row[1], err)
		}
		examples, tests := exampleLink.FindAllStringSubmatch(row[2], -1), testName.FindAllStringSubmatch(row[3], -1)
		if len(examples) > len(tests) || len(examples) == 0 && len(tests) > 0 {
			return nil, fmt.Errorf("capability %d: %d examples and %d tests: each example needs a test", number, len(examples), len(tests))
		}
		for i, test := range tests {
			results = append(results, Result{
				Number: number, Example: examples[min(i, len(examples)-1)][1], Test: test[1], Verdict: Verdict(row[4]),
			})
		}
	}
	return results, nil
}

// worse of two verdicts; anything says more than NotYet.
func worse(a, b Verdict) Verdict {
	order := []Verdict{NotYet, Pass, PassConfiguration, Fail}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}
