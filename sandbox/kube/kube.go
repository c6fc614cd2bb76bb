package kube

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

const (
	// FieldManager owns what Apply writes.
	FieldManager = "sandbox"

	pollInterval = 25 * time.Millisecond
	// A CRD that was just created shows in discovery a little later.
	mappingTimeout     = 5 * time.Second
	establishedTimeout = 30 * time.Second
)

var crdResource = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// Client applies and deletes objects of any kind.
type Client struct {
	dynamic dynamic.Interface
	mapper  meta.ResettableRESTMapper
}

// New returns a client that asks the server which kinds it serves when needed.
func New(config *rest.Config) (*Client, error) {
	dyn, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Client{dynamic: dyn, mapper: restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco))}, nil
}

// Apply applies each document of a YAML or JSON stream server-side, in order,
// taking over fields of other managers. Objects of namespaced kinds that name no
// namespace go to namespace. It returns when all CRDs among them are established.
func (c *Client) Apply(ctx context.Context, namespace string, manifests []byte) error {
	objects, err := Decode(manifests)
	if err != nil {
		return err
	}
	return c.ApplyObjects(ctx, namespace, objects...)
}

// ApplyObjects is Apply for objects that are decoded already.
func (c *Client) ApplyObjects(ctx context.Context, namespace string, objects ...*unstructured.Unstructured) error {
	var crds []string
	for _, object := range objects {
		if err := c.applyOne(ctx, namespace, object); err != nil {
			return fmt.Errorf("apply %s %s: %w", object.GetKind(), object.GetName(), err)
		}
		if object.GroupVersionKind().Group == crdResource.Group && object.GetKind() == "CustomResourceDefinition" {
			crds = append(crds, object.GetName())
		}
	}
	for _, name := range crds {
		if err := c.awaitEstablished(ctx, name); err != nil {
			return fmt.Errorf("wait for CustomResourceDefinition %s: %w", name, err)
		}
	}
	return nil
}

func (c *Client) applyOne(ctx context.Context, namespace string, object *unstructured.Unstructured) error {
	resource, err := c.resource(ctx, namespace, object)
	if err != nil {
		return err
	}
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	force := true
	_, err = resource.Patch(ctx, object.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: FieldManager, Force: &force})
	return err
}

// Delete deletes the objects of a stream in reverse order; those that are not
// there are no error. It does not wait for finalizers.
func (c *Client) Delete(ctx context.Context, namespace string, manifests []byte) error {
	objects, err := Decode(manifests)
	if err != nil {
		return err
	}
	for i := len(objects) - 1; i >= 0; i-- {
		object := objects[i]
		resource, err := c.resource(ctx, namespace, object)
		if err == nil {
			err = resource.Delete(ctx, object.GetName(), metav1.DeleteOptions{})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete %s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

// resource is where the API server serves object.
func (c *Client) resource(ctx context.Context, namespace string, object *unstructured.Unstructured) (dynamic.ResourceInterface, error) {
	mapping, err := c.mapping(ctx, object.GroupVersionKind())
	if err != nil {
		return nil, err
	}
	if mapping.Scope.Name() != meta.RESTScopeNameNamespace {
		return c.dynamic.Resource(mapping.Resource), nil
	}
	if own := object.GetNamespace(); own != "" {
		namespace = own
	}
	if namespace == "" {
		return nil, errors.New("metadata.namespace is empty, must be set since the kind is namespaced")
	}
	return c.dynamic.Resource(mapping.Resource).Namespace(namespace), nil
}

func (c *Client) mapping(ctx context.Context, kind schema.GroupVersionKind) (*meta.RESTMapping, error) {
	var mapping *meta.RESTMapping
	var last error
	err := wait.PollUntilContextTimeout(ctx, pollInterval, mappingTimeout, true, func(context.Context) (bool, error) {
		mapping, last = c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
		if meta.IsNoMatchError(last) {
			c.mapper.Reset()
			return false, nil
		}
		return last == nil, last
	})
	if err != nil && last != nil {
		return nil, last
	}
	return mapping, err
}

func (c *Client) awaitEstablished(ctx context.Context, name string) error {
	return wait.PollUntilContextTimeout(ctx, pollInterval, establishedTimeout, true, func(ctx context.Context) (bool, error) {
		crd, err := c.dynamic.Resource(crdResource).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		return established(crd), nil
	})
}

// established reads the condition of a CRD; at first its conditions are null.
func established(crd *unstructured.Unstructured) bool {
	found, _, _ := unstructured.NestedFieldNoCopy(crd.Object, "status", "conditions")
	conditions, _ := found.([]any)
	for _, condition := range conditions {
		fields, _ := condition.(map[string]any)
		if fields["type"] == "Established" && fields["status"] == "True" {
			return true
		}
	}
	return false
}

// Decode splits a YAML or JSON stream into objects; empty documents are skipped.
// An error names the document by its number, from 1.
func Decode(manifests []byte) ([]*unstructured.Unstructured, error) {
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(manifests)))
	var objects []*unstructured.Unstructured
	for n := 1; ; n++ {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		var content map[string]any
		if err := yaml.Unmarshal(document, &content); err != nil {
			return nil, fmt.Errorf("document %d: %w", n, err)
		}
		if len(content) == 0 {
			continue
		}
		object := &unstructured.Unstructured{Object: content}
		if object.GetAPIVersion() == "" || object.GetKind() == "" || object.GetName() == "" {
			return nil, fmt.Errorf("document %d: apiVersion %q, kind %q, metadata.name %q: none may be empty",
				n, object.GetAPIVersion(), object.GetKind(), object.GetName())
		}
		objects = append(objects, object)
	}
}
