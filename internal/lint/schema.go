package lint

import (
	"context"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/config/crd"
	"sluice.dev/sluice/internal/manifest"
)

// kindSchema validates objects of a kind as the API server does.
type kindSchema struct {
	tree  *structural.Structural
	types validation.SchemaValidator
	rules *cel.Validator
}

// loadSchemas reads the CRDs, once: their CEL rules take a while to compile.
var loadSchemas = sync.OnceValues(func() (map[schema.GroupVersionKind]*kindSchema, error) {
	files, err := fs.Glob(crd.Files, "*.yaml")
	if err != nil {
		return nil, err
	}
	schemas := map[schema.GroupVersionKind]*kindSchema{}
	for _, name := range files {
		raw, err := crd.Files.ReadFile(name)
		if err != nil {
			return nil, err
		}
		definition := &apiextensionsv1.CustomResourceDefinition{}
		if err := yaml.Unmarshal(raw, definition); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		for i := range definition.Spec.Versions {
			version := &definition.Spec.Versions[i]
			gvk := schema.GroupVersionKind{Group: definition.Spec.Group, Version: version.Name, Kind: definition.Spec.Names.Kind}
			if schemas[gvk], err = compile(version.Schema); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return schemas, nil
})

func compile(given *apiextensionsv1.CustomResourceValidation) (*kindSchema, error) {
	internal := &apiextensions.CustomResourceValidation{}
	if err := apiextensionsv1.Convert_v1_CustomResourceValidation_To_apiextensions_CustomResourceValidation(given, internal, nil); err != nil {
		return nil, err
	}
	tree, err := structural.NewStructural(internal.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	types, _, err := validation.NewSchemaValidator(internal.OpenAPIV3Schema)
	if err != nil {
		return nil, err
	}
	return &kindSchema{tree, types, cel.NewValidator(tree, true, celconfig.PerCallLimit)}, nil
}

// refusals notes what the API server would refuse of an object of our group.
func (c *checker) refusals(ctx context.Context, schemas map[schema.GroupVersionKind]*kindSchema, o manifest.Object) {
	gvk := o.GroupVersionKind()
	if gvk.Group != v1.GroupVersion.Group {
		return
	}
	refused := func(rule, path, message string) {
		if c.invalid == nil {
			c.invalid = map[manifest.Object]bool{}
		}
		c.invalid[o] = true
		c.find(rule, o, path, "%s", message)
	}
	known := schemas[gvk]
	if known == nil {
		refused(ruleSchema, "apiVersion", fmt.Sprintf("%s %s is not known: there are the kinds Rollout and GitSync of %s", gvk.GroupVersion(), gvk.Kind, v1.GroupVersion))
		return
	}
	known.validate(ctx, o, refused)
	if _, ok := o.Object["metadata"].(map[string]any); !ok && o.Object["metadata"] != nil {
		return // refused by its type
	}
	if problems := utilvalidation.IsDNS1123Subdomain(o.GetName()); len(problems) > 0 {
		refused(ruleSchema, "metadata.name", fmt.Sprintf("%q: it must be a string and a DNS subdomain, such as reviews", o.GetName()))
	}
}

// validate tells what the API server would refuse when the object is made, by rule, path and message.
func (s *kindSchema) validate(ctx context.Context, o manifest.Object, refused func(rule, path, message string)) {
	content := o.DeepCopy().Object
	pruned := pruning.PruneWithOptions(content, s.tree, true, structural.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range pruned {
		refused(ruleUnknownField, path, fmt.Sprintf("%s has no such field", o.GetKind()))
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(content, s.tree)
	errs := validation.ValidateCustomResource(nil, content, s.types)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s.tree, content)...)
	if len(errs) == 0 { // the API server too asks the rules only of what has the right types
		errs, _ = s.rules.Validate(ctx, nil, s.tree, content, nil, celconfig.RuntimeCELCostBudget)
	}
	for _, err := range errs {
		if err.Field == "<nil>" && len(errs) > 1 {
			continue // what another error says already, of the format
		}
		refused(ruleSchema, err.Field, brief(err))
	}
}

// brief is an error's message without its field, which stands before it, and without a value that is a whole block.
func brief(err *field.Error) string {
	message := strings.TrimPrefix(err.ErrorBody(), "Invalid value: ")
	if i := strings.LastIndex(message, ": "); i >= 0 && err.Detail != "" {
		value := strings.TrimSuffix(message, ": "+err.Detail)
		if strings.ContainsAny(value, "{[") {
			return err.Detail
		}
	}
	return message
}
