package sidecar

import (
	"fmt"
	"net/http"

	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

const corsFilterName = "envoy.filters.http.cors"

// corsFilter is Envoy's CORS filter as a route configures it.
type corsFilter struct {
	spec    *corsv3.CorsPolicy
	origins []stringPredicate
}

func compileCORS(perFilter map[string]*anypb.Any) (*corsFilter, error) {
	config, ok := perFilter[corsFilterName]
	if !ok {
		return nil, nil
	}
	f := &corsFilter{spec: &corsv3.CorsPolicy{}}
	if err := config.UnmarshalTo(f.spec); err != nil {
		return nil, fmt.Errorf("%s: %w", corsFilterName, err)
	}
	for _, m := range f.spec.GetAllowOriginStringMatch() {
		p, err := compileString(m)
		if err != nil {
			return nil, fmt.Errorf("%s: origin: %w", corsFilterName, err)
		}
		f.origins = append(f.origins, p)
	}
	return f, nil
}

// apply gives an answer to an allowed origin its headers; it tells whether the
// request was a preflight, which it answers itself.
func (f *corsFilter) apply(w http.ResponseWriter, r *http.Request, e *exchange) (answered bool) {
	if f == nil {
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" || !f.allows(origin) {
		return false
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", origin)
	if f.spec.GetAllowCredentials().GetValue() {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		setUnlessEmpty(h, "Access-Control-Expose-Headers", f.spec.GetExposeHeaders())
		return false
	}
	setUnlessEmpty(h, "Access-Control-Allow-Methods", f.spec.GetAllowMethods())
	setUnlessEmpty(h, "Access-Control-Allow-Headers", f.spec.GetAllowHeaders())
	setUnlessEmpty(h, "Access-Control-Max-Age", f.spec.GetMaxAge())
	e.answer(w, http.StatusOK, "")
	return true
}

func (f *corsFilter) allows(origin string) bool {
	for _, p := range f.origins {
		if p(origin) {
			return true
		}
	}
	return false
}

func setUnlessEmpty(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}
