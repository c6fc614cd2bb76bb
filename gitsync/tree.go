package gitsync

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"sluice.dev/sluice/internal/kustomization"
)

const (
	// MaxFileBytes bounds one manifest file.
	MaxFileBytes = 1 << 20
	// MaxTotalBytes bounds all manifest files of a revision.
	MaxTotalBytes = 32 << 20
	// MaxDocuments bounds the YAML documents of a revision, and so its files.
	MaxDocuments = 10_000
	// maxEntries bounds the tree entries that are looked at: a tree may name one subtree many times over.
	maxEntries = 200_000
	// maxDepth bounds how deep folders nest.
	maxDepth = 64
)

// ReadFiles returns the manifest files below folder of tree, in the order of their paths; "" or "." is its root. A folder with a
// kustomization is rendered, and gives its objects instead; so is one below a folder of plain manifests, as a thing of its own.
// Symbolic links and submodules are not followed; names that begin with a dot, where tools keep their own settings, are left out.
func ReadFiles(ctx context.Context, tree kustomization.Tree, folder string) ([]File, error) {
	if err := checkFolder(tree, folder); err != nil {
		return nil, err
	}
	w := &walk{ctx: ctx, tree: tree}
	if err := w.folder(path.Clean(folder), 0); err != nil {
		return nil, err
	}
	return w.files, nil
}

// checkFolder looks folder up, component by component.
func checkFolder(tree kustomization.Tree, folder string) error {
	at := "."
	for part := range strings.SplitSeq(path.Clean(folder), "/") {
		if part == "." {
			continue
		}
		entries, err := tree.ReadDir(at)
		if err != nil {
			return fmt.Errorf("path %q: %w", folder, err)
		}
		i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() == part })
		switch {
		case i < 0:
			return fmt.Errorf("path %q is not there: no %q in the repository", folder, part)
		case entries[i].Type()&fs.ModeSymlink != 0:
			return fmt.Errorf("path %q: %q is a symbolic link, which is not followed: name the folder itself", folder, part)
		case !entries[i].IsDir():
			return fmt.Errorf("path %q: %q is no folder", folder, part)
		}
		at = path.Join(at, part)
	}
	return nil
}

type walk struct {
	ctx   context.Context
	tree  kustomization.Tree
	bytes int64
	files []File
}

func (w *walk) folder(at string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: folders nest deeper than %d", at, maxDepth)
	}
	entries, err := w.tree.ReadDir(at)
	if err != nil {
		return fmt.Errorf("folder %q: %w", at, err)
	}
	if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return kustomization.IsFileName(e.Name()) }) {
		return w.render(at)
	}
	for _, entry := range entries {
		if err := w.entry(entry, at, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(entry fs.DirEntry, at string, depth int) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if strings.ContainsAny(entry.Name(), "/\\\x00") {
		return fmt.Errorf("folder %q: the name %q is refused", at, entry.Name())
	}
	if strings.HasPrefix(entry.Name(), ".") {
		return nil
	}
	name := path.Join(at, entry.Name())
	switch {
	case entry.IsDir():
		return w.folder(name, depth+1)
	case entry.Type().IsRegular() && isManifest(entry.Name()):
		return w.file(entry, name)
	default: // no manifest, a symbolic link or a submodule
		return nil
	}
}

func (w *walk) file(entry fs.DirEntry, name string) error {
	info, err := entry.Info()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if info.Size() > MaxFileBytes {
		return fmt.Errorf("%s has %d bytes: at most %d are allowed", name, info.Size(), MaxFileBytes)
	}
	if err := w.grow(name, info.Size()); err != nil {
		return err
	}
	content, err := w.tree.ReadFile(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w.files = append(w.files, File{Path: name, Content: content})
	return nil
}

func (w *walk) grow(name string, size int64) error {
	w.bytes += size
	switch {
	case w.bytes > MaxTotalBytes:
		return fmt.Errorf("%s: the manifests below the path are over %d bytes together", name, MaxTotalBytes)
	case len(w.files) == MaxDocuments:
		return fmt.Errorf("%s: more than %d manifest files below the path", name, MaxDocuments)
	}
	return nil
}

func (w *walk) render(folder string) error {
	rendered, err := kustomization.Render(w.ctx, w.tree, folder)
	if err != nil {
		return err
	}
	for _, object := range rendered.Objects {
		if err := w.grow(rendered.File, int64(len(object))); err != nil {
			return err
		}
		w.files = append(w.files, File{Path: rendered.File, Content: object, Rendered: true})
	}
	return nil
}

func isManifest(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
