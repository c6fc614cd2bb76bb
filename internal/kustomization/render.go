package kustomization

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sync/semaphore"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// Rendered is what a kustomization comes to.
type Rendered struct {
	// File is the path of the kustomization from the tree's root.
	File string
	// Objects are JSON, in kustomize's order.
	Objects [][]byte
}

// ErrNoTurn is a rendering that had no time left when it was its turn.
var ErrNoTurn = errors.New("its rendering waited in vain until other ones had ended: it is tried again")

// turn lets one rendering run at a time: kustomize keeps the schema that it merges by in a global variable.
var turn = semaphore.NewWeighted(1)

// Render renders the kustomization of a folder of tree; "." is its root. Errors name the kustomization and, where one is at fault, its
// field. ctx bounds the wait for other renderings and the reading; what comes after is bounded by the limits of this package.
func Render(ctx context.Context, tree Tree, folder string) (rendered Rendered, err error) {
	defer func() {
		if crash := recover(); crash != nil {
			err = fmt.Errorf("%s: kustomize gave up: %w", path.Join(folder, FileNames[0]), withoutContent(fmt.Errorf("%v", crash)))
		}
	}()
	files := filesys.MakeFsInMemory()
	c := &collector{ctx: ctx, index: newIndex(tree), into: files, files: map[string]file{}}
	if rendered.File, err = c.index.kustomizationOf(folder); err != nil {
		return rendered, err
	}
	if err := c.enter(folder); err != nil {
		return rendered, fmt.Errorf("%s: %w", rendered.File, err)
	}
	top, err := c.folder(folder)
	if err != nil {
		return rendered, err
	}
	if top.component {
		return rendered, fmt.Errorf("%s: kind: a Component is rendered as part of a kustomization only", rendered.File)
	}
	if top.settle() > MaxWork {
		return rendered, fmt.Errorf("%s: %w", rendered.File, errTooMuch)
	}
	if err := top.checkTime(); err != nil {
		return rendered, fmt.Errorf("%s: %w", rendered.File, err)
	}
	if err := turn.Acquire(ctx, 1); err != nil {
		return rendered, fmt.Errorf("%s: %w", rendered.File, ErrNoTurn)
	}
	defer turn.Release(1)
	rendered.Objects, err = build(files, "/"+folder)
	if err != nil {
		return rendered, fmt.Errorf("%s: %w", rendered.File, err)
	}
	return rendered, nil
}

// build runs kustomize over files, which hold nothing that was not looked at.
func build(files filesys.FileSystem, folder string) ([][]byte, error) {
	defer guardLog()()
	options := krusty.MakeDefaultOptions()
	options.LoadRestrictions = types.LoadRestrictionsNone // files of other folders: all that there are may be read
	built, err := krusty.MakeKustomizer(options).Run(files, path.Clean(folder))
	if err != nil {
		return nil, withoutContent(err)
	}
	return encode(built)
}

// withoutContent is an error of kustomize without what it quotes of patches and literals, which may be secret.
func withoutContent(err error) error {
	message := err.Error()
	switch {
	case strings.Contains(message, "unable to parse SM or JSON patch"):
		return errors.New("a patch is neither a JSON patch nor a strategic merge patch, which has apiVersion, kind and metadata.name")
	case strings.Contains(message, "invalid literal source"):
		return errors.New("a literal of configMapGenerator or secretGenerator is not key=value")
	case strings.Contains(message, " has invalid utf8 bytes"):
		return errors.New("a file of envs of configMapGenerator or secretGenerator has a line that is no text in UTF-8")
	}
	for _, quoting := range []string{": node contents:", " in object ", " for the following resource:"} {
		if before, _, quotes := strings.Cut(message, quoting); quotes {
			return errors.New(before)
		}
	}
	before, rest, found := strings.Cut(message, " with config: `")
	if end := strings.LastIndex(rest, "`: "); found && end >= 0 {
		return errors.New(before + rest[end+1:])
	}
	return err
}

func encode(built resmap.ResMap) ([][]byte, error) {
	const most = 32 << 20
	var objects [][]byte
	total := 0
	for _, object := range built.Resources() {
		encoded, err := object.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("%s %s is no JSON: %w", object.GetKind(), object.GetName(), err)
		}
		if total += len(encoded); total > most {
			return nil, fmt.Errorf("renders to more than %d bytes", most)
		}
		objects = append(objects, encoded)
	}
	return objects, nil
}

// guardLog keeps kustomize from ending the process with log.Fatal, which it does for some content, for as long as the function that it
// returns was not called.
func guardLog() func() {
	before := log.Writer()
	log.SetOutput(fatalGuard{before})
	return func() { log.SetOutput(before) }
}

type fatalGuard struct{ io.Writer }

// Write turns what log.Fatal would print before it exits into a panic, where kustomize called it, and passes on everything else.
func (g fatalGuard) Write(text []byte) (int, error) {
	const deepest = 16
	callers := make([]uintptr, deepest)
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers)])
	fatal := false
	for {
		frame, more := frames.Next()
		fatal = fatal || strings.HasPrefix(frame.Function, "log.Fatal")
		if fatal && strings.HasPrefix(frame.Function, "sigs.k8s.io/kustomize/") {
			panic(errors.New(strings.TrimSpace(string(text))))
		}
		if !more {
			return g.Writer.Write(text)
		}
	}
}
