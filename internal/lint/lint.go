package lint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice.dev/sluice/internal/manifest"
)

// Finding is one thing that was found.
type Finding struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	manifest.Position
	// Object is its kind and name, Path the field.
	Object  string `json:"object,omitempty"`
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
}

// String is one line: file:line:column: severity: message (rule).
func (f Finding) String() string {
	words := []string{f.Position.String(), string(f.Severity)}
	if f.Object != "" {
		words = append(words, strings.TrimSpace(f.Object+" "+f.Path))
	}
	return fmt.Sprintf("%s: %s (%s)", strings.Join(words, ": "), f.Message, f.Rule)
}

// Options of a check.
type Options struct {
	// ScrapeInterval of Prometheus.
	ScrapeInterval time.Duration
	// PropagationDelay of the operator.
	PropagationDelay time.Duration
	// Now is when runs are played.
	Now time.Time
}

// Check looks at objects that stand beside each other; each has a namespace. Findings come by place.
func Check(ctx context.Context, objects []manifest.Object, options Options) ([]Finding, error) {
	schemas, err := loadSchemas()
	if err != nil {
		return nil, err
	}
	c := &checker{options: options, objects: objects}
	for _, o := range objects {
		c.refusals(ctx, schemas, o)
	}
	c.checkObjectTwice()
	for _, s := range c.subjects() {
		s.check(ctx)
	}
	slices.SortStableFunc(c.findings, ByPlace)
	return slices.Compact(c.findings), nil
}

// ByPlace orders findings by file, line and column.
func ByPlace(a, b Finding) int {
	return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), strings.Compare(a.Rule, b.Rule))
}

// Refusals are what the API server would refuse of an object when it is made: fields that it does not know, wrong types and values,
// and broken rules. A kind that is not ours has none.
func Refusals(ctx context.Context, o manifest.Object) ([]Finding, error) {
	schemas, err := loadSchemas()
	if err != nil {
		return nil, err
	}
	c := &checker{}
	c.refusals(ctx, schemas, o)
	return c.findings, nil
}

// Unreadable turns the errors of reading files into findings. Any other error is returned.
func Unreadable(err error) ([]Finding, error) {
	if err == nil {
		return nil, nil
	}
	var file *manifest.FileError
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var findings []Finding
		for _, one := range joined.Unwrap() {
			found, err := Unreadable(one)
			if err != nil {
				return nil, err
			}
			findings = append(findings, found...)
		}
		return findings, nil
	}
	if errors.As(err, &file) {
		return []Finding{{Rule: ruleFile, Severity: severityOf(ruleFile), Position: file.Position, Message: file.Err.Error()}}, nil
	}
	return nil, err
}

// checker collects findings.
type checker struct {
	options  Options
	objects  []manifest.Object
	findings []Finding
	// invalid are the objects that the API server would refuse.
	invalid map[manifest.Object]bool
}

// find notes a finding about a field of an object.
func (c *checker) find(rule string, o manifest.Object, path, format string, args ...any) {
	c.findings = append(c.findings, Finding{
		Rule: rule, Severity: severityOf(rule), Position: o.At(path), Object: o.Ref(), Path: path, Message: fmt.Sprintf(format, args...),
	})
}
