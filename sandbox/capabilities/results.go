package capabilities

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Verdict of a test.
type Verdict string

// The verdicts. PassConfiguration: the objects arrived and istiod made the right configuration of them, whose effect lies in
// filters or certificates that the sandbox's proxies lack.
const (
	Pass              Verdict = "pass"
	PassConfiguration Verdict = "pass (configuration)"
	Fail              Verdict = "fail"
)

// NotYet stands where no test has shown a capability.
const NotYet Verdict = "not yet"

// Result is what one test has found.
type Result struct {
	// Number of the capability.
	Number int
	// Example is a folder's name in examples/.
	Example string
	Test    string
	Verdict Verdict
}

// NumberOf is the capability that an example shows, by the number that its name begins with.
func NumberOf(example string) (int, error) {
	digits, _, found := strings.Cut(example, "-")
	number, err := strconv.Atoi(digits)
	if !found || err != nil {
		return 0, fmt.Errorf("example %q: want a capability's number and a name, such as 05-weights", example)
	}
	_, err = capabilityNumbered(number)
	return number, err
}

// Merge puts newer results in the place of older ones of the same test, in order of number and test.
func Merge(older, newer []Result) []Result {
	replaced := func(o Result) bool {
		return slices.ContainsFunc(newer, func(n Result) bool { return n.Test == o.Test })
	}
	all := append(slices.DeleteFunc(slices.Clone(older), replaced), newer...)
	slices.SortFunc(all, func(a, b Result) int {
		if a.Number != b.Number {
			return a.Number - b.Number
		}
		return strings.Compare(a.Test, b.Test)
	})
	return all
}
