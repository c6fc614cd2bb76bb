package main

import (
	"bytes"

	"go.yaml.in/yaml/v3"
)

// flowWidth is the greatest length, about, of a map or list that is written on one line.
const flowWidth = 160

// format writes an object as YAML with sorted keys, small maps and lists on one line: a schema is mostly leaves, and
// indentation would otherwise be the greater part of the file.
func format(object map[string]any) ([]byte, error) {
	var document yaml.Node
	if err := document.Encode(object); err != nil {
		return nil, err
	}
	inline(&document)
	var text bytes.Buffer
	text.WriteString("---\n")
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	encoder.CompactSeqIndent()
	if err := encoder.Encode(&document); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

// inline sets the flow style on maps and lists that are short enough with all that they hold. It returns the width of the
// node's text, and whether that may stand on one line.
func inline(node *yaml.Node) (width int, fits bool) {
	width, fits = len(node.Value), node.Style&yaml.LiteralStyle == 0
	for _, child := range node.Content {
		inner, short := inline(child)
		width, fits = width+inner+len(", "), fits && short
	}
	fits = fits && (node.Kind == yaml.ScalarNode || width <= flowWidth)
	if fits && node.Kind != yaml.ScalarNode {
		node.Style |= yaml.FlowStyle
	}
	return width, fits
}
