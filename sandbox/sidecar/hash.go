package sidecar

import (
	"crypto/rand"
	"encoding/hex"
	"net"
	"net/http"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// hashKey joins what the route's hash policies say of a request; "" where they
// say nothing. It gives the client the cookie that a policy with a lifetime
// asks for.
func (c choice) hashKey(w http.ResponseWriter, r *http.Request) string {
	key := ""
	for _, policy := range c.spec.GetRoute().GetHashPolicy() {
		if part := hashPart(policy, w, r); part != "" {
			key += part + "\x00"
		}
		if key != "" && policy.GetTerminal() {
			break
		}
	}
	return key
}

func hashPart(policy *routev3.RouteAction_HashPolicy, w http.ResponseWriter, r *http.Request) string {
	switch p := policy.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		v, _ := headerValue(r, p.Header.GetHeaderName())
		return v
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		return r.URL.Query().Get(p.QueryParameter.GetName())
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		return host
	case *routev3.RouteAction_HashPolicy_Cookie_:
		return cookiePart(p.Cookie, w, r)
	}
	return ""
}

// cookiePart reads the cookie; one that has a lifetime is made where it lacks.
func cookiePart(policy *routev3.RouteAction_HashPolicy_Cookie, w http.ResponseWriter, r *http.Request) string {
	if cookie, err := r.Cookie(policy.GetName()); err == nil {
		return cookie.Value
	}
	if policy.GetTtl() == nil {
		return ""
	}
	raw := make([]byte, 8)
	_, _ = rand.Read(raw) // it never fails
	cookie := &http.Cookie{Name: policy.GetName(), Value: hex.EncodeToString(raw), Path: policy.GetPath(), HttpOnly: true}
	if ttl := policy.GetTtl().AsDuration(); ttl > 0 {
		cookie.MaxAge = int(max(ttl/time.Second, 1))
	}
	http.SetCookie(w, cookie)
	return cookie.Value
}
