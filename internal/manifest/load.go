package manifest

import (
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

// Load reads files, folders and, as "-", a stream. Of a folder it reads what ends in .yaml, .yml or .json, below it too if
// recursive. What can be read is returned beside an error that joins one *FileError for each place that can not.
func Load(names []string, recursive bool, stdin io.Reader) ([]Object, error) {
	var objects []Object
	var failures []error
	for _, name := range names {
		files, err := filesOf(name, recursive)
		if err != nil {
			failures = append(failures, err)
		}
		for _, file := range files {
			found, err := loadFile(file, stdin)
			objects = append(objects, found...)
			if err != nil {
				failures = append(failures, err)
			}
		}
	}
	return objects, errors.Join(failures...)
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

// filesOf lists the files that a name stands for, sorted.
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
	err = filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != name && !recursive:
			return filepath.SkipDir
		case !entry.IsDir() && slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(path))):
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		return nil, &FileError{Position{File: name}, err}
	}
	if len(files) == 0 {
		return nil, &FileError{Position{File: name}, errors.New("no .yaml, .yml or .json file in this folder (-R looks below it, -k reads a kustomization)")}
	}
	return files, nil
}

func rootCause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
