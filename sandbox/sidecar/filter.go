package sidecar

import (
	"errors"
	"fmt"
	"net/http"
	"slices"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	xdsv3 "github.com/cncf/xds/go/xds/type/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	streamrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// facts are what filters decide by: a request or, where that is nil, a
// connection.
type facts struct {
	request *http.Request
	source  peer
	remote  string // host:port
	port    uint32 // that was connected to
	claims  map[string]any
}

// httpFilter answers a request itself, or lets it go on.
type httpFilter interface {
	apply(w http.ResponseWriter, f *facts, e *exchange) (answered bool)
}

// plainFilters are obeyed elsewhere, or only tell what happens.
var plainFilters = []string{
	"istio.metadata_exchange", "istio.alpn", "istio.stats", "envoy.filters.http.grpc_stats",
	faultFilterName, corsFilterName, "envoy.filters.http.router",
}

// readFilters compiles a connection manager's filters in their order; ignored
// names those that this proxy does not know.
func readFilters(manager *hcmv3.HttpConnectionManager) (filters []httpFilter, ignored []string, err error) {
	for _, spec := range manager.GetHttpFilters() {
		if slices.Contains(plainFilters, spec.GetName()) || spec.GetDisabled() {
			continue
		}
		filter, err := readHTTPFilter(spec.GetTypedConfig())
		switch {
		case errors.Is(err, errUnknownFilter):
			ignored = append(ignored, spec.GetName())
		case err != nil:
			return nil, nil, fmt.Errorf("HTTP filter %q: %w", spec.GetName(), err)
		default:
			filters = append(filters, filter)
		}
	}
	return filters, ignored, nil
}

var errUnknownFilter = errors.New("no filter that this proxy knows")

func readHTTPFilter(config *anypb.Any) (httpFilter, error) {
	rbac, jwt, limit := &rbacv3.RBAC{}, &jwtv3.JwtAuthentication{}, &ratelimitv3.LocalRateLimit{}
	for _, known := range []proto.Message{rbac, jwt, limit} {
		found, err := unpack(config, known)
		if err != nil {
			return nil, err
		}
		if !found {
			continue
		}
		switch known {
		case rbac:
			return compileRBAC(rbac.GetRules())
		case jwt:
			return compileJWT(jwt)
		default:
			return newRateLimit(limit), nil
		}
	}
	return nil, errUnknownFilter
}

// unpack reads a message that is packed as such or, as people write them in an
// EnvoyFilter, as a struct that names its type.
func unpack(config *anypb.Any, into proto.Message) (bool, error) {
	if config.MessageIs(into) {
		return true, config.UnmarshalTo(into)
	}
	typed, err := asTypedStruct(config)
	if err != nil || typed == nil || typed.GetTypeUrl() != "type.googleapis.com/"+string(into.ProtoReflect().Descriptor().FullName()) {
		return false, err
	}
	raw, err := typed.GetValue().MarshalJSON()
	if err != nil {
		return false, err
	}
	return true, protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(raw, into)
}

type typedStruct interface {
	GetTypeUrl() string
	GetValue() *structpb.Struct
}

// asTypedStruct gives the struct in either of its two versions; nil for none.
func asTypedStruct(config *anypb.Any) (typedStruct, error) {
	older, newer := &udpav1.TypedStruct{}, &xdsv3.TypedStruct{}
	switch {
	case config.MessageIs(older):
		return older, config.UnmarshalTo(older)
	case config.MessageIs(newer):
		return newer, config.UnmarshalTo(newer)
	}
	return nil, nil
}

// readStreamFilter compiles a filter that decides about connections; nil for
// one that does not.
func readStreamFilter(config *anypb.Any) (*rbacFilter, error) {
	spec := &streamrbacv3.RBAC{}
	if !config.MessageIs(spec) {
		return nil, nil
	}
	if err := config.UnmarshalTo(spec); err != nil {
		return nil, err
	}
	return compileRBAC(spec.GetRules())
}

// filtered lets the filters decide about a request, in their order.
func (e *exchange) filtered(w http.ResponseWriter, f *facts, filters []httpFilter) bool {
	return slices.ContainsFunc(filters, func(filter httpFilter) bool { return filter.apply(w, f, e) })
}
