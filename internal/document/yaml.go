package document

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"
	"unicode/utf8"

	yamlv3 "go.yaml.in/yaml/v3"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

const (
	// maxNodes bounds a document with its aliases expanded; 1 MiB of manifest has fewer.
	maxNodes = 600_000
	// maxGrowth bounds by how many bytes aliases may make a document longer: a few nodes may hold long texts.
	maxGrowth = 8 << 20
)

// IsText tells whether content is UTF-8 without a NUL, as each manifest must be.
func IsText(content []byte) bool { return utf8.Valid(content) && !bytes.ContainsRune(content, 0) }

// Split returns a function that gives the documents of a file as JSON, one by one, and then io.EOF. A file whose name ends in .json
// is a stream of JSON values, any other one YAML. A document of comments alone is given as null, so that documents can be counted.
func Split(name string, content []byte) func() ([]byte, error) {
	if strings.EqualFold(path.Ext(name), ".json") {
		stream := json.NewDecoder(bytes.NewReader(content))
		return func() ([]byte, error) {
			var document json.RawMessage
			err := stream.Decode(&document)
			return document, err
		}
	}
	stream := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content)))
	return func() ([]byte, error) {
		document, err := stream.Read()
		if err != nil {
			return nil, err
		}
		if err := Check(document); err != nil {
			return nil, err
		}
		encoded, err := yaml.YAMLToJSONStrict(document)
		return encoded, withoutValues(err)
	}
}

// What the parser quotes of a document. A password that begins with * is an alias to it.
var (
	quotedAlias = regexp.MustCompile(`unknown anchor '[^']*' referenced`)
	quotedValue = regexp.MustCompile("`[^`]*`")
	quotedKey   = regexp.MustCompile(`(?s)invalid map key: .*`)
)

// withoutValues is an error of the parser without the values that it quotes, since a manifest may hold secrets, and its errors are for
// more people than that.
func withoutValues(err error) error {
	if err == nil {
		return nil
	}
	text := quotedAlias.ReplaceAllLiteralString(err.Error(), "an alias to an anchor that is not there: put a value that begins with * in quotes")
	text = quotedValue.ReplaceAllLiteralString(text, "a value")
	text = quotedKey.ReplaceAllLiteralString(text, "a key is no text: put it in quotes")
	if text == err.Error() {
		return err
	}
	return errors.New(text)
}

// Check looks at the tree of a document in YAML before its aliases are expanded, and refuses what would explode, and a second
// document that the line-wise splitting has overlooked and the decoder would drop in silence.
func Check(document []byte) error {
	stream := yamlv3.NewDecoder(bytes.NewReader(document))
	var root yamlv3.Node
	if err := stream.Decode(&root); err != nil {
		if errors.Is(err, io.EOF) {
			return nil
		}
		return withoutValues(err)
	}
	e := &expansion{sizes: map[*yamlv3.Node]size{}, most: size{maxNodes + 1, len(document) + maxGrowth + 1}}
	switch whole := e.size(&root); {
	case whole.nodes >= e.most.nodes:
		return fmt.Errorf("its aliases expand to more than %d nodes", maxNodes)
	case whole.bytes >= e.most.bytes:
		return fmt.Errorf("its aliases make it more than %d bytes longer", maxGrowth)
	}
	var second yamlv3.Node
	switch err := stream.Decode(&second); {
	case err == nil:
		return fmt.Errorf("line %d: a second document begins in it: put --- on a line of its own", second.Line)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("a second document begins in it: put --- on a line of its own (%w)", err)
	}
	return nil
}

// size of a tree as if each alias were a copy: its nodes, and the bytes of their texts.
type size struct{ nodes, bytes int }

// expansion measures trees.
type expansion struct {
	sizes map[*yamlv3.Node]size
	// most stands for all that is larger, and for a node within itself.
	most size
}

func (e *expansion) size(node *yamlv3.Node) size {
	if node == nil {
		return size{}
	}
	if known, ok := e.sizes[node]; ok {
		return known
	}
	e.sizes[node] = e.most // until it is counted
	whole := e.add(size{1, len(node.Value)}, e.size(node.Alias))
	for _, child := range node.Content {
		whole = e.add(whole, e.size(child))
	}
	e.sizes[node] = whole
	return whole
}

func (e *expansion) add(a, b size) size {
	return size{min(a.nodes+b.nodes, e.most.nodes), min(a.bytes+b.bytes, e.most.bytes)}
}
