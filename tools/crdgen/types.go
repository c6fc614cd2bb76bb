package main

import (
	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-tools/pkg/crd"
	"sigs.k8s.io/controller-tools/pkg/loader"
)

// Text that the API server stores must decode into our Go types: one object that does not breaks the typed informer of
// all. So each of these patterns accepts no more than the type's UnmarshalJSON.
const (
	// durationPattern is a part of what time.ParseDuration reads, too short to overflow it, and whole milliseconds: so what
	// Go writes for it, having read it, matches as well.
	durationPattern = `^([0-9]{1,5}([.][0-9]{1,3})?(h|m|s)|[0-9]{1,5}ms){1,4}$`
	durationMax     = "87600h"
	timePattern     = `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$`
	// microTimePattern has exactly six digits after the second, as metav1.MicroTime writes and reads it.
	microTimePattern = `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{6}(Z|[+-][0-9]{2}:[0-9]{2})$`
)

const metav1Package = "k8s.io/apimachinery/pkg/apis/meta/v1"

// overrideTypes gives the parser the schemas of times, durations and Istio's types.
func overrideTypes(parser *crd.Parser, istio map[string]apiext.JSONSchemaProps) {
	known := parser.PackageOverrides[metav1Package]
	parser.PackageOverrides[metav1Package] = func(p *crd.Parser, pkg *loader.Package) {
		known(p, pkg)
		setSchemas(p, pkg, map[string]apiext.JSONSchemaProps{
			"Duration":  durationSchema(),
			"Time":      {Type: "string", Format: "date-time", Pattern: timePattern},
			"MicroTime": {Type: "string", Format: "date-time", Pattern: microTimePattern},
		})
	}
	// AddPackage is not called: Istio's Go structs are never looked into.
	parser.PackageOverrides[istioPackage] = func(p *crd.Parser, pkg *loader.Package) { setSchemas(p, pkg, istio) }
}

func setSchemas(parser *crd.Parser, pkg *loader.Package, schemas map[string]apiext.JSONSchemaProps) {
	for name, schema := range schemas {
		parser.Schemata[crd.TypeIdent{Package: pkg, Name: name}] = schema
	}
}

func durationSchema() apiext.JSONSchemaProps {
	return apiext.JSONSchemaProps{
		Type:      "string",
		MaxLength: ptr.To[int64](32),
		XValidations: apiext.ValidationRules{{
			Rule:    "self.matches('" + durationPattern + "') && duration(self) <= duration('" + durationMax + "')",
			Message: "must be a duration of hours, minutes, seconds or milliseconds, such as 90s, 10m or 1h30m",
		}},
	}
}
