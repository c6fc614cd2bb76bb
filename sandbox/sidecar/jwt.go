package sidecar

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
)

// jwtFilter is Envoy's check of JSON web tokens, for signatures by RS256: a
// request without token passes, and one with a token that no provider accepts
// does not.
type jwtFilter struct{ providers []*jwtProvider }

type jwtProvider struct {
	spec *jwtv3.JwtProvider
	keys map[string]*rsa.PublicKey // by key id
}

func compileJWT(spec *jwtv3.JwtAuthentication) (*jwtFilter, error) {
	f := &jwtFilter{}
	for name, p := range spec.GetProviders() {
		keys, err := readKeys(p.GetLocalJwks().GetInlineString())
		if err != nil {
			return nil, fmt.Errorf("provider %q: %w", name, err)
		}
		f.providers = append(f.providers, &jwtProvider{p, keys})
	}
	return f, nil
}

func readKeys(text string) (map[string]*rsa.PublicKey, error) {
	var set struct {
		Keys []struct{ Kid, Kty, N, E string }
	}
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		return nil, fmt.Errorf("JWKS: %w", err)
	}
	keys := map[string]*rsa.PublicKey{}
	for _, k := range set.Keys {
		n, errN := base64.RawURLEncoding.DecodeString(k.N)
		e, errE := base64.RawURLEncoding.DecodeString(k.E)
		if err := errors.Join(errN, errE); err != nil {
			return nil, fmt.Errorf("JWKS: key %q: %w", k.Kid, err)
		}
		if k.Kty == "RSA" {
			keys[k.Kid] = &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}
		}
	}
	return keys, nil
}

func (f *jwtFilter) apply(w http.ResponseWriter, x *facts, e *exchange) bool {
	var problem error
	for _, p := range f.providers {
		token := p.find(x.request)
		if token == "" {
			continue
		}
		claims, err := p.verify(token, time.Now())
		if err == nil {
			x.claims = claims
			if !p.spec.GetForward() {
				x.request.Header.Del("Authorization")
			}
			return false
		}
		problem = err
	}
	if problem == nil {
		return false
	}
	w.Header().Set("Www-Authenticate", "Bearer error=\"invalid_token\"")
	e.answer(w, http.StatusUnauthorized, problem.Error())
	return true
}

// find gives the request's token from where the provider has it; "" for none.
func (p *jwtProvider) find(r *http.Request) string {
	for _, from := range p.spec.GetFromHeaders() {
		if token, ok := strings.CutPrefix(r.Header.Get(from.GetName()), from.GetValuePrefix()); ok && token != "" {
			return token
		}
	}
	for _, name := range p.spec.GetFromParams() {
		if token := r.URL.Query().Get(name); token != "" {
			return token
		}
	}
	if len(p.spec.GetFromHeaders())+len(p.spec.GetFromParams()) > 0 {
		return ""
	}
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		return ""
	}
	return token
}

// verify gives the claims of a token that the provider's issuer signed.
func (p *jwtProvider) verify(token string, now time.Time) (map[string]any, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections") //nolint:staticcheck // Envoy's words
	}
	var header struct{ Alg, Kid string }
	var claims map[string]any
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err := errors.Join(err, decodePart(parts[0], &header), decodePart(parts[1], &claims)); err != nil {
		return nil, fmt.Errorf("Jwt can not be read: %w", err) //nolint:staticcheck // as Envoy begins its words
	}
	if claims["iss"] != p.spec.GetIssuer() {
		return nil, errors.New("Jwt issuer is not configured") //nolint:staticcheck // Envoy's words
	}
	if !signed(p.keys, header.Kid, parts[0]+"."+parts[1], signature) || header.Alg != "RS256" {
		return nil, errors.New("Jwt verification fails") //nolint:staticcheck // Envoy's words
	}
	if expiry, ok := claims["exp"].(float64); ok && now.Unix() > int64(expiry) {
		return nil, errors.New("Jwt is expired") //nolint:staticcheck // Envoy's words
	}
	if !inAudience(p.spec.GetAudiences(), claims["aud"]) {
		return nil, errors.New("Audiences in Jwt are not allowed") //nolint:staticcheck // Envoy's words
	}
	return claims, nil
}

func decodePart(part string, into any) error {
	raw, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

// signed tells whether the key of that id, or any where the token names none,
// made the signature.
func signed(keys map[string]*rsa.PublicKey, id, text string, signature []byte) bool {
	sum := sha256.Sum256([]byte(text))
	for kid, key := range keys {
		if (id == "" || id == kid) && rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], signature) == nil {
			return true
		}
	}
	return false
}

func inAudience(allowed []string, claim any) bool {
	if len(allowed) == 0 {
		return true
	}
	if one, ok := claim.(string); ok {
		return slices.Contains(allowed, one)
	}
	return oneOf(claim, func(v any) bool { text, ok := v.(string); return ok && slices.Contains(allowed, text) })
}
