package simulation

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// objectKey names an object of any kind.
type objectKey struct{ kind, namespace, name string }

func (k objectKey) String() string { return k.kind + " " + k.name }

// version is one state of an object; a nil object is its absence after a deletion. Objects are never changed in place.
type version struct {
	rv      int64
	at      time.Time
	actor   string
	object  *unstructured.Unstructured
	decoded map[reflect.Type]client.Object
}

// change is one write that landed.
type change struct {
	key           objectKey
	actor         string
	rv            int64
	at            time.Time
	before, after *unstructured.Unstructured
}

// store is the API server's memory: every version of every object, so that a lagging cache is a view at an older position.
type store struct {
	clock     *simClock
	rv        int64
	histories map[objectKey][]version
	names     map[string][]objectKey // by kind, sorted
	observers []func(change)
}

func newStore(clock *simClock) *store {
	return &store{clock: clock, rv: 1000, histories: map[objectKey][]version{}, names: map[string][]objectKey{}}
}

// at returns the object's version that a reader at a position sees, or nil.
func (s *store) at(key objectKey, position int64) *version {
	history := s.histories[key]
	for i := len(history) - 1; i >= 0; i-- {
		if history[i].rv <= position {
			if history[i].object == nil {
				return nil
			}
			return &history[i]
		}
	}
	return nil
}

// live returns the object as it is, or nil.
func (s *store) live(key objectKey) *unstructured.Unstructured {
	if v := s.at(key, s.rv); v != nil {
		return v.object
	}
	return nil
}

// list returns the versions of a kind that a reader at a position sees, in the order of their names.
func (s *store) list(kind, namespace string, position int64) []*version {
	var out []*version
	for _, key := range s.names[kind] {
		if v := s.at(key, position); v != nil && (namespace == "" || namespace == key.namespace) {
			out = append(out, v)
		}
	}
	return out
}

// record makes the object's next version and tells the observers.
func (s *store) record(actor string, key objectKey, object *unstructured.Unstructured) {
	before := s.live(key)
	if _, known := s.histories[key]; !known {
		keys := slices.Concat(s.names[key.kind], []objectKey{key})
		slices.SortFunc(keys, func(a, b objectKey) int { return strings.Compare(a.namespace+"/"+a.name, b.namespace+"/"+b.name) })
		s.names[key.kind] = keys
	}
	s.rv++
	if object != nil {
		object.SetResourceVersion(strconv.FormatInt(s.rv, 10))
	}
	s.histories[key] = append(s.histories[key], version{
		rv: s.rv, at: s.clock.Now(), actor: actor, object: object, decoded: map[reflect.Type]client.Object{},
	})
	for _, observe := range s.observers {
		observe(change{key: key, actor: actor, rv: s.rv, at: s.clock.Now(), before: before, after: object})
	}
}

// create stores a new object and returns it as stored.
func (s *store) create(actor string, object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	key := keyOf(object)
	if s.live(key) != nil {
		return nil, apierrors.NewAlreadyExists(resourceOf(key), key.name)
	}
	if object.GetResourceVersion() != "" {
		return nil, apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	stored := object.DeepCopy()
	stored.SetUID(types.UID(fmt.Sprintf("uid-%d", s.rv+1)))
	stored.SetCreationTimestamp(metav1.Time{Time: s.clock.Now().Truncate(time.Second)})
	stored.SetGeneration(1)
	if err := admit(key, stored); err != nil {
		return nil, err
	}
	s.record(actor, key, stored)
	return stored, nil
}

// update replaces an object, its status only or everything but its status, when it carries the live resourceVersion.
func (s *store) update(actor string, object *unstructured.Unstructured, status bool) (*unstructured.Unstructured, error) {
	key := keyOf(object)
	found := s.live(key)
	switch {
	case found == nil:
		return nil, apierrors.NewNotFound(resourceOf(key), key.name)
	case object.GetResourceVersion() == "":
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: key.kind}, key.name, nil)
	case object.GetResourceVersion() != found.GetResourceVersion():
		return nil, apierrors.NewConflict(resourceOf(key), key.name, fmt.Errorf("the object has been modified"))
	case object.GetUID() != "" && object.GetUID() != found.GetUID():
		return nil, apierrors.NewConflict(resourceOf(key), key.name, fmt.Errorf("the UID does not match"))
	}
	stored := merge(key.kind, found, object, status)
	if reflect.DeepEqual(stored.Object, found.Object) {
		return found, nil
	}
	if !reflect.DeepEqual(withoutStatus(stored), withoutStatus(found)) {
		stored.SetGeneration(found.GetGeneration() + 1)
	}
	if err := admit(key, stored); err != nil {
		return nil, err
	}
	if stored.GetDeletionTimestamp() != nil && len(stored.GetFinalizers()) == 0 {
		s.record(actor, key, nil)
		return stored, nil
	}
	s.record(actor, key, stored)
	return stored, nil
}

// merge applies the API server's rules on who may change what.
func merge(kind string, found, object *unstructured.Unstructured, status bool) *unstructured.Unstructured {
	stored := object.DeepCopy()
	source := object
	switch {
	case status:
		stored = found.DeepCopy()
	case kind == kindRollout:
		source = found
	}
	if value, ok := source.Object["status"]; ok {
		stored.Object["status"] = value
	} else {
		delete(stored.Object, "status")
	}
	stored.SetUID(found.GetUID())
	stored.SetGeneration(found.GetGeneration())
	stored.SetCreationTimestamp(found.GetCreationTimestamp())
	stored.SetDeletionTimestamp(found.GetDeletionTimestamp())
	stored.SetResourceVersion(found.GetResourceVersion())
	return stored
}

// remove deletes an object, or marks it while it has finalizers.
func (s *store) remove(actor string, key objectKey, preconditions *metav1.Preconditions) error {
	found := s.live(key)
	if found == nil {
		return apierrors.NewNotFound(resourceOf(key), key.name)
	}
	if p := preconditions; p != nil {
		if (p.UID != nil && *p.UID != found.GetUID()) || (p.ResourceVersion != nil && *p.ResourceVersion != found.GetResourceVersion()) {
			return apierrors.NewConflict(resourceOf(key), key.name, fmt.Errorf("the precondition does not hold"))
		}
	}
	if len(found.GetFinalizers()) == 0 {
		s.record(actor, key, nil)
		return nil
	}
	if found.GetDeletionTimestamp() == nil {
		marked := found.DeepCopy()
		now := metav1.Time{Time: s.clock.Now().Truncate(time.Second)}
		marked.SetDeletionTimestamp(&now)
		marked.SetGeneration(found.GetGeneration() + 1)
		s.record(actor, key, marked)
	}
	return nil
}

// edit lets people and the cluster change an object at once; it is created from nothing when it does not exist.
func (s *store) edit(actor string, key objectKey, change func(map[string]any)) {
	found := s.live(key)
	if found == nil {
		return
	}
	edited := found.DeepCopy()
	change(edited.Object)
	edited = normal(edited)
	if reflect.DeepEqual(edited.Object, found.Object) {
		return
	}
	if !reflect.DeepEqual(withoutStatus(edited), withoutStatus(found)) {
		edited.SetGeneration(found.GetGeneration() + 1)
	}
	s.record(actor, key, edited)
}

// admit refuses what Istio's webhook would refuse of the things that a renderer may get wrong.
func admit(key objectKey, object *unstructured.Unstructured) error {
	if key.kind != kindVirtualService {
		return nil
	}
	for _, list := range routeLists {
		for _, r := range routesIn(object.Object, list) {
			route, _ := r.(map[string]any)
			both := route["mirror"] != nil && route["mirrors"] != nil
			// A connection has no copies, and its routes no names: the API server drops such a field, and it would come for ever.
			unknown := list != "http" && (route["mirror"] != nil || route["mirrors"] != nil || route["fault"] != nil || route["name"] != nil)
			if both || unknown {
				return apierrors.NewInvalid(schema.GroupKind{Kind: key.kind}, key.name, nil)
			}
		}
	}
	return nil
}

func withoutStatus(object *unstructured.Unstructured) map[string]any {
	out := map[string]any{}
	for field, value := range object.Object {
		if field != "status" && field != "metadata" {
			out[field] = value
		}
	}
	return out
}

func keyOf(object *unstructured.Unstructured) objectKey {
	return objectKey{kind: object.GetKind(), namespace: object.GetNamespace(), name: object.GetName()}
}

func resourceOf(key objectKey) schema.GroupResource {
	return schema.GroupResource{Resource: strings.ToLower(key.kind) + "s"}
}

// normal is the object as JSON has it: whole numbers are int64, as the API server's answers are decoded.
func normal(object *unstructured.Unstructured) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: toJSON(object.Object)}
}

func toJSON(value any) map[string]any {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("simulation: encode %T: %v", value, err))
	}
	var out map[string]any
	if err := utiljson.Unmarshal(raw, &out); err != nil {
		panic(fmt.Sprintf("simulation: decode %T: %v", value, err))
	}
	return out
}
