package kustomization

import (
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
)

// reads says what a reference may name, and as what it is read.
type reads int

const (
	asManifest      reads = iota // YAML of objects, or a folder with a kustomization
	asComponent                  // a folder with a component
	asConfiguration              // YAML that changes objects
	asData                       // anything
)

// reference is a file or folder that a kustomization names.
type reference struct {
	// field as people find it, such as "patches[2].path".
	field string
	value string
	reads reads
}

// refuseFields names a field that is not followed: what runs programs, fetches, or changes what other tenants' renderings see.
func refuseFields(k *types.Kustomization) error {
	for _, refused := range []struct {
		field  string
		set    bool
		remedy string
	}{
		{"generators", len(k.Generators) > 0, "plugins do not run here: use configMapGenerator and secretGenerator"},
		{"transformers", len(k.Transformers) > 0, "plugins do not run here: use patches, replacements, labels and images"},
		{"validators", len(k.Validators) > 0, "plugins do not run here: the API server validates"},
		{"helmCharts", len(k.HelmCharts) > 0, "charts are not inflated here: commit what helm template prints"},
		{"helmGlobals", k.HelmGlobals != nil, "charts are not inflated here: commit what helm template prints"},
		{"openapi", len(k.OpenAPI) > 0, "a schema of one's own is not loaded: use JSON patches where lists of custom resources are merged"},
		{"vars", len(k.Vars) > 0, "they are deprecated and grow what they stand in without bound: use replacements"},
	} {
		if refused.set {
			return fmt.Errorf("%s: refused, %s", refused.field, refused.remedy)
		}
	}
	return nil
}

// referencesOf lists all that a kustomization reads. No other field of it reaches the loader.
func referencesOf(k *types.Kustomization) ([]reference, error) {
	var all []reference
	add := func(reads reads, field string, values ...string) {
		for i, value := range values {
			all = append(all, reference{fmt.Sprintf("%s[%d]", field, i), value, reads})
		}
	}
	add(asManifest, "resources", k.Resources...)
	add(asComponent, "components", k.Components...)
	add(asConfiguration, "configurations", k.Configurations...)
	add(asConfiguration, "crds", k.Crds...)
	for i, patch := range k.PatchesStrategicMerge {
		if text := string(patch); !isInline(text) {
			all = append(all, reference{fmt.Sprintf("patchesStrategicMerge[%d]", i), text, asConfiguration})
		}
	}
	for i, patch := range patchesOf(k) {
		if patch.Path != "" {
			all = append(all, reference{patchField(k, i) + ".path", patch.Path, asConfiguration})
		}
	}
	for i, replacement := range k.Replacements {
		if replacement.Path != "" {
			all = append(all, reference{fmt.Sprintf("replacements[%d].path", i), replacement.Path, asConfiguration})
		}
	}
	for i, generator := range k.ConfigMapGenerator {
		add(asData, fmt.Sprintf("configMapGenerator[%d].envs", i), generator.EnvSources...)
	}
	for i, generator := range k.SecretGenerator {
		add(asData, fmt.Sprintf("secretGenerator[%d].envs", i), generator.EnvSources...)
	}
	files, err := generatedFiles(k)
	return append(all, files...), err
}

// generatedFiles takes the keys off entries such as "key=path".
func generatedFiles(k *types.Kustomization) ([]reference, error) {
	var all []reference
	add := func(field string, sources []string) error {
		for i, source := range sources {
			at := fmt.Sprintf("%s.files[%d]", field, i)
			key, name, keyed := strings.Cut(source, "=")
			if !keyed {
				name = key
			}
			if strings.Contains(name, "=") || keyed && (key == "" || name == "") {
				return fmt.Errorf("%s: %q must be a path or key=path", at, source)
			}
			all = append(all, reference{at, name, asData})
		}
		return nil
	}
	for i, generator := range k.ConfigMapGenerator {
		if err := add(fmt.Sprintf("configMapGenerator[%d]", i), generator.FileSources); err != nil {
			return nil, err
		}
	}
	for i, generator := range k.SecretGenerator {
		if err := add(fmt.Sprintf("secretGenerator[%d]", i), generator.FileSources); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// patchesOf gives patches, and what stands in the deprecated field of JSON patches.
func patchesOf(k *types.Kustomization) []types.Patch {
	return slices.Concat(k.Patches, k.PatchesJson6902)
}

// patchField names the i-th of patchesOf.
func patchField(k *types.Kustomization, i int) string {
	if i < len(k.Patches) {
		return fmt.Sprintf("patches[%d]", i)
	}
	return fmt.Sprintf("patchesJson6902[%d]", i-len(k.Patches))
}

// isInline tells a patch that stands in patchesStrategicMerge itself from the path of one.
func isInline(patch string) bool {
	return strings.Contains(patch, "\n") || strings.HasPrefix(strings.TrimSpace(patch), "{")
}
