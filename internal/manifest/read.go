package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	k8syaml "sigs.k8s.io/yaml"

	"sluice.dev/sluice/internal/document"
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
func Read(file string, content []byte) ([]Object, error) { return read(file, content, maxExpanded) }

// read bounds what the documents stand for.
func read(file string, content []byte, most int) ([]Object, error) {
	if !document.IsText(content) {
		return nil, &FileError{Position{File: file, Line: 1, Column: 1}, errors.New("this is no text in UTF-8")}
	}
	var objects []Object
	var failures []error
	documents := split(content)
	if strings.EqualFold(filepath.Ext(file), ".json") {
		var err error
		if documents, err = splitJSON(file, content); err != nil {
			failures = append(failures, err)
		}
	}
	expanded := 0
	for _, doc := range documents {
		found, size, err := doc.objects(file)
		if expanded += size; expanded > most {
			err = doc.failure(file, fmt.Errorf("with its aliases expanded, the file is longer than %d bytes up to here: split it", most))
			return objects, errors.Join(append(failures, err)...)
		}
		objects = append(objects, found...)
		if err != nil {
			failures = append(failures, err)
		}
	}
	return objects, errors.Join(failures...)
}

// maxExpanded bounds what the documents of a file stand for, as JSON.
const maxExpanded = 4 * maxBytes

// part is a document of a file that begins after so many lines.
type part struct {
	offset int
	text   []byte
}

// split parts a file at the lines that begin a document.
func split(content []byte) []part {
	var documents []part
	begin, beginLine, line := 0, 0, 0
	for at := 0; at < len(content); line++ {
		end := bytes.IndexByte(content[at:], '\n')
		next := len(content)
		if end >= 0 {
			next = at + end + 1
		}
		if at > begin && separates(content[at:next]) {
			documents = append(documents, part{beginLine, content[begin:at]})
			begin, beginLine = at, line
		}
		at = next
	}
	return append(documents, part{beginLine, content[begin:]})
}

func separates(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.ContainsAny(rest[:1], " \t\r\n"))
}

// splitJSON parts a stream of JSON values, of which a file may hold several as it may hold several YAML documents.
func splitJSON(file string, content []byte) ([]part, error) {
	stream := json.NewDecoder(bytes.NewReader(content))
	counted, lines := 0, 0
	linesUntil := func(offset int) int { // offsets only grow
		lines += bytes.Count(content[counted:offset], []byte("\n"))
		counted = offset
		return lines
	}
	var values []part
	for {
		var value json.RawMessage
		err := stream.Decode(&value)
		end := int(stream.InputOffset())
		switch {
		case errors.Is(err, io.EOF):
			return values, nil
		case err != nil:
			return values, &FileError{Position{File: file, Line: linesUntil(max(end, counted)) + 1, Column: 1}, err}
		}
		values = append(values, part{linesUntil(end - len(value)), value})
	}
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+):\s*`)

// failure is an error at each line that the YAML parser names, which counts within the document.
func (d part) failure(file string, err error) error {
	several, found := strings.CutPrefix(err.Error(), "yaml: unmarshal errors:\n")
	if !found {
		return d.failureAt(file, err.Error())
	}
	var all []error
	for line := range strings.Lines(several) {
		all = append(all, d.failureAt(file, strings.TrimSpace(line)))
	}
	return errors.Join(all...)
}

func (d part) failureAt(file, message string) error {
	line := d.offset + 1
	if at := yamlLine.FindStringSubmatchIndex(message); at != nil {
		if n, err := strconv.Atoi(message[at[2]:at[3]]); err == nil {
			line = d.offset + n
		}
		message = message[at[1]:]
	}
	return &FileError{Position{File: file, Line: line, Column: 1}, errors.New(message)}
}

// objects of a document, and the bytes that it stands for.
func (d part) objects(file string) (objects []Object, size int, err error) {
	if err := document.Check(d.text); err != nil {
		return nil, 0, d.failure(file, err)
	}
	raw, err := k8syaml.YAMLToJSONStrict(d.text)
	if err != nil {
		return nil, 0, d.failure(file, err)
	}
	if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return nil, 0, nil
	}
	var node yaml.Node
	if err := yaml.Unmarshal(d.text, &node); err != nil {
		return nil, 0, d.failure(file, err)
	}
	object := &unstructured.Unstructured{}
	if err := decode(raw, object); err != nil {
		return nil, 0, d.failure(file, err)
	}
	whole := Object{Unstructured: object, File: file, node: &node, offset: d.offset}
	if !object.IsList() {
		return []Object{whole}, len(raw), nil
	}
	objects, err = whole.items()
	return objects, len(raw), err
}

func decode(raw []byte, into *unstructured.Unstructured) error {
	var content map[string]any
	if err := k8syaml.Unmarshal(raw, &content); err != nil {
		return errors.New("this is no object: a mapping with apiVersion, kind and metadata is expected")
	}
	if !isObject(content) {
		return errNoObject
	}
	return into.UnmarshalJSON(raw)
}

var errNoObject = errors.New("this is no Kubernetes object: apiVersion and kind are needed")

func isObject(content map[string]any) bool {
	return content["kind"] != nil && content["apiVersion"] != nil
}

// items are the objects of a List. What can be read is returned beside an error for each item that can not.
func (o Object) items() ([]Object, error) {
	list, _ := o.Object["items"].([]any)
	var objects []Object
	var failures []error
	for i, item := range list {
		content, ok := item.(map[string]any)
		place := &FileError{Position: o.At(fmt.Sprintf("items[%d]", i))}
		object := &unstructured.Unstructured{Object: content}
		switch {
		case !ok || !isObject(content) || object.GetKind() == "" || object.GetAPIVersion() == "":
			place.Err = errNoObject
		case object.IsList():
			place.Err = errors.New("a List in a List is refused: put its items into the outer one")
		default:
			found := Object{Unstructured: object, File: o.File, offset: o.offset}
			if field := child(o.node, "items"); field != nil {
				found.node = child(field, strconv.Itoa(i))
			}
			objects = append(objects, found)
			continue
		}
		failures = append(failures, place)
	}
	return objects, errors.Join(failures...)
}
