package sidecar

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

// routeTable is one RouteConfiguration, ready to be asked.
type routeTable struct {
	name  string
	spec  *routev3.RouteConfiguration
	hosts []*virtualHost
}

type virtualHost struct {
	spec   *routev3.VirtualHost
	routes []*route
}

type route struct {
	spec    *routev3.Route
	host    *routev3.VirtualHost
	table   *routev3.RouteConfiguration
	match   []predicate
	rewrite *regexp.Regexp
	fault   *faultFilter
	cors    *corsFilter
}

func compileRoutes(spec *routev3.RouteConfiguration) (*routeTable, error) {
	t := &routeTable{name: spec.GetName(), spec: spec}
	for _, vh := range spec.GetVirtualHosts() {
		host := &virtualHost{spec: vh}
		for i, r := range vh.GetRoutes() {
			compiled, err := compileRoute(r)
			if err != nil {
				return nil, fmt.Errorf("route configuration %q, virtual host %q, route %d %q: %w", spec.GetName(), vh.GetName(), i, r.GetName(), err)
			}
			compiled.host, compiled.table = vh, spec
			if compiled.fault == nil {
				if compiled.fault, err = compileFault(vh.GetTypedPerFilterConfig()); err != nil {
					return nil, fmt.Errorf("virtual host %q: %w", vh.GetName(), err)
				}
			}
			host.routes = append(host.routes, compiled)
		}
		t.hosts = append(t.hosts, host)
	}
	return t, nil
}

func compileRoute(spec *routev3.Route) (*route, error) {
	match, err := compileMatch(spec.GetMatch())
	if err != nil {
		return nil, fmt.Errorf("match: %w", err)
	}
	if err := checkAction(spec); err != nil {
		return nil, err
	}
	r := &route{spec: spec, match: match}
	if rewrite := spec.GetRoute().GetRegexRewrite(); rewrite != nil {
		if r.rewrite, err = regexp.Compile(rewrite.GetPattern().GetRegex()); err != nil {
			return nil, fmt.Errorf("regex_rewrite: %w", err)
		}
	}
	if r.cors, err = compileCORS(spec.GetTypedPerFilterConfig()); err != nil {
		return nil, err
	}
	r.fault, err = compileFault(spec.GetTypedPerFilterConfig())
	return r, err
}

// checkAction refuses what this proxy would not obey.
func checkAction(spec *routev3.Route) error {
	switch a := spec.GetAction().(type) {
	case *routev3.Route_Redirect, *routev3.Route_DirectResponse:
		return nil
	case *routev3.Route_Route:
		switch c := a.Route.GetClusterSpecifier().(type) {
		case *routev3.RouteAction_Cluster, *routev3.RouteAction_WeightedClusters, *routev3.RouteAction_ClusterHeader:
		default:
			return fmt.Errorf("cluster specifier %T is none that this proxy knows", c)
		}
		switch h := a.Route.GetHostRewriteSpecifier().(type) {
		case nil, *routev3.RouteAction_HostRewriteLiteral:
		default:
			return fmt.Errorf("host rewrite %T is none that this proxy knows", h)
		}
		return nil
	default:
		return fmt.Errorf("action %T is none that this proxy knows", a)
	}
}

// find gives the first route of the best virtual host that matches, or nil.
func (t *routeTable) find(req *http.Request) *route {
	vh := t.findHost(req.Host)
	if vh == nil {
		return nil
	}
	for _, r := range vh.routes {
		if r.matches(req) {
			return r
		}
	}
	return nil
}

func (t *routeTable) findHost(authority string) *virtualHost {
	host := strings.ToLower(authority)
	if t.spec.GetIgnorePortInHostMatching() {
		host, _ = splitAuthority(host)
	}
	var best *virtualHost
	bestRank, bestLength := rankNone, 0
	for _, vh := range t.hosts {
		for _, domain := range vh.spec.GetDomains() {
			rank, length := domainRank(domain, host)
			if rank < bestRank || rank == bestRank && length > bestLength {
				best, bestRank, bestLength = vh, rank, length
			}
		}
	}
	return best
}

func (r *route) matches(req *http.Request) bool {
	for _, p := range r.match {
		if !p(req) {
			return false
		}
	}
	return true
}

// choice is a route together with the cluster that was drawn for a request.
type choice struct {
	*route
	cluster  string
	weighted *routev3.WeightedCluster_ClusterWeight
}

func (r *route) choose(req *http.Request) choice {
	action := r.spec.GetRoute()
	if header := action.GetClusterHeader(); header != "" {
		return choice{route: r, cluster: req.Header.Get(header)}
	}
	weighted := action.GetWeightedClusters().GetClusters()
	if len(weighted) == 0 {
		return choice{route: r, cluster: action.GetCluster()}
	}
	total := uint32(0)
	for _, c := range weighted {
		total += c.GetWeight().GetValue()
	}
	if total == 0 {
		return choice{route: r}
	}
	n := rand.Uint32N(total)
	for _, c := range weighted {
		if w := c.GetWeight().GetValue(); n >= w {
			n -= w
			continue
		}
		return choice{route: r, cluster: c.GetName(), weighted: c}
	}
	return choice{route: r}
}

// prepare applies the route's rewrites and header changes to a request.
func (c choice) prepare(req *http.Request) {
	action := c.spec.GetRoute()
	c.rewritePath(req)
	if host := firstOf(c.weighted.GetHostRewriteLiteral(), action.GetHostRewriteLiteral()); host != "" {
		req.Host = host
	}
	removeHeaders(req.Header, c.weighted.GetRequestHeadersToRemove(), c.spec.GetRequestHeadersToRemove(),
		c.host.GetRequestHeadersToRemove(), c.table.GetRequestHeadersToRemove())
	addHeaders(req.Header, c.weighted.GetRequestHeadersToAdd(), c.spec.GetRequestHeadersToAdd(),
		c.host.GetRequestHeadersToAdd(), c.table.GetRequestHeadersToAdd())
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
		req.Header.Del("Host")
	}
}

// respond applies the route's header changes to a response.
func (c choice) respond(h http.Header) {
	removeHeaders(h, c.weighted.GetResponseHeadersToRemove(), c.spec.GetResponseHeadersToRemove(),
		c.host.GetResponseHeadersToRemove(), c.table.GetResponseHeadersToRemove())
	addHeaders(h, c.weighted.GetResponseHeadersToAdd(), c.spec.GetResponseHeadersToAdd(),
		c.host.GetResponseHeadersToAdd(), c.table.GetResponseHeadersToAdd())
}

func (c choice) rewritePath(req *http.Request) {
	action, path := c.spec.GetRoute(), req.URL.EscapedPath()
	switch {
	case c.rewrite != nil:
		substitution := regexp.MustCompile(`\\(\d)`).ReplaceAllString(action.GetRegexRewrite().GetSubstitution(), "$${$1}")
		path = c.rewrite.ReplaceAllString(path, substitution)
	case action.GetPrefixRewrite() != "":
		path = replacePrefix(path, c.spec.GetMatch(), action.GetPrefixRewrite())
	default:
		return
	}
	setPath(req.URL, path)
}

// replacePrefix puts a rewrite in place of the part of the path that matched.
func replacePrefix(path string, m *routev3.RouteMatch, rewrite string) string {
	matched := firstOf(m.GetPrefix(), m.GetPath(), m.GetPathSeparatedPrefix())
	if len(matched) > len(path) {
		return rewrite
	}
	return rewrite + path[len(matched):]
}

func setPath(u *url.URL, escaped string) {
	parsed, err := url.ParseRequestURI(escaped)
	if err != nil {
		return // a rewrite to something that is no path leaves the path alone
	}
	u.Path, u.RawPath = parsed.Path, parsed.RawPath
	if parsed.RawQuery != "" {
		u.RawQuery = parsed.RawQuery
	}
}

func removeHeaders(h http.Header, lists ...[]string) {
	for _, names := range lists {
		for _, name := range names {
			h.Del(name)
		}
	}
}

func addHeaders(h http.Header, lists ...[]*corev3.HeaderValueOption) {
	for _, options := range lists {
		for _, o := range options {
			addHeader(h, o)
		}
	}
}

func addHeader(h http.Header, o *corev3.HeaderValueOption) {
	key, value := o.GetHeader().GetKey(), o.GetHeader().GetValue()
	if strings.EqualFold(key, ":authority") {
		key = "Host"
	}
	present := len(h.Values(key)) > 0
	switch o.GetAppendAction() {
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD:
		h.Set(key, value)
	case corev3.HeaderValueOption_OVERWRITE_IF_EXISTS:
		if present {
			h.Set(key, value)
		}
	case corev3.HeaderValueOption_ADD_IF_ABSENT:
		if !present {
			h.Set(key, value)
		}
	default:
		h.Add(key, value)
	}
}

var redirectCodes = map[routev3.RedirectAction_RedirectResponseCode]int{
	routev3.RedirectAction_MOVED_PERMANENTLY:  http.StatusMovedPermanently,
	routev3.RedirectAction_FOUND:              http.StatusFound,
	routev3.RedirectAction_SEE_OTHER:          http.StatusSeeOther,
	routev3.RedirectAction_TEMPORARY_REDIRECT: http.StatusTemporaryRedirect,
	routev3.RedirectAction_PERMANENT_REDIRECT: http.StatusPermanentRedirect,
}

// redirection gives the code and the location of a redirect route.
func (r *route) redirection(req *http.Request) (code int, location string) {
	action := r.spec.GetRedirect()
	to := url.URL{Scheme: "http", Host: req.Host, Path: req.URL.Path, RawPath: req.URL.RawPath, RawQuery: req.URL.RawQuery}
	if action.GetHttpsRedirect() {
		to.Scheme = "https"
	}
	to.Scheme = firstOf(action.GetSchemeRedirect(), to.Scheme)
	to.Host = firstOf(action.GetHostRedirect(), to.Host)
	if port := action.GetPortRedirect(); port != 0 {
		host, _ := splitAuthority(to.Host)
		to.Host = fmt.Sprintf("%s:%d", host, port)
	}
	if path := action.GetPathRedirect(); path != "" {
		setPath(&to, path)
	} else if prefix := action.GetPrefixRewrite(); prefix != "" {
		setPath(&to, replacePrefix(req.URL.EscapedPath(), r.spec.GetMatch(), prefix))
	}
	if action.GetStripQuery() {
		to.RawQuery = ""
	}
	return redirectCodes[action.GetResponseCode()], to.String()
}

// chance draws: true with the probability that the fraction states.
func chance(f *typev3.FractionalPercent) bool {
	denominator := uint32(100)
	switch f.GetDenominator() {
	case typev3.FractionalPercent_TEN_THOUSAND:
		denominator = 10_000
	case typev3.FractionalPercent_MILLION:
		denominator = 1_000_000
	}
	return rand.Uint32N(denominator) < f.GetNumerator()
}
