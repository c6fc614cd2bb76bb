package plan

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	jsonpatch "github.com/evanphx/json-patch/v5"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/controllers"
)

// memoryClient reads and writes a store, for what the reconciler does. All that it does not do is left out: the embedded
// interface is nil.
type memoryClient struct {
	client.Client
	store  *store
	scheme *runtime.Scheme

	mu      sync.Mutex
	decoded map[form]*decoded
}

// form is a stored object as a type. What is stored never changes, so that it is decoded once.
type form struct {
	stored *unstructured.Unstructured
	kind   reflect.Type
}

type decoded struct {
	object client.Object
	tokens []string
}

// as gives a stored object as the target's type; it is shared.
func (c *memoryClient) as(stored *unstructured.Unstructured, target client.Object) (*decoded, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := form{stored, reflect.TypeOf(target)}
	if known := c.decoded[f]; known != nil {
		return known, nil
	}
	object := client.Object(stored)
	if _, raw := target.(*unstructured.Unstructured); !raw {
		encoded, err := json.Marshal(stored.Object)
		if err != nil {
			return nil, err
		}
		fresh, ok := reflect.New(f.kind.Elem()).Interface().(client.Object)
		if !ok {
			return nil, fmt.Errorf("%s is no object with metadata", f.kind)
		}
		if err := json.Unmarshal(encoded, fresh); err != nil {
			return nil, fmt.Errorf("%s %s: %w", stored.GetKind(), stored.GetName(), err)
		}
		object = fresh
	}
	if c.decoded == nil {
		c.decoded = map[form]*decoded{}
	}
	c.decoded[f] = &decoded{object, controllers.Tokens(object)}
	return c.decoded[f], nil
}

func newScheme() (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, err
	}
	return scheme, v1.AddToScheme(scheme)
}

// Scheme implements client.Client.
func (c *memoryClient) Scheme() *runtime.Scheme { return c.scheme }

// GroupVersionKindFor implements client.Client.
func (c *memoryClient) GroupVersionKindFor(object runtime.Object) (schema.GroupVersionKind, error) {
	return apiutil.GVKForObject(object, c.scheme)
}

// Get implements client.Reader.
func (c *memoryClient) Get(_ context.Context, name client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	gvk, err := c.GroupVersionKindFor(object)
	if err != nil {
		return err
	}
	k := key{gvk.Kind, name.Namespace, name.Name}
	found := c.store.get(k)
	if found == nil {
		return apierrors.NewNotFound(k.resource(), k.name)
	}
	return c.assign(object, found)
}

// List implements client.Reader.
func (c *memoryClient) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := (&client.ListOptions{}).ApplyOptions(opts)
	gvk, err := c.GroupVersionKindFor(list)
	if err != nil {
		return err
	}
	var items []runtime.Object
	for _, found := range c.store.list(strings.TrimSuffix(gvk.Kind, "List"), options.Namespace) {
		if options.LabelSelector != nil && !options.LabelSelector.Matches(labels.Set(found.GetLabels())) {
			continue
		}
		item, err := c.itemOf(list, gvk)
		if err != nil {
			return err
		}
		known, err := c.as(found, item)
		if err != nil {
			return err
		}
		if indexed(options, known.tokens) {
			items = append(items, known.object.DeepCopyObject())
		}
	}
	return meta.SetList(list, items)
}

// indexed tells whether the tokens of an object have the one that is asked for, if one is.
func indexed(options *client.ListOptions, tokens []string) bool {
	if options.FieldSelector == nil {
		return true
	}
	token, ok := options.FieldSelector.RequiresExactMatch(controllers.IndexName)
	return ok && slices.Contains(tokens, token)
}

// itemOf returns an empty object of the list's items' type.
func (c *memoryClient) itemOf(list client.ObjectList, gvk schema.GroupVersionKind) (client.Object, error) {
	if _, raw := list.(*unstructured.UnstructuredList); raw {
		return &unstructured.Unstructured{}, nil
	}
	object, err := c.scheme.New(gvk.GroupVersion().WithKind(strings.TrimSuffix(gvk.Kind, "List")))
	if err != nil {
		return nil, err
	}
	item, ok := object.(client.Object)
	if !ok {
		return nil, fmt.Errorf("%T is no object with metadata", object)
	}
	return item, nil
}

// assign gives a target the contents of what is stored.
func (c *memoryClient) assign(target client.Object, stored *unstructured.Unstructured) error {
	known, err := c.as(stored, target)
	if err != nil {
		return err
	}
	reflect.ValueOf(target).Elem().Set(reflect.ValueOf(known.object.DeepCopyObject()).Elem())
	return nil
}

// encode is the object as it goes over the wire.
func (c *memoryClient) encode(object client.Object) (*unstructured.Unstructured, error) {
	gvk, err := c.GroupVersionKindFor(object)
	if err != nil {
		return nil, err
	}
	content, err := toJSON(object)
	if err != nil {
		return nil, err
	}
	out := &unstructured.Unstructured{Object: content}
	out.SetGroupVersionKind(gvk)
	return out, nil
}

// write sends an encoded object and gives the caller's what was stored.
func (c *memoryClient) write(object client.Object, do func(*unstructured.Unstructured) (*unstructured.Unstructured, error)) error {
	encoded, err := c.encode(object)
	if err != nil {
		return err
	}
	stored, err := do(encoded)
	if err != nil {
		return err
	}
	return c.assign(object, stored)
}

// Create implements client.Writer.
func (c *memoryClient) Create(_ context.Context, object client.Object, _ ...client.CreateOption) error {
	return c.write(object, c.store.create)
}

// Update implements client.Writer.
func (c *memoryClient) Update(_ context.Context, object client.Object, _ ...client.UpdateOption) error {
	return c.update(object, false)
}

func (c *memoryClient) update(object client.Object, status bool) error {
	return c.write(object, func(encoded *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		return c.store.update(encoded, status)
	})
}

// Patch implements client.Writer, for JSON merge patches.
func (c *memoryClient) Patch(_ context.Context, object client.Object, patch client.Patch, _ ...client.PatchOption) error {
	return c.patch(object, patch, false)
}

func (c *memoryClient) patch(object client.Object, patch client.Patch, status bool) error {
	data, err := patch.Data(object)
	if err != nil {
		return err
	}
	if patch.Type() != types.MergePatchType {
		return fmt.Errorf("patch of type %s: only merge patches are played", patch.Type())
	}
	return c.write(object, func(encoded *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		k := keyOf(encoded)
		found := c.store.get(k)
		if found == nil {
			return nil, apierrors.NewNotFound(k.resource(), k.name)
		}
		raw, err := json.Marshal(found.Object)
		if err != nil {
			return nil, err
		}
		if raw, err = jsonpatch.MergePatch(raw, data); err != nil {
			return nil, err
		}
		after := &unstructured.Unstructured{}
		if err := after.UnmarshalJSON(raw); err != nil {
			return nil, err
		}
		return c.store.update(after, status)
	})
}

// Delete implements client.Writer.
func (c *memoryClient) Delete(_ context.Context, object client.Object, _ ...client.DeleteOption) error {
	encoded, err := c.encode(object)
	if err != nil {
		return err
	}
	return c.store.remove(keyOf(encoded))
}

// statusClient writes the status subresource.
type statusClient struct {
	client.SubResourceWriter
	client *memoryClient
}

// Status implements client.Client.
func (c *memoryClient) Status() client.SubResourceWriter { return statusClient{client: c} }

// Update implements client.SubResourceWriter.
func (s statusClient) Update(_ context.Context, object client.Object, _ ...client.SubResourceUpdateOption) error {
	return s.client.update(object, true)
}

// Patch implements client.SubResourceWriter.
func (s statusClient) Patch(_ context.Context, object client.Object, patch client.Patch, _ ...client.SubResourcePatchOption) error {
	return s.client.patch(object, patch, true)
}
