package kustomization

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/yaml"
)

// layer is one kustomization with all below it: what its transformations meet, and what they may make of it.
type layer struct {
	component bool
	// data is the size of the files that generators read.
	data int
	// objects as they are read, each as often as it is named; of what is generated, kind and name alone.
	objects []map[string]any
	// config is the size of what each object may get: labels, annotations, patches.
	config int
	// longest is the size of the longest value that a patch or a kustomization may put into a field.
	longest int
	// kindsChange is true when a patch may change an object's kind.
	kindsChange  bool
	replacements []types.Replacement
	// entries are the patches, labels, images and so on, each of which looks at each object; passes is how often that happens.
	entries, passes int
	// anyReference is true when a configuration may say that any field is another object's name.
	anyReference bool
	// done are the replacements below, in their order.
	done []written
	work int
}

// written is what a replacement did to the fields that it names.
type written struct {
	targets []*types.TargetSelector
	// growth is by how many times its source's size such a field may have grown.
	growth int
}

// take puts what a reference leads to below.
func (l *layer) take(below *layer) {
	if below.component {
		// Its transformations are run over all that the kustomization has so far.
		l.config += below.config
		l.entries += below.entries
		l.replacements = append(l.replacements, below.replacements...)
		l.work += below.work
	} else {
		l.work += below.settle()
	}
	l.objects = append(l.objects, below.objects...)
	l.done = append(l.done, below.done...)
	l.passes = min(l.passes+below.passes, 2*MaxPasses)
	l.longest = max(l.longest, below.longest)
	l.kindsChange = l.kindsChange || below.kindsChange
	l.anyReference = l.anyReference || below.anyReference
}

func (l *layer) takeFile(f file, reads reads) {
	switch reads {
	case asManifest:
		l.objects = append(l.objects, f.documents...)
		return
	case asData:
		l.data += f.bytes
		return
	}
	l.config += f.bytes
	for _, document := range f.documents {
		l.longest = max(l.longest, longestIn(document))
	}
	l.longest = max(l.longest, longestIn(f.list))
}

// settle gives by how many bytes the layer may grow the objects, and counts each only once.
func (l *layer) settle() int {
	work := l.work + l.config*len(l.objects)
	for _, r := range l.replacements {
		growth := 1
		for _, earlier := range l.done {
			if r.Source != nil && earlier.reaches(r.Source) {
				growth = min(growth+earlier.growth, MaxWork)
			}
		}
		size, times := l.sourceSize(r), 0
		for _, target := range r.Targets {
			times += fieldsOf(target) * l.count(target)
		}
		work = min(work+min(growth*size, MaxWork)*times, 2*MaxWork)
		written := written{targets: r.Targets}
		for _, target := range r.Targets {
			written.growth = min(written.growth+growth*fieldsOf(target), MaxWork)
		}
		l.done = append(l.done, written)
	}
	l.passes = min(l.passes+l.entries*len(l.objects), 2*MaxPasses)
	l.work, l.config, l.entries, l.replacements = work, 0, 0, nil
	return work
}

// sourceSize is the most that a replacement may copy: an object whole.
func (l *layer) sourceSize(r types.Replacement) int {
	if r.SourceValue != nil {
		return len(*r.SourceValue)
	}
	size := l.longest
	for _, object := range l.objects {
		kind, _ := object["kind"].(string)
		metadata, _ := object["metadata"].(map[string]any)
		name, _ := metadata["name"].(string)
		if r.Source == nil || (l.kindsChange || r.Source.Kind == "" || r.Source.Kind == kind) && (r.Source.Name == "" || strings.Contains(r.Source.Name, name)) {
			size = max(size, sizeOf(object)+l.longest)
		}
	}
	return size
}

// generatedSize is the field in which what stands for a generated object has the size of its data.
const generatedSize = "\x00size"

func sizeOf(object map[string]any) int {
	if size, ok := object[generatedSize].(int); ok {
		return size
	}
	encoded, err := json.Marshal(object)
	if err != nil {
		return MaxBytes // was JSON before
	}
	return len(encoded)
}

// count is how many objects a replacement's target may select.
func (l *layer) count(target *types.TargetSelector) int {
	if target == nil || target.Select == nil || l.kindsChange || !isPlain(target.Select.Kind) {
		return len(l.objects)
	}
	n := 0
	for _, object := range l.objects {
		if object["kind"] == target.Select.Kind {
			n++
		}
	}
	return n
}

// fieldsOf is how many fields of an object a target may write, the same one several times included.
func fieldsOf(target *types.TargetSelector) int {
	const wildcard = 100
	if target == nil {
		return 1
	}
	n := max(1, len(target.FieldPaths))
	for _, field := range target.FieldPaths {
		if strings.Contains(field, "*") {
			n += wildcard
		}
	}
	return n
}

// reaches tells whether what was written may be part of a source.
func (w written) reaches(source *types.SourceSelector) bool {
	from := cmpPath(source.FieldPath)
	return slices.ContainsFunc(w.targets, func(target *types.TargetSelector) bool {
		if target == nil || target.Select == nil {
			return true
		}
		if isPlain(target.Select.Kind) && isPlain(source.Kind) && target.Select.Kind != source.Kind {
			return false
		}
		return len(target.FieldPaths) == 0 || slices.ContainsFunc(target.FieldPaths, func(field string) bool {
			return overlap(from, cmpPath(field))
		})
	})
}

// cmpPath splits a field path; the default is what kustomize takes where none is given.
func cmpPath(field string) []string {
	if field == "" {
		field = types.DefaultReplacementFieldPath
	}
	return strings.Split(field, ".")
}

// overlap tells whether one of two fields may be within the other.
func overlap(a, b []string) bool {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] && !strings.ContainsAny(a[i]+b[i], `*[]\0123456789-`) {
			return false
		}
	}
	return true
}

// isPlain tells a kind from a regular expression and from none.
func isPlain(kind string) bool {
	return kind != "" && strings.IndexFunc(kind, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9')
	}) < 0
}

// inline takes what stands in the kustomization itself, or is to be looked at as a patch or a replacement.
func (c *collector) inline(here *layer, k *types.Kustomization, folder string) error {
	here.longest = max(here.longest, longestIn(plainFields(k)))
	here.entries += entriesOf(k)
	here.anyReference = here.anyReference || len(k.Configurations)+len(k.Crds) > 0
	for i, patch := range patchesOf(k) {
		if patch.Options != nil && patch.Options.AllowKindChange {
			here.kindsChange = true
		}
		if err := c.patch(here, patch, folder); err != nil {
			return fmt.Errorf("%s: %w", patchField(k, i), err)
		}
	}
	for i, patch := range k.PatchesStrategicMerge {
		if !isInline(string(patch)) {
			continue
		}
		if err := c.patch(here, types.Patch{Patch: string(patch)}, folder); err != nil {
			return fmt.Errorf("patchesStrategicMerge[%d]: %w", i, err)
		}
	}
	for i, replacement := range k.Replacements {
		all, err := c.replacements(replacement, folder)
		if err != nil {
			return fmt.Errorf("replacements[%d]: %w", i, err)
		}
		here.replacements = append(here.replacements, all...)
		for _, r := range all {
			here.entries += len(r.Targets)
		}
	}
	return c.generated(here, k)
}

// patch refuses what can make objects grow by themselves.
func (c *collector) patch(here *layer, patch types.Patch, folder string) error {
	name, _ := resolve(folder, patch.Path)
	content := c.files[name] // it was followed
	if patch.Path == "" {
		var err error
		if content, err = parse("patch.yaml", []byte(patch.Patch)); err != nil {
			return err
		}
		if err := content.checkPaths(); err != nil {
			return err
		}
		here.takeFile(content, asConfiguration)
	}
	for _, operation := range content.list {
		if fields, ok := operation.(map[string]any); ok && fields["op"] == "copy" {
			return errors.New("the operation copy is refused, since it grows objects without bound: add the value, or use replacements")
		}
	}
	return nil
}

func (c *collector) replacements(r types.ReplacementField, folder string) ([]types.Replacement, error) {
	if r.Path == "" {
		return []types.Replacement{r.Replacement}, nil
	}
	name, _ := resolve(folder, r.Path) // it was followed
	content, err := c.into.ReadFile("/" + name)
	if err != nil {
		return nil, err
	}
	var several []types.Replacement
	if err := yaml.Unmarshal(content, &several); err == nil {
		return several, nil
	}
	var single types.Replacement
	if err := yaml.Unmarshal(content, &single); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return []types.Replacement{single}, nil
}

// generated charges the objects that generators make, and what they may put into a field.
func (c *collector) generated(here *layer, k *types.Kustomization) error {
	add := func(kind string, generator types.GeneratorArgs) {
		size := here.data
		for _, literal := range generator.LiteralSources {
			size += len(literal)
		}
		here.objects = append(here.objects, map[string]any{"kind": kind, "metadata": map[string]any{"name": generator.Name}, generatedSize: size})
	}
	for _, generator := range k.ConfigMapGenerator {
		add("ConfigMap", generator.GeneratorArgs)
	}
	for _, generator := range k.SecretGenerator {
		add("Secret", generator.GeneratorArgs)
	}
	return c.total.add(load{objects: len(k.ConfigMapGenerator) + len(k.SecretGenerator)})
}

// plainFields are a kustomization's without those that are looked at one by one.
func plainFields(k *types.Kustomization) any {
	plain := *k
	plain.Patches, plain.PatchesJson6902, plain.PatchesStrategicMerge = nil, nil, nil
	plain.ConfigMapGenerator, plain.SecretGenerator, plain.Replacements = nil, nil, nil
	encoded, err := json.Marshal(plain)
	if err != nil {
		return nil
	}
	var fields any
	_ = json.Unmarshal(encoded, &fields) // was just encoded
	return fields
}

// longestIn gives the length of the longest text in a value, its keys included.
func longestIn(value any) int {
	longest := 0
	switch value := value.(type) {
	case string:
		return len(value)
	case []any:
		for _, item := range value {
			longest = max(longest, longestIn(item))
		}
	case map[string]any:
		for key, item := range value {
			longest = max(longest, len(key), longestIn(item))
		}
	}
	return longest
}
