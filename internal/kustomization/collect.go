package kustomization

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"sluice.dev/sluice/internal/document"
)

// The bounds of one rendering. What stands in a folder that is named several times counts as often.
const (
	// MaxFileBytes bounds each file.
	MaxFileBytes = 1 << 20
	// MaxBytes bounds all that is read, YAML as the JSON that it stands for.
	MaxBytes = 8 << 20
	// MaxFolders bounds the kustomizations.
	MaxFolders = 200
	// MaxObjects bounds the objects.
	MaxObjects = 1000
	// MaxWork bounds what all objects together may grow by, in bytes: each patch, label and replacement times the objects that it may meet.
	MaxWork = 128 << 20
	// maxNesting bounds how deep kustomizations name each other.
	maxNesting = 32
)

// collector follows references and copies what it meets.
type collector struct {
	ctx   context.Context
	index index
	into  filesys.FileSystem
	files map[string]file
	// trail are the folders from the first to the one that is looked at.
	trail []string
	total load
}

// file is one that was copied.
type file struct {
	bytes     int
	documents []map[string]any
	// list is what a single document holds that is no object, as JSON patches and replacements are.
	list []any
}

// load is what a rendering costs.
type load struct {
	bytes, folders, objects int
}

func (l *load) add(more load) error {
	l.bytes, l.folders, l.objects = l.bytes+more.bytes, l.folders+more.folders, l.objects+more.objects
	for _, bound := range []struct {
		got, limit int
		what       string
	}{{l.bytes, MaxBytes, "bytes"}, {l.folders, MaxFolders, "kustomizations"}, {l.objects, MaxObjects, "objects"}} {
		if bound.got > bound.limit {
			return fmt.Errorf("with this, the rendering has more than %d %s, which is the limit: split it over several GitSyncs", bound.limit, bound.what)
		}
	}
	return nil
}

// folder follows the kustomization of a folder that was entered, and leaves it. It gives what its transformations meet and are.
func (c *collector) folder(folder string) (*layer, error) {
	defer func() { c.trail = c.trail[:len(c.trail)-1] }()
	name, err := c.index.kustomizationOf(folder)
	if err != nil {
		return nil, err
	}
	k, size, err := c.kustomization(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	here := &layer{component: k.Kind == types.ComponentKind, config: size}
	references, err := referencesOf(k)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, r := range references {
		if err := c.follow(here, folder, name, r); err != nil {
			return nil, err
		}
	}
	if err := c.inline(here, k, folder); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return here, nil
}

// enter goes one deeper. After an error nothing is followed any more.
func (c *collector) enter(folder string) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	if slices.Contains(c.trail, folder) {
		return fmt.Errorf("kustomizations name each other in a circle: %s → %s", strings.Join(c.trail, " → "), folder)
	}
	if c.trail = append(c.trail, folder); len(c.trail) > maxNesting {
		return fmt.Errorf("kustomizations name each other more than %d deep", maxNesting)
	}
	return c.total.add(load{folders: 1})
}

// kustomization reads a kustomization as kustomize will, and refuses what is not followed.
func (c *collector) kustomization(name string) (*types.Kustomization, int, error) {
	if _, err := c.regular(name); err != nil {
		return nil, 0, err
	}
	copied, err := c.copy(name, asConfiguration)
	if err != nil {
		return nil, 0, err
	}
	if len(copied.documents) != 1 {
		return nil, 0, errors.New("must be one YAML document with the fields of a kustomization")
	}
	if err := copied.checkPaths(); err != nil {
		return nil, 0, err
	}
	content, err := c.into.ReadFile("/" + name)
	if err != nil {
		return nil, 0, err
	}
	k := &types.Kustomization{}
	if err := k.Unmarshal(content); err != nil {
		return nil, 0, err
	}
	k.FixKustomization()
	if problems := k.EnforceFields(); len(problems) > 0 {
		return nil, 0, errors.New(strings.Join(problems, ", "))
	}
	return k, copied.bytes, refuseFields(k)
}

// follow takes what one reference names into the layer. Errors of what it leads to name their own file.
func (c *collector) follow(here *layer, folder, kustomization string, r reference) error {
	wrap := func(err error) error { return fmt.Errorf("%s: %s: %w", kustomization, r.field, err) }
	name, err := resolve(folder, r.value)
	if err != nil {
		return wrap(err)
	}
	isFolder := name == "."
	if !isFolder {
		entry, err := c.index.find(name)
		if err != nil {
			return wrap(err)
		}
		isFolder = entry.IsDir()
	}
	switch {
	case isFolder && r.reads != asManifest && r.reads != asComponent:
		return wrap(fmt.Errorf("%s is a folder: must be a file", name))
	case !isFolder && r.reads == asComponent:
		return wrap(fmt.Errorf("%s is a file: must be a folder with a component", name))
	case isFolder:
		if err := c.enter(name); err != nil {
			return wrap(err)
		}
		below, err := c.folder(name)
		if err != nil {
			return err
		}
		here.take(below)
		return nil
	}
	copied, err := c.copy(name, r.reads)
	if err != nil {
		return wrap(err)
	}
	if r.reads == asConfiguration {
		if err := copied.checkPaths(); err != nil {
			return wrap(fmt.Errorf("%s: %w", name, err))
		}
	}
	here.takeFile(copied, r.reads)
	return nil
}

func (c *collector) regular(name string) (int64, error) {
	entry, err := c.index.find(name)
	if err != nil {
		return 0, err
	}
	info, err := entry.Info()
	if err != nil {
		return 0, err
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is no file", name)
	}
	return info.Size(), nil
}

// copy reads a file once, and charges it each time.
func (c *collector) copy(name string, reads reads) (file, error) {
	key := name
	if reads == asData {
		key += "\x00" // the same file may be YAML elsewhere
	}
	copied, known := c.files[key]
	if !known {
		var err error
		if copied, err = c.read(name, reads); err != nil {
			return file{}, err
		}
		c.files[key] = copied
	}
	charge := load{bytes: copied.bytes}
	if reads == asManifest {
		charge.objects = len(copied.documents)
	}
	return copied, c.total.add(charge)
}

func (c *collector) read(name string, reads reads) (file, error) {
	size, err := c.regular(name)
	if err != nil {
		return file{}, err
	}
	if size > MaxFileBytes {
		return file{}, fmt.Errorf("%s has %d bytes: at most %d are allowed", name, size, MaxFileBytes)
	}
	content, err := c.index.tree.ReadFile(name)
	if err != nil {
		return file{}, err
	}
	if err := c.into.WriteFile("/"+name, content); err != nil {
		return file{}, fmt.Errorf("%s: %w", name, err)
	}
	if reads == asData {
		return file{bytes: len(content)}, nil
	}
	copied, err := parse(name, content)
	if err != nil {
		return file{}, fmt.Errorf("%s %w", name, err)
	}
	return copied, nil
}

// parse reads YAML strictly, since kustomize does not: what stands twice in it would be lost.
func parse(name string, content []byte) (file, error) {
	if !document.IsText(content) {
		return file{}, errors.New("is no text in UTF-8")
	}
	var parsed file
	next := document.Split(path.Base(name), content)
	for number := 1; ; number++ {
		encoded, err := next()
		if errors.Is(err, io.EOF) {
			return parsed, nil
		}
		var value any
		if err == nil {
			err = json.Unmarshal(encoded, &value)
		}
		if err != nil {
			return file{}, fmt.Errorf("(document %d): %w", number, err)
		}
		if parsed.bytes += len(encoded); parsed.bytes > MaxBytes {
			return file{}, fmt.Errorf("stands for more than %d bytes", MaxBytes)
		}
		if depthOf(value) > maxPath {
			return file{}, fmt.Errorf("(document %d): nests more than %d deep", number, maxPath)
		}
		parsed.take(value)
	}
}

// depthOf is how deep lists and mappings are nested.
func depthOf(value any) (deepest int) {
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			deepest = max(deepest, depthOf(item))
		}
	case map[string]any:
		for _, item := range value {
			deepest = max(deepest, depthOf(item))
		}
	default:
		return 0
	}
	return deepest + 1
}

// take adds a document's objects: itself, or the items of a list of objects, which kustomize takes apart.
func (f *file) take(value any) {
	switch value := value.(type) {
	case []any:
		f.list = append(f.list, value...)
	case map[string]any:
		items, isList := value["items"].([]any)
		if kind, _ := value["kind"].(string); !isList || !strings.HasSuffix(kind, "List") {
			f.documents = append(f.documents, value)
			return
		}
		for _, item := range items {
			f.take(item)
		}
	}
}
