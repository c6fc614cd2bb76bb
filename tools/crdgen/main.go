package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/tools/go/packages"
	"sigs.k8s.io/controller-tools/pkg/crd"
	"sigs.k8s.io/controller-tools/pkg/loader"
	"sigs.k8s.io/controller-tools/pkg/markers"

	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

func main() {
	paths := flag.String("packages", "./api/...", "the Go packages that hold the kinds")
	istio := flag.String("istio", "", "the file customresourcedefinitions.gen.yaml of istio.io/api")
	output := flag.String("output", "config/crd", "the directory to write to")
	flag.Parse()
	if err := run(*paths, *istio, *output); err != nil {
		fmt.Fprintln(os.Stderr, "crdgen:", err)
		os.Exit(1)
	}
}

// run generates the CRD of each kind in the packages into the output directory.
func run(paths, istio, output string) error {
	schemas, err := loadIstioSchemas(istio)
	if err != nil {
		return err
	}
	crds, err := generate(paths, schemas)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(output, 0o755); err != nil {
		return err
	}
	for _, definition := range crds {
		if err := write(output, definition); err != nil {
			return fmt.Errorf("writing the CRD %s: %w", definition.Name, err)
		}
	}
	return nil
}

// generate returns a CRD for each kind that the packages declare.
func generate(paths string, istioSchemas map[string]apiext.JSONSchemaProps) ([]apiext.CustomResourceDefinition, error) {
	reg, err := registry()
	if err != nil {
		return nil, err
	}
	roots, err := loader.LoadRoots(paths)
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", paths, err)
	}
	parser := &crd.Parser{Collector: &markers.Collector{Registry: reg}, Checker: &loader.TypeChecker{NodeFilters: []loader.NodeFilter{crd.Generator{}.CheckFilter()}}}
	crd.AddKnownTypes(parser)
	overrideTypes(parser, istioSchemas)
	for _, root := range roots {
		parser.NeedPackage(root)
	}
	var crds []apiext.CustomResourceDefinition
	for _, kind := range crd.FindKubeKinds(parser, crd.FindMetav1(roots)) {
		parser.NeedCRDFor(kind, nil)
		definition := parser.CustomResourceDefinitions[kind]
		crd.FixTopLevelMetadata(definition)
		for _, version := range definition.Spec.Versions {
			nameLater(version.Schema.OpenAPIV3Schema, kind.Kind)
			if err := shorten(map[string]*apiext.JSONSchemaProps{kind.Kind: version.Schema.OpenAPIV3Schema}, repeated); err != nil {
				return nil, err
			}
		}
		crds = append(crds, definition)
	}
	// Type errors are the compiler's to report: the loader meets some that are none, as it looks at parts of packages.
	if loader.PrintErrors(roots, packages.TypeError) {
		return nil, errors.New("the packages have the errors above")
	}
	if len(crds) == 0 {
		return nil, fmt.Errorf("%s declares no kind: a kind needs TypeMeta, ObjectMeta and +kubebuilder:object:root=true", paths)
	}
	return crds, nil
}

// write puts a CRD, without the parts that only a server fills in, into group_plural.yaml.
func write(directory string, definition apiext.CustomResourceDefinition) error {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&definition)
	if err != nil {
		return err
	}
	delete(object, "status")
	delete(object["metadata"].(map[string]any), "creationTimestamp")
	text, err := format(object)
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%s_%s.yaml", definition.Spec.Group, definition.Spec.Names.Plural)
	return os.WriteFile(filepath.Join(directory, name), text, 0o644)
}
