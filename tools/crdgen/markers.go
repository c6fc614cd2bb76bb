package main

import (
	"fmt"
	"strings"
	"time"

	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdmarkers "sigs.k8s.io/controller-tools/pkg/crd/markers"
	"sigs.k8s.io/controller-tools/pkg/markers"
)

// laterMessage stands in a schema until nameLater knows the field's name.
const laterMessage = "+sluice:later"

// Later marks a field that is part of the API but does not work yet: `+sluice:later`.
// Any value is refused, so that no field is ever silently ignored.
type Later struct{}

// ApplyToSchema adds the rule that refuses the field.
func (Later) ApplyToSchema(_ *crdmarkers.SchemaContext, schema *apiext.JSONSchemaProps) error {
	schema.XValidations = append(schema.XValidations, apiext.ValidationRule{Rule: "false", Message: laterMessage})
	return nil
}

// AtLeast is the least value of a duration field: `+sluice:atLeast="1s"`.
type AtLeast string

// ApplyToSchema adds the rule for the least value; text that is no duration is left to the type's own rule.
func (least AtLeast) ApplyToSchema(_ *crdmarkers.SchemaContext, schema *apiext.JSONSchemaProps) error {
	if _, err := time.ParseDuration(string(least)); err != nil {
		return fmt.Errorf("+sluice:atLeast=%q: %w", string(least), err)
	}
	schema.XValidations = append(schema.XValidations, apiext.ValidationRule{
		Rule:    fmt.Sprintf("!self.matches('%s') || duration(self) >= duration('%s')", durationPattern, least),
		Message: fmt.Sprintf("must be at least %s", least),
	})
	return nil
}

// Conditions asks each of a list of HTTPMatchRequests for a condition: `+sluice:conditions`. A block without one would
// match every request, and so would one that names nothing but gateways or an empty URI.
type Conditions struct{}

// ApplyToSchema adds the rule to the list.
func (Conditions) ApplyToSchema(_ *crdmarkers.SchemaContext, schema *apiext.JSONSchemaProps) error {
	var conditions []string
	for _, text := range []string{"uri", "scheme", "method", "authority"} {
		for _, kind := range []string{"exact", "prefix", "regex"} {
			conditions = append(conditions, fmt.Sprintf("(has(m.%[1]s) && has(m.%[1]s.%[2]s) && m.%[1]s.%[2]s != '')", text, kind))
		}
	}
	for _, dictionary := range []string{"headers", "withoutHeaders", "queryParams", "sourceLabels"} {
		conditions = append(conditions, fmt.Sprintf("(has(m.%[1]s) && size(m.%[1]s) > 0)", dictionary))
	}
	conditions = append(conditions, "has(m.port)", "has(m.sourceNamespace)")
	schema.XValidations = append(schema.XValidations, apiext.ValidationRule{
		Rule: "self.all(m, " + strings.Join(conditions, " || ") + ")",
		Message: "each match block needs a condition, such as headers: {end-user: {exact: jason}}: " +
			"without one it matches every request",
	})
	return nil
}

// registry knows controller-gen's markers and ours.
func registry() (*markers.Registry, error) {
	reg := &markers.Registry{}
	if err := crdmarkers.Register(reg); err != nil {
		return nil, fmt.Errorf("registering controller-gen's markers: %w", err)
	}
	ours := map[string]any{"sluice:later": Later{}, "sluice:atLeast": AtLeast(""), "sluice:conditions": Conditions{}}
	for name, marker := range ours {
		if err := reg.Define(name, markers.DescribesField, marker); err != nil {
			return nil, fmt.Errorf("registering marker %s: %w", name, err)
		}
	}
	return reg, nil
}

// nameLater gives the rules of +sluice:later a message with the name of their field, and drops the documentation below
// such a field: what is refused needs none, and the CRD has a size to keep.
func nameLater(schema *apiext.JSONSchemaProps, name string) {
	for i := range schema.XValidations {
		if schema.XValidations[i].Message == laterMessage {
			schema.XValidations[i].Message = name + " does not work yet: leave it out"
			description := schema.Description
			dropDescriptions(schema)
			schema.Description = description
		}
	}
	for key, property := range schema.Properties {
		nameLater(&property, key)
		schema.Properties[key] = property
	}
	if schema.Items != nil {
		nameLater(schema.Items.Schema, name)
	}
}

func dropDescriptions(schema *apiext.JSONSchemaProps) {
	schema.Description = ""
	visitChildren(schema, dropDescriptions)
}
