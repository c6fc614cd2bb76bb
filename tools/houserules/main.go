package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

const (
	// maxLines of a Go file; generated ones are as long as they are.
	maxLines = 450
	// maxCRDBytes of a CRD's file. kubectl apply stores a copy of the object in an annotation, which has 256 KiB.
	maxCRDBytes = 200_000
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: houserules DIR")
		os.Exit(2)
	}
	broken, err := check(os.DirFS(os.Args[1]))
	if err != nil {
		fmt.Fprintln(os.Stderr, "houserules:", err)
		os.Exit(1)
	}
	for _, line := range broken {
		fmt.Println(line)
	}
	if len(broken) > 0 {
		os.Exit(1)
	}
}

// check returns a sentence for each rule that a file or package of the tree breaks, in the order of their paths.
func check(tree fs.FS) ([]string, error) {
	var broken []string
	packages := map[string]bool{}
	err := fs.WalkDir(tree, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if isForeign(name) {
				return fs.SkipDir
			}
			return nil
		}
		sentence, err := checkFile(tree, name, packages)
		if sentence != "" {
			broken = append(broken, sentence)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for directory := range packages {
		if _, err := fs.Stat(tree, path.Join(directory, "doc.go")); err != nil {
			broken = append(broken, directory+": the package has no doc.go: say there what it is for and what it must not know")
		}
	}
	slices.Sort(broken)
	return broken, nil
}

// isForeign tells of directories that hold no source of ours.
func isForeign(directory string) bool {
	name := path.Base(directory)
	return directory == "bin" || name == "testdata" || name == "node_modules" || (directory != "." && strings.HasPrefix(name, "."))
}

// checkFile returns what is wrong with a file, and notes the directories that hold packages.
func checkFile(tree fs.FS, name string, packages map[string]bool) (string, error) {
	isGo, isCRD := strings.HasSuffix(name, ".go"), strings.HasPrefix(name, "config/crd/")
	if !isGo && !isCRD {
		return "", nil
	}
	text, err := fs.ReadFile(tree, name)
	if err != nil {
		return "", err
	}
	if isCRD && len(text) > maxCRDBytes {
		return fmt.Sprintf("%s: %d bytes are more than %d: shorten descriptions in api/v1", name, len(text), maxCRDBytes), nil
	}
	if !isGo || strings.HasPrefix(path.Base(name), "zz_generated.") {
		return "", nil
	}
	packages[path.Dir(name)] = true
	if lines := bytes.Count(text, []byte("\n")); lines >= maxLines {
		return fmt.Sprintf("%s: %d lines are not below %d: split it by what it does", name, lines, maxLines), nil
	}
	return "", nil
}
