package environment_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/environment"
)

// issuer signs tokens.
type issuer struct {
	t   *testing.T
	key *rsa.PrivateKey
}

func newIssuer(t *testing.T) issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return issuer{t, key}
}

func (i issuer) keys() string {
	n := base64.RawURLEncoding.EncodeToString(i.key.N.Bytes())
	e := base64.RawURLEncoding.EncodeToString(big.NewInt(int64(i.key.E)).Bytes())
	return fmt.Sprintf(`{"keys": [{"kty": "RSA", "kid": "one", "n": %q, "e": %q}]}`, n, e)
}

// token gives the header that carries a token of a role.
func (i issuer) token(role string, expiry time.Time) string {
	i.t.Helper()
	encode := func(v any) string {
		raw, err := json.Marshal(v)
		if err != nil {
			i.t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(raw)
	}
	text := encode(map[string]string{"alg": "RS256", "kid": "one"}) + "." +
		encode(map[string]any{"iss": "tests@example.com", "sub": "tests@example.com", "role": role, "exp": expiry.Unix()})
	sum := sha256.Sum256([]byte(text))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		i.t.Fatal(err)
	}
	return "Authorization: Bearer " + text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func policy(name, spec string) string {
	return "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: " + name + "}\nspec:\n  selector: {matchLabels: {app: httpbin}}\n  " + spec + "\n"
}

// TestPolicies: tokens, roles, sources and rate limits decide who is answered.
func TestPolicies(t *testing.T) {
	n := deploy(t, "policies", environment.Options{Empty: true})
	n.apply("apiVersion: v1\nkind: Service\nmetadata: {name: httpbin}\nspec: {selector: {app: httpbin}, ports: [{name: http, port: 8000}]}\n" +
		deployment("httpbin", "httpbin", "v1", "}", "{containerPort: 8000}"))
	n.kubectl("rollout", "status", "deployment", "--timeout=20s")
	status := func(headers ...string) int {
		code, _ := n.get("http://httpbin:8000/get", headers...)
		return code
	}
	n.eventually("an answer", func() bool { return status() == 200 })

	keys := newIssuer(t)
	n.apply(`
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens}
spec:
  selector: {matchLabels: {app: httpbin}}
  jwtRules: [{issuer: tests@example.com, jwks: '` + keys.keys() + `'}]
` + policy("customers", `rules: [{when: [{key: "request.auth.claims[role]", values: [customer]}]}]`))
	n.eventually("no answer without a token", func() bool { return status() == 403 })
	hour := time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		header string
		want   int
	}{
		"customer": {keys.token("customer", hour), 200},
		"other":    {keys.token("visitor", hour), 403},
		"late":     {keys.token("customer", hour.Add(-2*time.Hour)), 401},
		"stranger": {newIssuer(t).token("customer", hour), 401},
	} {
		if got := status(c.header); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}

	n.kubectl("delete", "authorizationpolicy", "customers")
	n.apply(policy("callers", `action: DENY
  rules: [{from: [{source: {notPrincipals: [cluster.local/ns/`+n.Namespace+`/sa/default]}}]}, {to: [{operation: {paths: ["/status/*"]}}]}]`))
	n.eventually("a path that is denied, to a source that is not", func() bool {
		code, _ := n.get("http://httpbin:8000/status/200")
		return code == 403 && status() == 200
	})
	n.kubectl("delete", "authorizationpolicy", "callers")

	n.apply(`
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: limit}
spec:
  workloadSelector: {labels: {app: httpbin}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          "@type": type.googleapis.com/udpa.type.v1.TypedStruct
          type_url: type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          value:
            stat_prefix: limit
            token_bucket: {max_tokens: 4, tokens_per_fill: 4, fill_interval: 600s}
            filter_enabled: {runtime_key: enabled, default_value: {numerator: 100, denominator: HUNDRED}}
            filter_enforced: {runtime_key: enforced, default_value: {numerator: 100, denominator: HUNDRED}}
`)
	n.eventually("too many requests", func() bool { return status() == 429 })
}
