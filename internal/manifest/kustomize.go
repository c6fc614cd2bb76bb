package manifest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice.dev/sluice/internal/kustomization"
)

// diskTree is the files below a root, as they are rendered. It remembers what was read.
type diskTree struct {
	fs.FS
	root string
	read []string
}

// ReadDir implements kustomization.Tree.
func (t *diskTree) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(t.FS, name) }

// ReadFile implements kustomization.Tree.
func (t *diskTree) ReadFile(name string) ([]byte, error) {
	t.read = append(t.read, name)
	return fs.ReadFile(t.FS, name)
}

// sources are the objects of the files that were read, as they stand there.
func (t *diskTree) sources() []Object {
	var objects []Object
	for _, name := range t.read {
		content, err := fs.ReadFile(t.FS, name)
		if err != nil || kustomization.IsFileName(filepath.Base(name)) {
			continue
		}
		path := filepath.Join(t.root, filepath.FromSlash(name))
		if here, err := os.Getwd(); err == nil {
			if short, err := filepath.Rel(here, path); err == nil {
				path = short
			}
		}
		found, _ := Read(path, content) // what is no object, such as a patch, is left out
		objects = append(objects, found...)
	}
	return objects
}

// sourceOf is where a rendered object comes from: the only object of its kind whose name is its own, or a part of it, since
// prefixes and suffixes may have been added.
func sourceOf(rendered Object, sources []Object) (Object, bool) {
	for _, same := range []func(a, b string) bool{func(a, b string) bool { return a == b }, strings.Contains} {
		var candidates []Object
		for _, s := range sources {
			if s.GroupVersionKind().GroupKind() == rendered.GroupVersionKind().GroupKind() && same(rendered.GetName(), s.GetName()) {
				candidates = append(candidates, s)
			}
		}
		if len(candidates) == 1 {
			return candidates[0], true
		}
	}
	return Object{}, false
}

// IsKustomization tells whether a folder holds a kustomization.
func IsKustomization(folder string) bool {
	for _, name := range kustomization.FileNames {
		if info, err := os.Stat(filepath.Join(folder, name)); err == nil && !info.IsDir() {
			return true
		}
	}
	return false
}

// Kustomize renders the kustomization of a folder as GitSync does: what leaves the repository is refused. Objects stand in the
// files that they come from, where that can be told, else in the kustomization's, without a line.
func Kustomize(ctx context.Context, folder string) ([]Object, error) {
	if info, err := os.Stat(folder); err == nil && !info.IsDir() {
		return nil, &FileError{Position{File: folder}, errors.New("this is no folder: name the one with the kustomization")}
	}
	root, within, err := repositoryOf(folder)
	if err != nil {
		return nil, &FileError{Position{File: folder}, rootCause(err)}
	}
	tree := &diskTree{FS: os.DirFS(root), root: root}
	rendered, err := kustomization.Render(ctx, tree, within)
	if err != nil {
		return nil, &FileError{Position{File: folder}, err}
	}
	file := filepath.Join(folder, filepath.Base(rendered.File))
	sources := tree.sources()
	var objects []Object
	for _, content := range rendered.Objects {
		found, err := Read(file, content)
		if err != nil {
			return nil, fmt.Errorf("rendered by %s: %w", file, err)
		}
		for _, o := range found {
			o.node = nil
			if source, ok := sourceOf(o, sources); ok {
				o.File, o.node, o.offset = source.File, source.node, source.offset
			}
			objects = append(objects, o)
		}
	}
	return objects, nil
}

// repositoryOf is the folder with .git around another one, or where there is none the root of all files, and the way to the
// folder from there.
func repositoryOf(folder string) (root, within string, err error) {
	absolute, err := filepath.Abs(folder)
	if err != nil {
		return "", "", err
	}
	if absolute, err = filepath.EvalSymlinks(absolute); err != nil {
		return "", "", err
	}
	root = absolute
	for {
		if _, err := os.Stat(filepath.Join(root, ".git")); err == nil {
			break
		}
		parent := filepath.Dir(root)
		if parent == root {
			break
		}
		root = parent
	}
	within, err = filepath.Rel(root, absolute)
	return root, strings.TrimPrefix(filepath.ToSlash(within), "./"), err
}
