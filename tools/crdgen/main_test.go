package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

// parse reads a schema as YAML.
func parse(t *testing.T, text string) *apiext.JSONSchemaProps {
	t.Helper()
	schema := &apiext.JSONSchemaProps{}
	if err := yaml.UnmarshalStrict([]byte(text), schema); err != nil {
		t.Fatal(err)
	}
	return schema
}

func TestFind(t *testing.T) {
	roots := map[string]*apiext.JSONSchemaProps{"Kind": parse(t, `
properties:
  spec:
    properties:
      list: {type: array, items: {properties: {leaf: {type: boolean}}}}
`)}
	leaf, err := find(roots, "Kind.spec.list[].leaf")
	if err != nil || leaf.Type != "boolean" {
		t.Errorf("got %+v, %v; want the boolean", leaf, err)
	}
	for place, want := range map[string]string{
		"Other.spec":          "no CRD of kind Other",
		"Kind.spec.map":       `no property "map"`,
		"Kind.spec[]":         `"spec" is no list`,
		"Kind.spec.list.leaf": `no property "leaf"`,
	} {
		if _, err := find(roots, place); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %s", place, err, want)
		}
	}
}

func TestBoundWhereRulesLook(t *testing.T) {
	schema := parse(t, `
properties:
  free: {type: array, items: {type: string}}
  ruled:
    type: array
    items:
      type: object
      additionalProperties: {type: string, x-kubernetes-validations: [{rule: "self != ''"}]}
  narrow: {type: string, maxLength: 5, x-kubernetes-validations: [{rule: "self != ''"}]}
`)
	if !bound(schema) {
		t.Error("no rule was found")
	}
	free, ruled := schema.Properties["free"], schema.Properties["ruled"]
	if free.MaxItems != nil || free.Items.Schema.MaxLength != nil {
		t.Errorf("a list without rules was bounded: %+v", free)
	}
	values := ruled.Items.Schema
	got := []*int64{ruled.MaxItems, values.MaxProperties, values.AdditionalProperties.Schema.MaxLength, schema.Properties["narrow"].MaxLength}
	want := []*int64{ptr.To[int64](maxItems), ptr.To[int64](maxProperties), ptr.To[int64](maxLength), ptr.To[int64](5)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestCompact(t *testing.T) {
	const oneOf = `oneOf: [{not: {anyOf: [{required: [a]}, {required: [b]}]}}, {required: [a]}, {required: [b]}]`
	schema := parse(t, "properties: {a: {type: string}, b: {type: string}}\n"+oneOf)
	compact(schema)
	if schema.OneOf != nil || !cmp.Equal(schema.MaxProperties, ptr.To[int64](1)) {
		t.Errorf("none or one of all properties stayed: %+v", schema)
	}
	for name, text := range map[string]string{
		"there is a third property": "properties: {a: {type: string}, b: {type: string}, c: {type: string}}\n" + oneOf,
		"one is required":           "properties: {a: {type: string}, b: {type: string}}\noneOf: [{required: [a]}, {required: [b]}]",
		"more than presence":        "properties: {a: {type: string}}\noneOf: [{not: {anyOf: [{required: [a]}]}}, {required: [a], properties: {a: {enum: [x]}}}]",
	} {
		schema := parse(t, text)
		compact(schema)
		if schema.OneOf == nil || schema.MaxProperties != nil {
			t.Errorf("%s: was shortened to %+v", name, schema)
		}
	}
}

func TestNameLater(t *testing.T) {
	schema := parse(t, `
description: Root.
properties:
  steps:
    items:
      properties:
        job:
          description: A Job.
          properties: {template: {description: Its template.}}
          x-kubernetes-validations: [{rule: "false", message: "+sluice:later"}]
        hold: {description: A time.}
`)
	nameLater(schema, "Rollout")
	step := schema.Properties["steps"].Items.Schema
	job := step.Properties["job"]
	if got, want := job.XValidations[0].Message, "job does not work yet: leave it out"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if job.Description != "A Job." || job.Properties["template"].Description != "" || step.Properties["hold"].Description != "A time." {
		t.Errorf("descriptions below the refused field, and those alone, should go: %+v", step)
	}
}

func TestFitGo(t *testing.T) {
	schema := parse(t, `
properties:
  ttl: {type: string}
  name: {type: string}
  list: {items: {properties: {tableSize: {type: integer, minimum: 0}}}}
`)
	fitGo(schema)
	size := schema.Properties["list"].Items.Schema.Properties["tableSize"]
	if len(schema.Properties["ttl"].XValidations) == 0 || len(schema.Properties["name"].XValidations) > 0 {
		t.Errorf("durations, and those alone, should be checked: %+v", schema.Properties)
	}
	if !size.XIntOrString || size.Pattern == "" || size.Type != "" {
		t.Errorf("a 64-bit number should be taken as text as well: %+v", size)
	}
}

func TestShorten(t *testing.T) {
	root := parse(t, `
properties:
  spec:
    properties:
      versions:
        items:
          properties:
            trafficPolicy:
              description: A policy.
              properties: {tls: {description: TLS., properties: {mode: {description: Its mode.}}}}
`)
	places := []string{"DestinationRule.spec.trafficPolicy", "Rollout.spec.versions[].trafficPolicy"}
	if err := shorten(map[string]*apiext.JSONSchemaProps{"Rollout": root}, places); err != nil {
		t.Fatal(err)
	}
	policy := root.Properties["spec"].Properties["versions"].Items.Schema.Properties["trafficPolicy"]
	tls := policy.Properties["tls"]
	if policy.Description == "" || tls.Description == "" || tls.Properties["mode"].Description != "" {
		t.Errorf("descriptions below the policy's fields, and those alone, should go: %+v", policy)
	}
	if err := shorten(map[string]*apiext.JSONSchemaProps{"Rollout": {}}, places); err == nil {
		t.Error("a place that is not there is no error")
	}
}

func TestFormat(t *testing.T) {
	got, err := format(map[string]any{
		"b": map[string]any{"type": "string"},
		"a": []any{"x", map[string]any{"text": strings.Repeat("long ", 40)}},
		"c": map[string]any{"items": map[string]any{"type": "string"}},
	})
	want := "---\na:\n- x\n- text: '" + strings.Repeat("long ", 40) + "'\nb: {type: string}\nc: {items: {type: string}}\n"
	if err != nil || string(got) != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, got, want)
	}
}
