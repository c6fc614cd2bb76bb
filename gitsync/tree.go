package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
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

// readFiles returns the manifest files below folder, in the order of their paths. Symbolic links and submodules are not
// followed; names that begin with a dot, where tools keep their own settings, are left out.
func readFiles(ctx context.Context, objects storer.EncodedObjectStorer, root plumbing.Hash, folder string) ([]File, error) {
	start, err := descend(objects, root, folder)
	if err != nil {
		return nil, err
	}
	w := &walk{ctx: ctx, objects: objects}
	if err := w.folder(start, folder, 0); err != nil {
		return nil, err
	}
	return w.files, nil
}

// descend finds the tree of folder, component by component.
func descend(objects storer.EncodedObjectStorer, root plumbing.Hash, folder string) (plumbing.Hash, error) {
	if folder == "" {
		return root, nil
	}
	hash := root
	for part := range strings.SplitSeq(folder, "/") {
		tree, err := object.GetTree(objects, hash)
		if err != nil {
			return plumbing.ZeroHash, fmt.Errorf("path %q: %w", folder, err)
		}
		entry := entryOf(tree, part)
		switch {
		case entry == nil:
			return plumbing.ZeroHash, fmt.Errorf("path %q is not there: no %q in the repository", folder, part)
		case entry.Mode == filemode.Symlink:
			return plumbing.ZeroHash, fmt.Errorf("path %q: %q is a symbolic link, which is not followed: name the folder itself", folder, part)
		case entry.Mode != filemode.Dir:
			return plumbing.ZeroHash, fmt.Errorf("path %q: %q is no folder", folder, part)
		}
		hash = entry.Hash
	}
	return hash, nil
}

func entryOf(tree *object.Tree, name string) *object.TreeEntry {
	for i := range tree.Entries {
		if tree.Entries[i].Name == name {
			return &tree.Entries[i]
		}
	}
	return nil
}

type walk struct {
	ctx     context.Context
	objects storer.EncodedObjectStorer
	entries int
	bytes   int64
	files   []File
}

func (w *walk) folder(hash plumbing.Hash, at string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: folders nest deeper than %d", at, maxDepth)
	}
	tree, err := object.GetTree(w.objects, hash)
	if err != nil {
		return fmt.Errorf("folder %q: %w", at, err)
	}
	for _, entry := range tree.Entries {
		if err := w.entry(entry, at, depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(entry object.TreeEntry, at string, depth int) error {
	if w.entries++; w.entries > maxEntries {
		return fmt.Errorf("more than %d files and folders below the path", maxEntries)
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	if strings.ContainsAny(entry.Name, "/\\\x00") {
		return fmt.Errorf("folder %q: the name %q is refused", at, entry.Name)
	}
	if strings.HasPrefix(entry.Name, ".") {
		return nil
	}
	name := path.Join(at, entry.Name)
	switch entry.Mode {
	case filemode.Dir:
		return w.folder(entry.Hash, name, depth+1)
	case filemode.Regular, filemode.Executable, filemode.Deprecated:
		return w.file(entry, name)
	default: // a symbolic link or a submodule
		return nil
	}
}

func (w *walk) file(entry object.TreeEntry, name string) error {
	if isKustomization(entry.Name) {
		return fmt.Errorf("%s: kustomizations do not work yet: set spec.path to a folder of plain manifests", name)
	}
	if !isManifest(entry.Name) {
		return nil
	}
	blob, err := object.GetBlob(w.objects, entry.Hash)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w.bytes += blob.Size
	switch {
	case blob.Size > MaxFileBytes:
		return fmt.Errorf("%s has %d bytes: at most %d are allowed", name, blob.Size, MaxFileBytes)
	case w.bytes > MaxTotalBytes:
		return fmt.Errorf("%s: the manifests below the path are over %d bytes together", name, MaxTotalBytes)
	case len(w.files) == MaxDocuments:
		return fmt.Errorf("%s: more than %d manifest files below the path", name, MaxDocuments)
	}
	content, err := readBlob(blob)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	w.files = append(w.files, File{Path: name, Content: content})
	return nil
}

func readBlob(blob *object.Blob) (content []byte, err error) {
	r, err := blob.Reader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

func isManifest(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

func isKustomization(name string) bool {
	return name == "kustomization.yaml" || name == "kustomization.yml" || name == "Kustomization"
}
