package manifest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice.dev/sluice/internal/kustomization"
)

// diskTree is the files below a root, as they are rendered.
type diskTree struct{ fs.FS }

// ReadDir implements kustomization.Tree.
func (t diskTree) ReadDir(name string) ([]fs.DirEntry, error) { return fs.ReadDir(t.FS, name) }

// ReadFile implements kustomization.Tree.
func (t diskTree) ReadFile(name string) ([]byte, error) { return fs.ReadFile(t.FS, name) }

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
// kustomization's file, without a line.
func Kustomize(ctx context.Context, folder string) ([]Object, error) {
	root, within, err := repositoryOf(folder)
	if err != nil {
		return nil, &FileError{Position{File: folder}, rootCause(err)}
	}
	rendered, err := kustomization.Render(ctx, diskTree{os.DirFS(root)}, within)
	if err != nil {
		return nil, &FileError{Position{File: folder}, err}
	}
	file := filepath.Join(folder, filepath.Base(rendered.File))
	var objects []Object
	for _, content := range rendered.Objects {
		found, err := Read(file, content)
		if err != nil {
			return nil, fmt.Errorf("rendered by %s: %w", file, err)
		}
		for _, o := range found {
			o.node = nil
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
