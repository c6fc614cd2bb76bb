package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8syaml "sigs.k8s.io/yaml"
)

// FileError is a file, or a document in one, that can not be read.
type FileError struct {
	Position
	Err error
}

// Error implements error.
func (e *FileError) Error() string { return fmt.Sprintf("%s: %v", e.Position, e.Err) }

// Unwrap gives the cause.
func (e *FileError) Unwrap() error { return e.Err }

// Read decodes the documents of a file, YAML or JSON, and expands Lists. Documents that hold nothing are left out. What can be
// read is returned beside an error that joins a *FileError for each document that can not.
func Read(file string, content []byte) ([]Object, error) {
	var objects []Object
	var failures []error
	for _, doc := range split(content) {
		found, err := doc.objects(file)
		objects = append(objects, found...)
		if err != nil {
			failures = append(failures, err)
		}
	}
	return objects, errors.Join(failures...)
}

// document is a part of a file that begins after so many lines.
type document struct {
	offset int
	text   []byte
}

// split parts a file at the lines that begin a document.
func split(content []byte) []document {
	var documents []document
	begin, beginLine, line := 0, 0, 0
	for at := 0; at < len(content); line++ {
		end := bytes.IndexByte(content[at:], '\n')
		next := len(content)
		if end >= 0 {
			next = at + end + 1
		}
		if at > begin && separates(content[at:next]) {
			documents = append(documents, document{beginLine, content[begin:at]})
			begin, beginLine = at, line
		}
		at = next
	}
	return append(documents, document{beginLine, content[begin:]})
}

func separates(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n"))
}

var yamlLine = regexp.MustCompile(`(?:yaml: )?(?:unmarshal errors:\s*)?line (\d+):\s*`)

// failure is an error at the line that the YAML parser names, which counts within the document.
func (d document) failure(file string, err error) error {
	line, message := d.offset+1, err.Error()
	if at := yamlLine.FindStringSubmatchIndex(message); at != nil {
		if n, convErr := strconv.Atoi(message[at[2]:at[3]]); convErr == nil {
			line = d.offset + n
		}
		message = message[at[1]:]
	}
	return &FileError{Position{File: file, Line: line, Column: 1}, errors.New(message)}
}

func (d document) objects(file string) ([]Object, error) {
	raw, err := k8syaml.YAMLToJSONStrict(d.text)
	if err != nil {
		return nil, d.failure(file, err)
	}
	if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return nil, nil
	}
	var node yaml.Node
	if err := yaml.Unmarshal(d.text, &node); err != nil {
		return nil, d.failure(file, err)
	}
	var content map[string]any
	if err := k8syaml.Unmarshal(raw, &content); err != nil {
		return nil, d.failure(file, errors.New("this is no object: a mapping with apiVersion, kind and metadata is expected"))
	}
	object := &unstructured.Unstructured{}
	if object.GetKind(); content["kind"] == nil || content["apiVersion"] == nil {
		return nil, d.failure(file, errors.New("this is no Kubernetes object: apiVersion and kind are needed"))
	}
	if err := object.UnmarshalJSON(raw); err != nil {
		return nil, d.failure(file, err)
	}
	whole := Object{Unstructured: object, File: file, node: &node, offset: d.offset}
	if !object.IsList() {
		return []Object{whole}, nil
	}
	return whole.items()
}

// items are the objects of a List.
func (o Object) items() ([]Object, error) {
	list, err := o.ToList()
	if err != nil {
		return nil, &FileError{o.At(""), err}
	}
	var objects []Object
	for i := range list.Items {
		item := Object{Unstructured: &list.Items[i], File: o.File, offset: o.offset}
		if field := child(o.node, "items"); field != nil {
			item.node = child(field, strconv.Itoa(i))
		}
		objects = append(objects, item)
	}
	return objects, nil
}
