package gitsync

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/document"
)

// ContentError is a fault of the revision itself, which only another commit heals.
type ContentError struct{ Err error }

// Error implements error.
func (e *ContentError) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *ContentError) Unwrap() error { return e.Err }

// Manifest is one object of a revision and where it stands.
type Manifest struct {
	Object *unstructured.Unstructured
	// File is the path from the repository's root; Document counts from 1 within it.
	File     string
	Document int
	// Rendered is true when File is a kustomization; then Document counts what it renders to.
	Rendered bool
}

// Where names the place for people.
func (m Manifest) Where() string {
	if m.Rendered {
		return m.File + " (rendered)"
	}
	return fmt.Sprintf("%s (document %d)", m.File, m.Document)
}

// Decode reads all documents of all files, expands Lists, and refuses the whole revision for one bad document, an object
// that stands in it twice, or a lack of any object. Its errors are ContentErrors and name file and document.
func Decode(files []File) ([]Manifest, error) {
	d := decoder{rendered: map[string]int{}}
	for _, file := range files {
		if err := d.file(file); err != nil {
			return nil, &ContentError{Err: err}
		}
	}
	if len(d.manifests) == 0 {
		return nil, &ContentError{Err: errors.New("no manifest below the path: an empty revision is neither applied nor pruned; check spec.path, or delete the GitSync to remove everything")}
	}
	return d.manifests, nil
}

type decoder struct {
	documents int
	bytes     int
	manifests []Manifest
	// rendered counts the objects by kustomization.
	rendered map[string]int
}

func (d *decoder) file(file File) error {
	if len(file.Content) > MaxFileBytes {
		if file.Rendered {
			return fmt.Errorf("%s renders an object of %d bytes: at most %d are allowed", file.Path, len(file.Content), MaxFileBytes)
		}
		return fmt.Errorf("%s has %d bytes: at most %d are allowed", file.Path, len(file.Content), MaxFileBytes)
	}
	if !document.IsText(file.Content) {
		return fmt.Errorf("%s is no text in UTF-8", file.Path)
	}
	if file.Rendered {
		d.rendered[file.Path]++
		at := Manifest{File: file.Path, Document: d.rendered[file.Path], Rendered: true}
		if err := d.document(file.Content, at); err != nil {
			return fmt.Errorf("%s: %w", at.Where(), err)
		}
		return nil
	}
	next := document.Split(file.Path, file.Content)
	for number := 1; ; number++ {
		document, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		at := Manifest{File: file.Path, Document: number}
		if err == nil {
			err = d.document(document, at)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", at.Where(), err)
		}
	}
}

func (d *decoder) document(document []byte, at Manifest) error {
	d.documents++
	d.bytes += len(document)
	switch {
	case d.documents > MaxDocuments:
		return fmt.Errorf("more than %d documents in the revision", MaxDocuments)
	case d.bytes > MaxTotalBytes:
		return fmt.Errorf("the documents up to here are over %d bytes together", MaxTotalBytes)
	case bytes.Equal(bytes.TrimSpace(document), []byte("null")):
		return nil // nothing but comments
	}
	content, err := decodeObject(document)
	if err != nil {
		return err
	}
	return d.add(&unstructured.Unstructured{Object: content}, at)
}

func decodeObject(document []byte) (map[string]any, error) {
	var content any
	strict, err := kjson.UnmarshalStrict(document, &content)
	if err = errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	object, ok := content.(map[string]any)
	if !ok {
		return nil, errors.New("is no object: a manifest has apiVersion, kind and metadata.name")
	}
	return object, nil
}

// add takes an object, or the items of a List.
func (d *decoder) add(object *unstructured.Unstructured, at Manifest) error {
	for _, field := range []string{"apiVersion", "kind"} {
		if value, ok := object.Object[field].(string); !ok || value == "" {
			return fmt.Errorf("%s is missing: a manifest has apiVersion, kind and metadata.name", field)
		}
	}
	if object.GetKind() == "List" && object.GetAPIVersion() == "v1" {
		return d.list(object, at)
	}
	if err := checkObject(object); err != nil {
		return err
	}
	at.Object = object
	d.manifests = append(d.manifests, at)
	return nil
}

func (d *decoder) list(list *unstructured.Unstructured, at Manifest) error {
	items, ok := list.Object["items"].([]any)
	if !ok {
		return errors.New("items is missing: a List has items, which are objects")
	}
	if d.documents += len(items); d.documents > MaxDocuments {
		return fmt.Errorf("more than %d objects in the revision", MaxDocuments)
	}
	for i, item := range items {
		object, ok := item.(map[string]any)
		if !ok {
			return fmt.Errorf("items[%d] is no object", i)
		}
		if object["kind"] == "List" {
			return fmt.Errorf("items[%d]: a List in a List is refused", i)
		}
		if err := d.add(&unstructured.Unstructured{Object: object}, at); err != nil {
			return fmt.Errorf("items[%d]: %w", i, err)
		}
	}
	return nil
}

func checkObject(object *unstructured.Unstructured) error {
	if strings.HasPrefix(object.GetAPIVersion(), "kustomize.config.k8s.io/") {
		return errors.New("a kustomization is rendered only if its file is called kustomization.yaml, kustomization.yml or Kustomization")
	}
	metadata, ok := object.Object["metadata"].(map[string]any)
	if !ok {
		return fmt.Errorf("%s: metadata is missing or no object", object.GetKind())
	}
	for _, field := range []string{"name", "namespace"} {
		if value, given := metadata[field]; given {
			if _, ok := value.(string); !ok {
				return fmt.Errorf("%s: metadata.%s is %v: must be a string, so put it in quotes", object.GetKind(), field, value)
			}
		}
	}
	if object.GetName() == "" {
		return fmt.Errorf("%s: metadata.name is missing", object.GetKind())
	}
	for _, field := range []string{"annotations", "labels"} {
		if _, _, err := unstructured.NestedStringMap(metadata, field); err != nil {
			return fmt.Errorf("%s %s: metadata.%s: all values must be strings, so put them in quotes", object.GetKind(), object.GetName(), field)
		}
	}
	if _, ok := object.GetAnnotations()[v1.CommandAnnotation]; ok {
		return fmt.Errorf("%s %s: the annotation %s is refused: a command is given by a person or by CI, not by a revision that is applied again and again",
			object.GetKind(), object.GetName(), v1.CommandAnnotation)
	}
	return nil
}

// compareManifests orders by file and document.
func compareManifests(a, b Manifest) int {
	return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Document, b.Document))
}
