package kustomization

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
)

// What bounds the time of a rendering, some 20 s on a busy core at worst.
const (
	// MaxPasses bounds how often any patch, label, image or replacement's target looks at an object.
	MaxPasses = 200_000
	// MaxLookups bounds the objects that are looked through for names that other objects refer to: references times objects.
	MaxLookups = 5_000_000
)

// targeted is how many other entries a patch with a target weighs as much as: it takes each object apart and puts it together again.
const targeted = 10

// entriesOf counts what looks at each object. A patch of several documents counts once, since each of them is for one object.
func entriesOf(k *types.Kustomization) int {
	fields := 0
	for _, label := range k.Labels {
		fields += 1 + len(label.FieldSpecs)
	}
	for _, patch := range patchesOf(k) {
		if patch.Target != nil {
			fields += targeted
		}
	}
	return fields + len(k.Patches) + len(k.PatchesJson6902) + len(k.PatchesStrategicMerge) + len(k.Images) + len(k.Replicas) +
		len(k.CommonLabels) + len(k.CommonAnnotations) + len(k.ConfigMapGenerator) + len(k.SecretGenerator)
}

// checkTime tells what would take too long. The layer is settled.
func (l *layer) checkTime() error {
	if l.passes > MaxPasses {
		return fmt.Errorf("its patches, labels, images and replacements look at objects more than %d times: split it over several GitSyncs", MaxPasses)
	}
	references := 0
	for _, object := range l.objects {
		references += l.references(object, "")
		if references*len(l.objects) > MaxLookups {
			return fmt.Errorf("its %d objects refer to each other by name too often (%d references times objects): split it over several GitSyncs", len(l.objects), MaxLookups)
		}
	}
	return nil
}

// ownNames are lists and blocks whose name is no other object's.
var ownNames = []string{"metadata", "containers", "initContainers", "ephemeralContainers", "env", "ports", "volumes", "volumeMounts"}

// references counts the fields of a value, which stands in the field parent, that kustomize may take for another object's name.
func (l *layer) references(value any, parent string) (n int) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			n += l.references(item, parent)
		}
	case map[string]any:
		for key, below := range value {
			n += l.references(below, key)
		}
		if _, named := value["name"].(string); named && !slices.Contains(ownNames, parent) {
			n++
		}
	case string:
		if l.anyReference || strings.HasSuffix(parent, "Name") {
			n++
		}
	}
	return n
}

// errTooMuch is what a rendering may come to that would fill the memory.
var errTooMuch = errors.New("its patches, labels and replacements may come to more than 128 MiB in all the objects that they meet: give them narrower targets, or split it over several GitSyncs")
