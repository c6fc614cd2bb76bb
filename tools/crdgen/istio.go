package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/utils/ptr"
)

// istioPackage holds the Go types of the networking API; its v1 types are aliases of these.
const istioPackage = "istio.io/api/networking/v1alpha3"

// istioTypes maps each Go type of istioPackage that api/v1 uses to the place in Istio's CRDs that has its schema:
// a kind, then properties, with [] for the items of a list.
var istioTypes = map[string]string{
	"CorsPolicy":               "VirtualService.spec.http[].corsPolicy",
	"HTTPFaultInjection_Abort": "VirtualService.spec.http[].fault.abort",
	"HTTPFaultInjection_Delay": "VirtualService.spec.http[].fault.delay",
	"HTTPMatchRequest":         "VirtualService.spec.http[].match[]",
	"HTTPRetry":                "VirtualService.spec.http[].retries",
	"HTTPRewrite":              "VirtualService.spec.http[].rewrite",
	"Headers":                  "VirtualService.spec.http[].headers",
	"L4MatchAttributes":        "VirtualService.spec.tcp[].match[]",
	"PortSelector":             "VirtualService.spec.http[].route[].destination.port",
	"TLSMatchAttributes":       "VirtualService.spec.tls[].match[]",
	"TrafficPolicy":            "DestinationRule.spec.trafficPolicy",
}

// repeated are the places, in Istio's CRDs and in ours, whose fields are documented a second time: what stands below them has
// no descriptions there, since the CRD has a size to keep.
var repeated = []string{
	"DestinationRule.spec.trafficPolicy.portLevelSettings[]",
	"Rollout.spec.versions[].trafficPolicy",
	"Rollout.spec.steps[].fault.match[]",
	"Rollout.spec.steps[].mirror.match[]",
	"Rollout.spec.virtualServices[].http[].match[]",
	"Rollout.spec.virtualServices[].routes[].match[]",
}

// shorten drops the descriptions below the fields of those of the places whose kind is there.
func shorten(roots map[string]*apiext.JSONSchemaProps, places []string) error {
	for _, place := range places {
		if kind, _, _ := strings.Cut(place, "."); roots[kind] == nil {
			continue
		}
		schema, err := find(roots, place)
		if err != nil {
			return fmt.Errorf("shortening %s: %w", place, err)
		}
		visitChildren(schema, func(field *apiext.JSONSchemaProps) { visitChildren(field, dropDescriptions) })
	}
	return nil
}

// The bounds that lists, maps and strings of grafted blocks get where a validation rule of Istio's looks at them or stands
// below them. The API server estimates what a rule may cost from the greatest number and size of the values it can see,
// and refuses a CRD whose estimate is too high; a Rollout has Istio's blocks several lists deep.
const (
	maxItems      = 20
	maxProperties = 20
	maxLength     = 256
)

// loadIstioSchemas reads Istio's CRDs and returns the bounded schema of each of istioTypes.
func loadIstioSchemas(path string) (map[string]apiext.JSONSchemaProps, error) {
	roots, err := loadStoredSchemas(path)
	if err != nil {
		return nil, fmt.Errorf("reading Istio's CRDs from %s: %w", path, err)
	}
	if err := shorten(roots, repeated); err != nil {
		return nil, err
	}
	schemas := map[string]apiext.JSONSchemaProps{}
	for name, place := range istioTypes {
		schema, err := find(roots, place)
		if err != nil {
			return nil, fmt.Errorf("the schema of Istio's %s: %w", name, err)
		}
		bounded := schema.DeepCopy()
		fitGo(bounded)
		bound(bounded)
		compact(bounded)
		schemas[name] = *bounded
	}
	return schemas, nil
}

// loadStoredSchemas returns the schema of the storage version of every CRD in a YAML file, by kind.
func loadStoredSchemas(path string) (map[string]*apiext.JSONSchemaProps, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	schemas := map[string]*apiext.JSONSchemaProps{}
	decoder := yaml.NewYAMLOrJSONDecoder(file, 1<<16)
	for {
		var crd apiext.CustomResourceDefinition
		if err := decoder.Decode(&crd); errors.Is(err, io.EOF) {
			return schemas, nil
		} else if err != nil {
			return nil, err
		}
		for _, version := range crd.Spec.Versions {
			if version.Storage {
				schemas[crd.Spec.Names.Kind] = version.Schema.OpenAPIV3Schema
			}
		}
	}
}

// find follows a place such as VirtualService.spec.http[].match[] from the schema of its kind.
func find(roots map[string]*apiext.JSONSchemaProps, place string) (*apiext.JSONSchemaProps, error) {
	kind, path, _ := strings.Cut(place, ".")
	schema, found := roots[kind]
	if !found {
		return nil, fmt.Errorf("%s: there is no CRD of kind %s", place, kind)
	}
	for part := range strings.SplitSeq(path, ".") {
		name, isList := strings.CutSuffix(part, "[]")
		property, found := schema.Properties[name]
		if !found {
			return nil, fmt.Errorf("%s: there is no property %q", place, name)
		}
		schema = &property
		if !isList {
			continue
		}
		if schema.Items == nil || schema.Items.Schema == nil {
			return nil, fmt.Errorf("%s: property %q is no list", place, name)
		}
		schema = schema.Items.Schema
	}
	return schema, nil
}

// Fields that Istio's CRDs take more of than our Go types decode, by name: durations with any text, and 64-bit numbers, which Go
// writes as text.
var (
	uncheckedDurations = []string{"budgetInterval", "idleTimeout", "ttl"}
	longNumbers        = []string{"minimumRingSize", "tableSize"}
)

// istioDurationPattern is of what Go and CEL parse alike; it holds what Go writes, which is seconds with up to nine decimals.
const istioDurationPattern = `^([0-9]{1,10}([.][0-9]{1,9})?(h|m|s|ms|us|ns)){1,4}$`

// fitGo makes the API server take, in those fields, exactly what our Go types decode and what they write.
func fitGo(schema *apiext.JSONSchemaProps) {
	for name, property := range schema.Properties {
		switch {
		case slices.Contains(uncheckedDurations, name) && property.Type == "string" && len(property.XValidations) == 0:
			property.MaxLength, property.XValidations = ptr.To[int64](64), apiext.ValidationRules{{
				Rule:    "self.matches('" + istioDurationPattern + "') && duration(self) >= duration('0s')",
				Message: "must be a duration such as 90s or 1h30m",
			}}
		case slices.Contains(longNumbers, name) && property.Type == "integer":
			property.Type, property.XIntOrString = "", true
			property.AnyOf = []apiext.JSONSchemaProps{{Type: "integer"}, {Type: "string"}}
			property.Pattern, property.Maximum = "^[0-9]{1,15}$", ptr.To(1e15)
		}
		schema.Properties[name] = property
	}
	visitChildren(schema, fitGo)
}

// bound limits the lists, maps and strings of schema that have a rule at or below them, and tells whether there was a rule.
func bound(schema *apiext.JSONSchemaProps) bool {
	ruled := len(schema.XValidations) > 0
	visitChildren(schema, func(child *apiext.JSONSchemaProps) { ruled = bound(child) || ruled })
	switch {
	case !ruled:
	case schema.Type == "array":
		limit(&schema.MaxItems, maxItems)
	case schema.Type == "string":
		limit(&schema.MaxLength, maxLength)
	case schema.AdditionalProperties != nil:
		limit(&schema.MaxProperties, maxProperties)
	}
	return ruled
}

// limit lowers a bound to at most greatest.
func limit(current **int64, greatest int64) {
	if *current == nil || **current > greatest {
		*current = ptr.To(greatest)
	}
}

// compact replaces "none or exactly one of these properties" by maxProperties where these are all the properties there
// are. Both mean the same, as the API server drops unknown properties; the short form saves a fifth of the CRD and is
// refused with a message that people understand.
func compact(schema *apiext.JSONSchemaProps) {
	if len(schema.OneOf) > 0 && isAtMostOne(schema) {
		schema.OneOf = nil
		schema.MaxProperties = ptr.To[int64](1)
	}
	visitChildren(schema, compact)
}

// isAtMostOne recognises the form in which Istio writes a protobuf oneof:
// oneOf: [{not: {anyOf: [{required: [a]}, {required: [b]}]}}, {required: [a]}, {required: [b]}].
func isAtMostOne(schema *apiext.JSONSchemaProps) bool {
	none, alternatives := schema.OneOf[0].Not, schema.OneOf[1:]
	if none == nil || !slices.EqualFunc(none.AnyOf, alternatives, isSameRequirement) {
		return false
	}
	names := sets.New[string]()
	for _, alternative := range alternatives {
		names.Insert(alternative.Required...)
	}
	return names.Equal(sets.KeySet(schema.Properties))
}

// isSameRequirement tells whether both schemas ask for the same single property and nothing else.
func isSameRequirement(a, b apiext.JSONSchemaProps) bool {
	return len(a.Required) == 1 && len(a.Properties) == 0 && equality.Semantic.DeepEqual(a, b)
}

// visitChildren calls visit with the schema of each property, item and map value of schema.
func visitChildren(schema *apiext.JSONSchemaProps, visit func(*apiext.JSONSchemaProps)) {
	for name, property := range schema.Properties {
		visit(&property)
		schema.Properties[name] = property
	}
	if schema.Items != nil && schema.Items.Schema != nil {
		visit(schema.Items.Schema)
	}
	if schema.AdditionalProperties != nil && schema.AdditionalProperties.Schema != nil {
		visit(schema.AdditionalProperties.Schema)
	}
}
