package manifest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxBytes of one file; larger ones are no manifests.
const maxBytes = 16 << 20

// Load reads files, folders and, as "-", a stream. Of a folder it reads what GitSync would: what ends in .yaml, .yml or .json and does
// not begin with a dot, below it too if recursive; a folder with a kustomization is rendered instead. What can be read is returned
// beside an error that joins one *FileError for each place that can not.
func Load(ctx context.Context, names []string, recursive bool, stdin io.Reader) ([]Object, error) {
	var objects []Object
	var failures []error
	for _, name := range names {
		files, err := filesOf(name, recursive)
		if err != nil {
			failures = append(failures, err)
		}
		for _, file := range files {
			found, err := load(ctx, file, stdin)
			objects = append(objects, found...)
			if err != nil {
				failures = append(failures, err)
			}
		}
	}
	return objects, errors.Join(failures...)
}

func load(ctx context.Context, name string, stdin io.Reader) ([]Object, error) {
	if name != "-" && IsKustomization(name) {
		return Kustomize(ctx, name)
	}
	return loadFile(name, stdin)
}

func loadFile(name string, stdin io.Reader) ([]Object, error) {
	source, shown := stdin, "stdin"
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, &FileError{Position{File: name}, rootCause(err)}
		}
		defer func() { _ = file.Close() }()
		source, shown = file, name
	}
	content, err := io.ReadAll(io.LimitReader(source, maxBytes+1))
	if err == nil && len(content) > maxBytes {
		err = fmt.Errorf("more than %d bytes: this is no manifest", maxBytes)
	}
	if err != nil {
		return nil, &FileError{Position{File: shown}, err}
	}
	return Read(shown, content)
}

// filesOf lists the files, and the folders with a kustomization, that a name stands for, sorted.
func filesOf(name string, recursive bool) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, &FileError{Position{File: name}, rootCause(err)}
	}
	if !info.IsDir() {
		return []string{name}, nil
	}
	var files []string
	folder := filepath.Clean(name) + string(filepath.Separator) // so that a link to a folder is followed, when it was named
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != folder && (!recursive || strings.HasPrefix(entry.Name(), ".")):
			return filepath.SkipDir
		case entry.IsDir() && IsKustomization(path):
			files = append(files, filepath.Clean(path))
			return filepath.SkipDir
		case isManifest(path, entry):
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return nil, &FileError{Position{File: name}, err}
	}
	if len(files) == 0 {
		return nil, &FileError{Position{File: name}, errors.New("no .yaml, .yml or .json file in this folder (-R looks below it)")}
	}
	return files, nil
}

// isManifest tells whether an entry of a folder is read. A link is, to whatever it leads; a pipe would never end.
func isManifest(path string, entry fs.DirEntry) bool {
	if strings.HasPrefix(entry.Name(), ".") || !slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(path))) {
		return false
	}
	if entry.Type()&fs.ModeSymlink == 0 {
		return entry.Type().IsRegular()
	}
	info, err := os.Stat(path)
	return err != nil || info.Mode().IsRegular()
}

func rootCause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
