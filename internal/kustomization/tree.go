package kustomization

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Tree is the files of a repository, such as os.DirFS gives them. Names are slash-separated and relative to its root, which is ".".
type Tree interface {
	// ReadDir lists a folder. A symbolic link in it is listed as one.
	ReadDir(name string) ([]fs.DirEntry, error)
	// ReadFile reads a file. It is asked for regular files of folders that were listed only.
	ReadFile(name string) ([]byte, error)
}

// FileNames are the names by which kustomize knows a kustomization.
var FileNames = []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}

// IsFileName tells whether a file of that name makes its folder a kustomization.
func IsFileName(name string) bool { return slices.Contains(FileNames, name) }

// index is a Tree that is listed once per folder.
type index struct {
	tree    Tree
	folders map[string]map[string]fs.DirEntry
}

func newIndex(tree Tree) index {
	return index{tree: tree, folders: map[string]map[string]fs.DirEntry{}}
}

func (x *index) list(folder string) (map[string]fs.DirEntry, error) {
	if known, ok := x.folders[folder]; ok {
		return known, nil
	}
	entries, err := x.tree.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	named := make(map[string]fs.DirEntry, len(entries))
	for _, entry := range entries {
		named[entry.Name()] = entry
	}
	x.folders[folder] = named
	return named, nil
}

// find looks name up, component by component, so that no symbolic link is followed on the way.
func (x *index) find(name string) (fs.DirEntry, error) {
	folder, parts := ".", strings.Split(name, "/")
	for i, part := range parts {
		entries, err := x.list(folder)
		if err != nil {
			return nil, err
		}
		entry, ok := entries[part]
		switch at := path.Join(folder, part); {
		case !ok:
			return nil, fmt.Errorf("%s is not in the repository", at)
		case entry.Type()&fs.ModeSymlink != 0:
			return nil, fmt.Errorf("%s is a symbolic link, which is not followed: name what it points to", at)
		case !entry.IsDir() && !entry.Type().IsRegular():
			return nil, fmt.Errorf("%s is neither a file nor a folder", at)
		case i == len(parts)-1:
			return entry, nil
		case !entry.IsDir():
			return nil, fmt.Errorf("%s is no folder", at)
		default:
			folder = at
		}
	}
	return nil, errors.New("names nothing")
}

// kustomizationOf gives the one kustomization file of a folder.
func (x *index) kustomizationOf(folder string) (string, error) {
	entries, err := x.list(folder)
	if err != nil {
		return "", err
	}
	var found []string
	for _, name := range FileNames {
		if _, ok := entries[name]; ok {
			found = append(found, name)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("folder %s has no kustomization.yaml", folder)
	case 1:
		return path.Join(folder, found[0]), nil
	default:
		return "", fmt.Errorf("folder %s has %s: keep one of them", folder, strings.Join(found, " and "))
	}
}

// resolve makes a reference that stands in a kustomization of folder a path of the repository.
func resolve(folder, reference string) (string, error) {
	switch {
	case reference == "":
		return "", errors.New("is empty: must name a file or folder")
	case looksRemote(reference):
		return "", fmt.Errorf("%q is or looks like a remote address, and nothing remote is fetched: copy it into the repository (a local name like this one is written ./%s)", reference, reference)
	case path.IsAbs(reference):
		return "", fmt.Errorf("%q is absolute: must be relative to the kustomization", reference)
	case strings.ContainsAny(reference, "\\\x00\n\r"):
		return "", fmt.Errorf("%q is no name of a file or folder", reference)
	}
	name := path.Join(folder, reference)
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", fmt.Errorf("%q leaves the repository: must be a file or folder of it", reference)
	}
	return name, nil
}

// looksRemote is wider than what kustomize itself would fetch or clone: it decides by the name, even of a file that is there.
func looksRemote(reference string) bool {
	if strings.HasPrefix(reference, "./") || strings.HasPrefix(reference, "../") {
		return false
	}
	return strings.ContainsAny(reference, ":@?") || strings.HasPrefix(strings.ToLower(reference), "github.com")
}
