package sidecar

import (
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

type predicate func(*http.Request) bool

type stringPredicate func(string) bool

// compileMatch turns a route's match into the conditions that a request has to
// fulfil, all of them.
func compileMatch(m *routev3.RouteMatch) ([]predicate, error) {
	path, err := compilePath(m)
	if err != nil {
		return nil, err
	}
	all := []predicate{path}
	for _, h := range m.GetHeaders() {
		p, err := compileHeader(h)
		if err != nil {
			return nil, fmt.Errorf("header %q: %w", h.GetName(), err)
		}
		all = append(all, p)
	}
	for _, q := range m.GetQueryParameters() {
		p, err := compileQuery(q)
		if err != nil {
			return nil, fmt.Errorf("query parameter %q: %w", q.GetName(), err)
		}
		all = append(all, p)
	}
	if f := m.GetRuntimeFraction(); f != nil {
		all = append(all, func(*http.Request) bool { return chance(f.GetDefaultValue()) })
	}
	return all, nil
}

func compilePath(m *routev3.RouteMatch) (predicate, error) {
	fold := func(s string) string { return s }
	if m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue() {
		fold = strings.ToLower
	}
	onPath := func(f stringPredicate) predicate {
		return func(r *http.Request) bool { return f(fold(r.URL.EscapedPath())) }
	}
	switch s := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		return onPath(func(p string) bool { return strings.HasPrefix(p, fold(s.Prefix)) }), nil
	case *routev3.RouteMatch_Path:
		return onPath(func(p string) bool { return p == fold(s.Path) }), nil
	case *routev3.RouteMatch_PathSeparatedPrefix:
		want := fold(s.PathSeparatedPrefix)
		return onPath(func(p string) bool { return p == want || strings.HasPrefix(p, want+"/") }), nil
	case *routev3.RouteMatch_SafeRegex:
		re, err := fullMatch(s.SafeRegex)
		if err != nil {
			return nil, err
		}
		return func(r *http.Request) bool { return re.MatchString(r.URL.EscapedPath()) }, nil
	default:
		return nil, fmt.Errorf("path match %T is none that this proxy knows", s)
	}
}

// fullMatch compiles a regular expression that has to match a whole value, as
// Envoy's do.
func fullMatch(m *matcherv3.RegexMatcher) (*regexp.Regexp, error) {
	re, err := regexp.Compile("^(?:" + m.GetRegex() + ")$")
	if err != nil {
		return nil, fmt.Errorf("regex %q: %w", m.GetRegex(), err)
	}
	return re, nil
}

// headerValue gives a header's values joined by commas, or a pseudo header.
func headerValue(r *http.Request, name string) (string, bool) {
	switch strings.ToLower(name) {
	case ":method":
		return r.Method, true
	case ":path":
		return r.URL.RequestURI(), true
	case ":authority", "host":
		return r.Host, true
	case ":scheme":
		return "http", true
	}
	values := r.Header.Values(name)
	return strings.Join(values, ","), len(values) > 0
}

func compileHeader(m *routev3.HeaderMatcher) (predicate, error) {
	name, invert := m.GetName(), m.GetInvertMatch()
	if s, ok := m.GetHeaderMatchSpecifier().(*routev3.HeaderMatcher_PresentMatch); ok || m.GetHeaderMatchSpecifier() == nil {
		want := !ok || s.PresentMatch
		return func(r *http.Request) bool {
			_, present := headerValue(r, name)
			return (present == want) != invert
		}, nil
	}
	value, err := compileHeaderValue(m)
	if err != nil {
		return nil, err
	}
	return func(r *http.Request) bool {
		v, present := headerValue(r, name)
		if !present && !m.GetTreatMissingHeaderAsEmpty() {
			return false
		}
		return value(v) != invert
	}, nil
}

//nolint:staticcheck // Envoy's deprecated forms of a header match are still sent by some versions of istiod.
func compileHeaderValue(m *routev3.HeaderMatcher) (stringPredicate, error) {
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_StringMatch:
		return compileString(s.StringMatch)
	case *routev3.HeaderMatcher_ExactMatch:
		return func(v string) bool { return v == s.ExactMatch }, nil
	case *routev3.HeaderMatcher_PrefixMatch:
		return func(v string) bool { return strings.HasPrefix(v, s.PrefixMatch) }, nil
	case *routev3.HeaderMatcher_SuffixMatch:
		return func(v string) bool { return strings.HasSuffix(v, s.SuffixMatch) }, nil
	case *routev3.HeaderMatcher_SafeRegexMatch:
		re, err := fullMatch(s.SafeRegexMatch)
		if err != nil {
			return nil, err
		}
		return re.MatchString, nil
	case *routev3.HeaderMatcher_RangeMatch:
		return func(v string) bool {
			n, err := strconv.ParseInt(v, 10, 64)
			return err == nil && n >= s.RangeMatch.GetStart() && n < s.RangeMatch.GetEnd()
		}, nil
	default:
		return nil, fmt.Errorf("header match %T is none that this proxy knows", s)
	}
}

func compileString(m *matcherv3.StringMatcher) (stringPredicate, error) {
	fold := func(s string) string { return s }
	if m.GetIgnoreCase() {
		fold = strings.ToLower
	}
	switch s := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return func(v string) bool { return fold(v) == fold(s.Exact) }, nil
	case *matcherv3.StringMatcher_Prefix:
		return func(v string) bool { return strings.HasPrefix(fold(v), fold(s.Prefix)) }, nil
	case *matcherv3.StringMatcher_Suffix:
		return func(v string) bool { return strings.HasSuffix(fold(v), fold(s.Suffix)) }, nil
	case *matcherv3.StringMatcher_Contains:
		return func(v string) bool { return strings.Contains(fold(v), fold(s.Contains)) }, nil
	case *matcherv3.StringMatcher_SafeRegex:
		re, err := fullMatch(s.SafeRegex)
		if err != nil {
			return nil, err
		}
		return re.MatchString, nil
	default:
		return nil, fmt.Errorf("string match %T is none that this proxy knows", s)
	}
}

func compileQuery(m *routev3.QueryParameterMatcher) (predicate, error) {
	value := stringPredicate(func(string) bool { return true })
	if s := m.GetStringMatch(); s != nil {
		var err error
		if value, err = compileString(s); err != nil {
			return nil, err
		}
	}
	want := true
	if s, ok := m.GetQueryParameterMatchSpecifier().(*routev3.QueryParameterMatcher_PresentMatch); ok {
		want = s.PresentMatch
	}
	return func(r *http.Request) bool {
		q := r.URL.Query()
		return q.Has(m.GetName()) == want && (!want || value(q.Get(m.GetName())))
	}, nil
}

// Ranks of a virtual host's domain for an authority, best first: exact, the
// longest *suffix, the longest prefix*, and * alone.
const (
	rankExact = iota
	rankSuffix
	rankPrefix
	rankAny
	rankNone
)

func domainRank(domain, host string) (rank, length int) {
	domain = strings.ToLower(domain)
	switch {
	case domain == "*":
		return rankAny, 0
	case domain == host:
		return rankExact, len(domain)
	case strings.HasPrefix(domain, "*") && strings.HasSuffix(host, domain[1:]) && len(host) >= len(domain):
		return rankSuffix, len(domain)
	case strings.HasSuffix(domain, "*") && strings.HasPrefix(host, domain[:len(domain)-1]) && len(host) >= len(domain):
		return rankPrefix, len(domain)
	}
	return rankNone, 0
}

// splitAuthority divides "host:port"; the port is 80 where none is given.
func splitAuthority(authority string) (host string, port uint32) {
	host, text, err := net.SplitHostPort(authority)
	if err != nil {
		return authority, 80
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return authority, 80
	}
	return host, uint32(n)
}
