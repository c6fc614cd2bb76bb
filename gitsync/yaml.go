package gitsync

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	yamlv3 "go.yaml.in/yaml/v3"
)

// maxNodes bounds a document with its aliases expanded; 1 MiB of manifest has fewer.
const maxNodes = 600_000

func utf8Text(content []byte) bool { return utf8.Valid(content) && !bytes.ContainsRune(content, 0) }

// checkYAML looks at a document's tree before its aliases are expanded, and refuses what would explode, and a second
// document that the line-wise splitting has overlooked and the decoder would drop in silence.
func checkYAML(document []byte) error {
	stream := yamlv3.NewDecoder(bytes.NewReader(document))
	var root yamlv3.Node
	if err := stream.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	if n := (&expansion{sizes: map[*yamlv3.Node]int{}}).size(&root); n > maxNodes {
		return fmt.Errorf("its aliases expand to more than %d nodes", maxNodes)
	}
	if err := stream.Decode(new(yamlv3.Node)); !errors.Is(err, io.EOF) {
		return errors.New("a second document begins in it: put --- on a line of its own")
	}
	return nil
}

// expansion counts the nodes of a tree as if each alias were a copy.
type expansion struct{ sizes map[*yamlv3.Node]int }

// size never exceeds maxNodes+1, which stands for all larger ones and for a node within itself.
func (e *expansion) size(node *yamlv3.Node) int {
	if node == nil {
		return 0
	}
	if n, known := e.sizes[node]; known {
		return n
	}
	e.sizes[node] = maxNodes + 1 // until it is counted
	n := 1 + e.size(node.Alias)
	for _, child := range node.Content {
		n = min(n+e.size(child), maxNodes+1)
	}
	n = min(n, maxNodes+1)
	e.sizes[node] = n
	return n
}
