package manifest

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Object is one object and where it stands.
type Object struct {
	*unstructured.Unstructured
	// File as it was given; empty for what came from a cluster.
	File string
	// node of the object in its document, which begins after offset lines of the file.
	node   *yaml.Node
	offset int
}

// Position is a place in a file. Line and Column count from 1, 0: not known.
type Position struct {
	File   string `json:"file,omitempty"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// String is "file:line:column" as far as it is known.
func (p Position) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.File == "":
		return fmt.Sprintf("%d:%d", p.Line, p.Column)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Ref names the object: "Rollout reviews".
func (o Object) Ref() string { return o.GetKind() + " " + o.GetName() }

// At is where a field stands, given by its path such as spec.steps[2].weight. Of a field that is not there it is the nearest one
// around it that is.
func (o Object) At(path string) Position {
	p := Position{File: o.File}
	if o.node == nil {
		return p
	}
	at := o.node
	for _, element := range splitPath(path) {
		next := child(at, element)
		if next == nil {
			break
		}
		at = next
	}
	p.Line, p.Column = at.Line+o.offset, at.Column
	return p
}

// child is the key of a mapping or the item of a sequence. A key's node stands for the field; what it holds is found through
// its value, which follows it.
func child(node *yaml.Node, element string) *yaml.Node {
	node = valueOf(node)
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == element {
				return &yaml.Node{
					Kind: yaml.DocumentNode, Line: node.Content[i].Line, Column: node.Content[i].Column,
					Content: []*yaml.Node{node.Content[i+1]},
				}
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(element); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i]
		}
	}
	return nil
}

// valueOf goes through documents, keys and aliases to what they hold.
func valueOf(node *yaml.Node) *yaml.Node {
	for {
		switch {
		case node.Kind == yaml.DocumentNode && len(node.Content) > 0:
			node = node.Content[0]
		case node.Kind == yaml.AliasNode && node.Alias != nil:
			node = node.Alias
		default:
			return node
		}
	}
}

// splitPath takes a field path apart: names between dots, indices and keys in brackets.
func splitPath(path string) []string {
	var elements []string
	for path != "" {
		switch path[0] {
		case '.':
			path = path[1:]
		case '[':
			end := strings.IndexByte(path, ']')
			if end < 0 {
				return elements
			}
			elements = append(elements, strings.Trim(path[1:end], `"'`))
			path = path[end+1:]
		default:
			end := strings.IndexAny(path, ".[")
			if end < 0 {
				end = len(path)
			}
			elements = append(elements, path[:end])
			path = path[end:]
		}
	}
	return elements
}
