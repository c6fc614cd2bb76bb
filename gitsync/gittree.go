package gitsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

// gitTree is the tree of one commit. It lists each folder once, and maxEntries files and folders in all.
type gitTree struct {
	ctx     context.Context
	objects storer.EncodedObjectStorer
	root    plumbing.Hash
	folders map[string]*object.Tree
	entries int
}

func newGitTree(ctx context.Context, objects storer.EncodedObjectStorer, root plumbing.Hash) *gitTree {
	return &gitTree{ctx: ctx, objects: objects, root: root, folders: map[string]*object.Tree{}}
}

// ReadDir lists a folder in Git's order.
func (t *gitTree) ReadDir(name string) ([]fs.DirEntry, error) {
	tree, err := t.folder(name)
	if err != nil {
		return nil, err
	}
	entries := make([]fs.DirEntry, len(tree.Entries))
	for i := range tree.Entries {
		entries[i] = gitEntry{t, tree.Entries[i]}
	}
	return entries, nil
}

// ReadFile reads a blob.
func (t *gitTree) ReadFile(name string) ([]byte, error) {
	entry, err := t.entry(name)
	if err != nil {
		return nil, err
	}
	blob, err := object.GetBlob(t.objects, entry.Hash)
	if err != nil {
		return nil, err
	}
	return readBlob(blob)
}

// folder reads a tree object below those of the folders on the way to it.
func (t *gitTree) folder(name string) (*object.Tree, error) {
	if known, ok := t.folders[name]; ok {
		return known, nil
	}
	if err := t.ctx.Err(); err != nil {
		return nil, err
	}
	hash := t.root
	if name != "." {
		entry, err := t.entry(name)
		if err != nil {
			return nil, err
		}
		hash = entry.Hash
	}
	tree, err := object.GetTree(t.objects, hash)
	if err != nil {
		return nil, err
	}
	if t.entries += len(tree.Entries); t.entries > maxEntries {
		return nil, fmt.Errorf("more than %d files and folders below the path", maxEntries)
	}
	t.folders[name] = tree
	return tree, nil
}

func (t *gitTree) entry(name string) (*object.TreeEntry, error) {
	parent, err := t.folder(path.Dir(name))
	if err != nil {
		return nil, err
	}
	for i := range parent.Entries {
		if parent.Entries[i].Name == path.Base(name) {
			return &parent.Entries[i], nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func readBlob(blob *object.Blob) (content []byte, err error) {
	r, err := blob.Reader()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return io.ReadAll(r)
}

// gitEntry is a tree's entry as fs.DirEntry and fs.FileInfo.
type gitEntry struct {
	tree  *gitTree
	entry object.TreeEntry
}

func (e gitEntry) Name() string      { return e.entry.Name }
func (e gitEntry) IsDir() bool       { return e.entry.Mode == filemode.Dir }
func (e gitEntry) Mode() fs.FileMode { return e.Type() }
func (gitEntry) ModTime() time.Time  { return time.Time{} }
func (gitEntry) Sys() any            { return nil }

// Type is irregular for what is no file, folder or link, such as a submodule.
func (e gitEntry) Type() fs.FileMode {
	switch e.entry.Mode {
	case filemode.Dir:
		return fs.ModeDir
	case filemode.Regular, filemode.Executable, filemode.Deprecated:
		return 0
	case filemode.Symlink:
		return fs.ModeSymlink
	default:
		return fs.ModeIrregular
	}
}

// Info fails where the commit lacks the object.
func (e gitEntry) Info() (fs.FileInfo, error) {
	_, err := e.tree.objects.EncodedObjectSize(e.entry.Hash)
	return e, err
}

// Size is 0 where Info failed.
func (e gitEntry) Size() int64 {
	size, _ := e.tree.objects.EncodedObjectSize(e.entry.Hash)
	return size
}
