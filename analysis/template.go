package analysis

import (
	"errors"
	"fmt"
	"strings"
	"text/template"
	"text/template/parse"

	"sluice.dev/sluice/internal/pipeline"
)

// maxQuery is the greatest length of a rendered query, in bytes.
const maxQuery = 16 << 10

var (
	errTooLong       = fmt.Errorf("it grows beyond %d bytes", maxQuery)
	errNotInQueries  = errors.New("it is not available in queries")
	queryVariables   = ".Canary, .Stable, .Host, .Service, .Namespace, .Window, .CanaryWorkload, .StableWorkload, .CanaryHost and .StableHost"
	queryFunctions   = template.FuncMap{"print": bounded(fmt.Sprint), "println": bounded(fmt.Sprintln), "printf": boundedFormat, "html": unavailable, "js": unavailable, "urlquery": unavailable, "call": unavailable}
	errNoRepetitions = errors.New("range, define, template and block are not available in queries")
)

// renderQuery fills in a gate's query. Tenants write these templates, so neither loops nor output without bounds are had.
func renderQuery(g pipeline.GateWatch) (string, error) {
	text, err := render(g)
	if err != nil {
		return "", fmt.Errorf("gate %s: query: %w; it knows %s", g.Name, err, queryVariables)
	}
	return text, nil
}

func render(g pipeline.GateWatch) (string, error) {
	parsed, err := template.New("query").Funcs(queryFunctions).Option("missingkey=error").Parse(g.Query)
	if err != nil {
		return "", err
	}
	if len(parsed.Templates()) > 1 || parsed.Tree == nil || repeats(parsed.Root) {
		return "", errNoRepetitions
	}
	var out boundedWriter
	err = parsed.Execute(&out, map[string]string{
		"Canary": g.Canary.Version, "CanaryWorkload": g.Canary.Workload,
		"Stable": g.Stable.Version, "StableWorkload": g.Stable.Workload,
		"CanaryHost": hostOf(g, g.Canary), "StableHost": hostOf(g, g.Stable),
		"Host": g.Host, "Service": serviceName(g.Host, g.Namespace), "Namespace": g.Namespace,
		"Window": promDuration(g.Window),
	})
	return strings.TrimSpace(out.String()), err
}

// repeats finds what could run for ever in the little that a template is made of.
func repeats(node parse.Node) bool {
	switch n := node.(type) {
	case *parse.ListNode:
		if n == nil {
			return false
		}
		for _, child := range n.Nodes {
			if repeats(child) {
				return true
			}
		}
	case *parse.IfNode:
		return repeats(n.List) || repeats(n.ElseList)
	case *parse.WithNode:
		return repeats(n.List) || repeats(n.ElseList)
	case *parse.RangeNode, *parse.TemplateNode:
		return true
	}
	return false
}

type boundedWriter struct{ strings.Builder }

func (w *boundedWriter) Write(p []byte) (int, error) {
	if w.Len()+len(p) > maxQuery {
		return 0, errTooLong
	}
	return w.Builder.Write(p)
}

func bounded(print func(...any) string) func(...any) (string, error) {
	return func(args ...any) (string, error) {
		text := print(args...)
		if len(text) > maxQuery {
			return "", errTooLong
		}
		return text, nil
	}
}

func boundedFormat(format string, args ...any) (string, error) {
	return bounded(func(args ...any) string { return fmt.Sprintf(format, args...) })(args...)
}

func unavailable(...any) (string, error) { return "", errNotInQueries }
