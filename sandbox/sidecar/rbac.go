package sidecar

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

type condition func(*facts) bool

// rbacFilter is Envoy's role based access control: policies that match a
// request allow it, or deny it.
type rbacFilter struct {
	action   rbacconfigv3.RBAC_Action
	policies []condition
}

func compileRBAC(spec *rbacconfigv3.RBAC) (*rbacFilter, error) {
	if spec == nil { // only policies that are tried out
		return &rbacFilter{action: rbacconfigv3.RBAC_LOG}, nil
	}
	f := &rbacFilter{action: spec.GetAction()}
	for name, policy := range spec.GetPolicies() {
		permitted, err := compileAny(policy.GetPermissions(), compilePermission)
		if err != nil {
			return nil, fmt.Errorf("policy %q: permission: %w", name, err)
		}
		meant, err := compileAny(policy.GetPrincipals(), compilePrincipal)
		if err != nil {
			return nil, fmt.Errorf("policy %q: principal: %w", name, err)
		}
		f.policies = append(f.policies, func(x *facts) bool { return permitted(x) && meant(x) })
	}
	return f, nil
}

func (f *rbacFilter) denies(x *facts) bool {
	if f.action == rbacconfigv3.RBAC_LOG {
		return false
	}
	return anyOf(f.policies)(x) == (f.action == rbacconfigv3.RBAC_DENY)
}

func (f *rbacFilter) apply(w http.ResponseWriter, x *facts, e *exchange) bool {
	if !f.denies(x) {
		return false
	}
	e.answer(w, http.StatusForbidden, "RBAC: access denied")
	return true
}

func anyOf(all []condition) condition {
	return func(x *facts) bool {
		for _, is := range all {
			if is(x) {
				return true
			}
		}
		return false
	}
}

func allOf(all []condition) condition {
	return func(x *facts) bool {
		for _, is := range all {
			if !is(x) {
				return false
			}
		}
		return true
	}
}

func not(is condition) condition { return func(x *facts) bool { return !is(x) } }

func compileEach[T any](specs []T, compile func(T) (condition, error)) ([]condition, error) {
	var all []condition
	for _, spec := range specs {
		is, err := compile(spec)
		if err != nil {
			return nil, err
		}
		all = append(all, is)
	}
	return all, nil
}

func compileAny[T any](specs []T, compile func(T) (condition, error)) (condition, error) {
	all, err := compileEach(specs, compile)
	return anyOf(all), err
}

func compileAll[T any](specs []T, compile func(T) (condition, error)) (condition, error) {
	all, err := compileEach(specs, compile)
	return allOf(all), err
}

func compilePermission(spec *rbacconfigv3.Permission) (condition, error) {
	switch s := spec.GetRule().(type) {
	case *rbacconfigv3.Permission_Any:
		return func(*facts) bool { return s.Any }, nil
	case *rbacconfigv3.Permission_AndRules:
		return compileAll(s.AndRules.GetRules(), compilePermission)
	case *rbacconfigv3.Permission_OrRules:
		return compileAny(s.OrRules.GetRules(), compilePermission)
	case *rbacconfigv3.Permission_NotRule:
		is, err := compilePermission(s.NotRule)
		return not(is), err
	case *rbacconfigv3.Permission_Header:
		return headerCondition(s.Header)
	case *rbacconfigv3.Permission_UrlPath:
		return pathCondition(s.UrlPath)
	case *rbacconfigv3.Permission_DestinationPort:
		return func(x *facts) bool { return x.port == s.DestinationPort }, nil
	default:
		return nil, fmt.Errorf("rule %T is none that this proxy knows", s)
	}
}

func compilePrincipal(spec *rbacconfigv3.Principal) (condition, error) {
	switch s := spec.GetIdentifier().(type) {
	case *rbacconfigv3.Principal_Any:
		return func(*facts) bool { return s.Any }, nil
	case *rbacconfigv3.Principal_AndIds:
		return compileAll(s.AndIds.GetIds(), compilePrincipal)
	case *rbacconfigv3.Principal_OrIds:
		return compileAny(s.OrIds.GetIds(), compilePrincipal)
	case *rbacconfigv3.Principal_NotId:
		is, err := compilePrincipal(s.NotId)
		return not(is), err
	case *rbacconfigv3.Principal_Header:
		return headerCondition(s.Header)
	case *rbacconfigv3.Principal_UrlPath:
		return pathCondition(s.UrlPath)
	case *rbacconfigv3.Principal_Authenticated_:
		return identityCondition(s.Authenticated.GetPrincipalName())
	case *rbacconfigv3.Principal_DirectRemoteIp:
		return addressCondition(s.DirectRemoteIp)
	case *rbacconfigv3.Principal_RemoteIp:
		return addressCondition(s.RemoteIp)
	case *rbacconfigv3.Principal_Metadata:
		return claimCondition(s.Metadata) //nolint:staticcheck // what istiod sends
	default:
		return nil, fmt.Errorf("identifier %T is none that this proxy knows", s)
	}
}

func headerCondition(spec *routev3.HeaderMatcher) (condition, error) {
	is, err := compileHeader(spec)
	return func(x *facts) bool { return x.request != nil && is(x.request) }, err
}

func pathCondition(spec *matcherv3.PathMatcher) (condition, error) {
	is, err := compileString(spec.GetPath())
	return func(x *facts) bool { return x.request != nil && is(x.request.URL.EscapedPath()) }, err
}

// identityCondition is about who the source is, which in the mesh its
// certificate says.
func identityCondition(spec *matcherv3.StringMatcher) (condition, error) {
	if spec == nil {
		return func(x *facts) bool { return x.source.identity() != "" }, nil
	}
	is, err := compileString(spec)
	return func(x *facts) bool { id := x.source.identity(); return id != "" && is(id) }, err
}

// identity is the workload's name in certificates; "" outside the mesh.
func (p peer) identity() string {
	if p.Namespace == "" {
		return ""
	}
	return "spiffe://cluster.local/ns/" + p.Namespace + "/sa/" + firstOf(p.Account, "default")
}

func addressCondition(spec *corev3.CidrRange) (condition, error) {
	prefix, err := netip.ParsePrefix(fmt.Sprintf("%s/%d", spec.GetAddressPrefix(), spec.GetPrefixLen().GetValue()))
	return func(x *facts) bool {
		host, _, err := net.SplitHostPort(x.remote)
		if err != nil {
			return false
		}
		address, err := netip.ParseAddr(host)
		return err == nil && prefix.Contains(address)
	}, err
}

// claimCondition is about a claim of the request's token.
func claimCondition(spec *matcherv3.MetadataMatcher) (condition, error) {
	is, err := compileValue(spec.GetValue())
	return func(x *facts) bool {
		var value any = map[string]any{"payload": x.claims}
		for _, segment := range spec.GetPath() {
			object, ok := value.(map[string]any)
			if !ok {
				return false
			}
			value = object[segment.GetKey()]
		}
		return value != nil && is(value) != spec.GetInvert()
	}, err
}

func compileValue(spec *matcherv3.ValueMatcher) (func(any) bool, error) {
	switch s := spec.GetMatchPattern().(type) {
	case *matcherv3.ValueMatcher_StringMatch:
		is, err := compileString(s.StringMatch)
		return func(v any) bool { text, ok := v.(string); return ok && is(text) }, err
	case *matcherv3.ValueMatcher_PresentMatch:
		return func(v any) bool { return (v != nil) == s.PresentMatch }, nil
	case *matcherv3.ValueMatcher_ListMatch:
		is, err := compileValue(s.ListMatch.GetOneOf())
		return func(v any) bool { return oneOf(v, is) }, err
	case *matcherv3.ValueMatcher_OrMatch:
		return compileValues(s.OrMatch.GetValueMatchers())
	default:
		return nil, fmt.Errorf("value match %T is none that this proxy knows", s)
	}
}

func oneOf(v any, is func(any) bool) bool {
	list, _ := v.([]any)
	for _, element := range list {
		if is(element) {
			return true
		}
	}
	return false
}

func compileValues(specs []*matcherv3.ValueMatcher) (func(any) bool, error) {
	var all []func(any) bool
	for _, spec := range specs {
		is, err := compileValue(spec)
		if err != nil {
			return nil, err
		}
		all = append(all, is)
	}
	return func(v any) bool {
		for _, is := range all {
			if is(v) {
				return true
			}
		}
		return false
	}, nil
}
