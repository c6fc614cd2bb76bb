package simulation

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"

	jsonpatch "github.com/evanphx/json-patch/v5"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"sluice.dev/sluice/controllers"
)

// The kinds that the simulation knows.
const (
	kindRollout         = "Rollout"
	kindVirtualService  = "VirtualService"
	kindDestinationRule = "DestinationRule"
	kindServiceEntry    = "ServiceEntry"
	kindWorkloadEntry   = "WorkloadEntry"
	kindDeployment      = "Deployment"
	kindPod             = "Pod"
	kindService         = "Service"
)

// apiClient is one process's client: reads come from its cache, or from the API server for the live reader, and writes go
// through the faults that the seed draws.
type apiClient struct {
	client.Client // nil: what is not simulated panics
	process       *process
	isLive        bool
	scheme        *runtime.Scheme
}

func (c *apiClient) Scheme() *runtime.Scheme { return c.scheme }

func (c *apiClient) GroupVersionKindFor(obj runtime.Object) (schema.GroupVersionKind, error) {
	return apiutil.GVKForObject(obj, c.scheme)
}

// position is how far the reader has seen the history of a kind.
func (c *apiClient) position(kind string) int64 {
	if c.isLive {
		return c.process.world.store.rv
	}
	return c.process.positions[kind]
}

func (c *apiClient) kind(obj runtime.Object) string {
	gvk, err := c.GroupVersionKindFor(obj)
	if err != nil {
		panic(fmt.Sprintf("simulation: kind of %T: %v", obj, err))
	}
	return gvk.Kind
}

// before runs ahead of each read: a dead process gets no answer, and a live read may fail.
func (c *apiClient) before(namespace, what string) error {
	w := c.process.world
	if namespace != w.namespace {
		w.violated(17, "%s outside the Rollout's namespace: %q", what, namespace)
	}
	if c.process.dead {
		return errDead
	}
	if c.isLive && w.faults.draw(w.faults.unavailable) {
		w.sometimes["live read failed"]++
		c.process.disturbed = true
		return apierrors.NewServiceUnavailable("simulated")
	}
	return nil
}

func (c *apiClient) noteLive(kind string) {
	if c.isLive {
		c.process.liveReads[kind] = c.process.world.store.rv
	}
}

func (c *apiClient) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	kind := c.kind(obj)
	if err := c.before(key.Namespace, "get "+kind); err != nil {
		return err
	}
	c.noteLive(kind)
	v := c.process.world.store.at(objectKey{kind, key.Namespace, key.Name}, c.position(kind))
	if v == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: strings.ToLower(kind) + "s"}, key.Name)
	}
	assign(obj, v.decode(obj).DeepCopyObject())
	return nil
}

func (c *apiClient) List(_ context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := (&client.ListOptions{}).ApplyOptions(opts)
	kind := strings.TrimSuffix(c.kind(list), "List")
	token, indexed := "", false
	if options.FieldSelector != nil {
		if token, indexed = options.FieldSelector.RequiresExactMatch(controllers.IndexName); !indexed || c.isLive {
			panic("simulation: no index on " + options.FieldSelector.String())
		}
	}
	if err := c.before(options.Namespace, "list "+kind); err != nil {
		return err
	}
	c.noteLive(kind)
	sample := c.sampleOf(kind, list)
	shared := options.UnsafeDisableDeepCopy != nil && *options.UnsafeDisableDeepCopy && !c.isLive
	var items []runtime.Object
	for _, v := range c.process.world.store.list(kind, options.Namespace, c.position(kind)) {
		if options.LabelSelector != nil && !options.LabelSelector.Matches(labels.Set(v.object.GetLabels())) {
			continue
		}
		decoded := v.decode(sample)
		if indexed && !slices.Contains(controllers.Tokens(decoded), token) {
			continue
		}
		item := runtime.Object(decoded)
		if !shared {
			item = item.DeepCopyObject()
		}
		items = append(items, item)
	}
	return meta.SetList(list, items)
}

// sampleOf returns an empty object of the list's items' type.
func (c *apiClient) sampleOf(kind string, list client.ObjectList) client.Object {
	if _, raw := list.(*unstructured.UnstructuredList); raw {
		return &unstructured.Unstructured{}
	}
	gvk, err := c.GroupVersionKindFor(list)
	if err == nil {
		if obj, err := c.scheme.New(gvk.GroupVersion().WithKind(kind)); err == nil {
			return obj.(client.Object)
		}
	}
	panic("simulation: unknown kind " + kind)
}

// decode returns the version as the sample's type. It is shared: who changes it is found out at the end of the seed.
func (v *version) decode(sample client.Object) client.Object {
	if _, raw := sample.(*unstructured.Unstructured); raw {
		return v.object
	}
	kind := reflect.TypeOf(sample)
	if known, ok := v.decoded[kind]; ok {
		return known
	}
	out := v.decodeAs(kind)
	v.decoded[kind] = out
	return out
}

func (v *version) decodeAs(kind reflect.Type) client.Object {
	raw, err := json.Marshal(v.object.Object)
	if err != nil {
		panic(fmt.Sprintf("simulation: encode %s: %v", v.object.GetName(), err))
	}
	out := reflect.New(kind.Elem()).Interface().(client.Object)
	if err := json.Unmarshal(raw, out); err != nil {
		panic(fmt.Sprintf("simulation: decode %s as %s: %v", v.object.GetName(), kind, err))
	}
	return out
}

func encodeBytes(obj client.Object) []byte {
	raw, err := json.Marshal(toJSON(obj))
	if err != nil {
		panic(fmt.Sprintf("simulation: encode %T: %v", obj, err))
	}
	return raw
}

func assign(target client.Object, value runtime.Object) {
	reflect.ValueOf(target).Elem().Set(reflect.ValueOf(value).Elem())
}

// encode is the object as it goes over the wire.
func (c *apiClient) encode(obj client.Object) *unstructured.Unstructured {
	gvk, err := c.GroupVersionKindFor(obj)
	if err != nil {
		panic(fmt.Sprintf("simulation: kind of %T: %v", obj, err))
	}
	out := &unstructured.Unstructured{Object: toJSON(obj)}
	out.SetGroupVersionKind(gvk)
	return out
}

func (c *apiClient) Create(_ context.Context, obj client.Object, _ ...client.CreateOption) error {
	encoded := c.encode(obj)
	return c.write(keyOf(encoded), obj, func(actor string) (*unstructured.Unstructured, error) {
		return c.process.world.store.create(actor, encoded)
	})
}

func (c *apiClient) Update(_ context.Context, obj client.Object, _ ...client.UpdateOption) error {
	return c.update(obj, false)
}

func (c *apiClient) update(obj client.Object, status bool) error {
	encoded := c.encode(obj)
	if encoded.GetResourceVersion() == "" {
		c.process.world.violated(13, "update of %s without a resourceVersion", keyOf(encoded))
	}
	return c.write(keyOf(encoded), obj, func(actor string) (*unstructured.Unstructured, error) {
		return c.process.world.store.update(actor, encoded, status)
	})
}

func (c *apiClient) Patch(_ context.Context, obj client.Object, patch client.Patch, _ ...client.PatchOption) error {
	return c.patch(obj, patch, false)
}

func (c *apiClient) patch(obj client.Object, patch client.Patch, status bool) error {
	data, err := patch.Data(obj)
	if err != nil {
		return err
	}
	key := keyOf(c.encode(obj))
	if patch.Type() != types.MergePatchType {
		panic(fmt.Sprintf("simulation: patch type %s of %s", patch.Type(), key))
	}
	return c.write(key, obj, func(actor string) (*unstructured.Unstructured, error) {
		store := c.process.world.store
		found := store.live(key)
		if found == nil {
			return nil, apierrors.NewNotFound(resourceOf(key), key.name)
		}
		raw, err := json.Marshal(found.Object)
		if err != nil {
			return nil, err
		}
		merged, err := jsonpatch.MergePatch(raw, data)
		if err != nil {
			return nil, err
		}
		after := &unstructured.Unstructured{}
		if err := after.UnmarshalJSON(merged); err != nil {
			return nil, err
		}
		if !strings.Contains(string(data), `"resourceVersion"`) {
			c.process.world.violated(13, "patch of %s without a resourceVersion: %s", key, data)
		}
		return store.update(actor, after, status)
	})
}

func (c *apiClient) Delete(_ context.Context, obj client.Object, opts ...client.DeleteOption) error {
	options := (&client.DeleteOptions{}).ApplyOptions(opts)
	key := keyOf(c.encode(obj))
	if options.Preconditions == nil || options.Preconditions.ResourceVersion == nil {
		c.process.world.violated(13, "deletion of %s without a resourceVersion", key)
	}
	return c.write(key, nil, func(actor string) (*unstructured.Unstructured, error) {
		return nil, c.process.world.store.remove(actor, key, options.Preconditions)
	})
}

// write makes one write under the faults that the seed draws, and gives obj what the server answered.
func (c *apiClient) write(key objectKey, obj client.Object, do func(actor string) (*unstructured.Unstructured, error)) error {
	p, w := c.process, c.process.world
	p.await(key)
	p.serial.Lock()
	defer p.serial.Unlock()
	if key.namespace != w.namespace {
		w.violated(17, "write of %s in namespace %q", key, key.namespace)
	}
	if p.dead {
		return errDead
	}
	w.oracle.decidedAt = w.clock.now
	w.clock.advance(w.faults.writeLatency())
	w.interleave()
	fate := w.faults.fate(key)
	switch fate {
	case crashBefore:
		if slices.Contains(p.wrote, rolloutKey) && key.kind == kindVirtualService {
			w.sometimes["crashed between status and mesh"]++
			if slices.ContainsFunc(p.wrote, func(k objectKey) bool { return k != key && slices.Contains(routeKeys, k) }) {
				w.sometimes["crashed between two VirtualServices"]++
			}
		}
		w.crash(p, "before a write of "+key.kind)
		return errDead
	case refused:
		w.sometimes["write refused: "+key.kind]++
		p.disturbed = true
		return apierrors.NewForbidden(resourceOf(key), key.name, fmt.Errorf("simulated admission: no"))
	case unavailable:
		p.disturbed = true
		return apierrors.NewServiceUnavailable("simulated")
	}
	p.wrote = append(p.wrote, key)
	answer, err := do("operator")
	switch {
	case apierrors.IsConflict(err):
		w.sometimes["conflict"]++
		w.sometimes["conflict on "+key.kind]++
		return err
	case err != nil:
		return err
	case fate == lost:
		w.sometimes["answer lost: "+key.kind]++
		p.disturbed = true
		return apierrors.NewTimeoutError("simulated: the answer was lost", 1)
	case fate == crashAfter:
		w.crash(p, "after a write of "+key.kind)
		return errDead
	}
	p.own[key] = w.store.rv
	if obj != nil && answer != nil {
		v := version{object: answer, decoded: map[reflect.Type]client.Object{}}
		assign(obj, v.decode(obj).DeepCopyObject())
	}
	return nil
}

// statusClient writes the status subresource.
type statusClient struct {
	client.SubResourceWriter
	api *apiClient
}

func (c *apiClient) Status() client.SubResourceWriter { return statusClient{api: c} }

func (s statusClient) Update(_ context.Context, obj client.Object, _ ...client.SubResourceUpdateOption) error {
	return s.api.update(obj, true)
}

func (s statusClient) Patch(_ context.Context, obj client.Object, patch client.Patch, _ ...client.SubResourcePatchOption) error {
	return s.api.patch(obj, patch, true)
}
