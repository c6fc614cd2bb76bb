package main

import (
	"bytes"

	"go.yaml.in/yaml/v3"
)

// flowWidth is the greatest sum of the lengths of the keys and values of a map or list that is written on one line.
const flowWidth = 80

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

// inline sets the flow style on maps and lists of few scalars.
func inline(node *yaml.Node) {
	width, scalars := 0, true
	for _, child := range node.Content {
		inline(child)
		width += len(child.Value)
		scalars = scalars && child.Kind == yaml.ScalarNode && child.Style&yaml.LiteralStyle == 0
	}
	if node.Kind != yaml.ScalarNode && scalars && width <= flowWidth {
		node.Style |= yaml.FlowStyle
	}
}
