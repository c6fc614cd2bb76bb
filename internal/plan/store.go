package plan

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
)

// key names an object. Kinds are unambiguous here, since Namesakes are left out: the group is not needed.
type key struct{ kind, namespace, name string }

func keyOf(object *unstructured.Unstructured) key {
	return key{object.GetKind(), object.GetNamespace(), object.GetName()}
}

func (k key) compare(other key) int {
	return cmp.Or(strings.Compare(k.kind, other.kind), strings.Compare(k.name, other.name))
}

func (k key) resource() schema.GroupResource {
	return schema.GroupResource{Resource: strings.ToLower(k.kind) + "s"}
}

// store is the memory of an API server. Objects in it are never changed in place.
type store struct {
	mu      sync.Mutex
	clock   *jumpingClock
	version int64
	objects map[key]*unstructured.Unstructured
	// wrote is told of each write of a VirtualService or DestinationRule; nil stands for an object that is not there.
	wrote func(k key, before, after *unstructured.Unstructured)
}

// jumpingClock moves when it is told to, and a little with each write.
type jumpingClock struct {
	mu  sync.Mutex
	now time.Time
}

// Now implements clock.PassiveClock.
func (c *jumpingClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Since implements clock.PassiveClock.
func (c *jumpingClock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

func (c *jumpingClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newStore(clock *jumpingClock) *store {
	return &store{clock: clock, version: 1000, objects: map[key]*unstructured.Unstructured{}}
}

func (s *store) get(k key) *unstructured.Unstructured {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[k]
}

// list returns the objects of a kind by name.
func (s *store) list(kind, namespace string) []*unstructured.Unstructured {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*unstructured.Unstructured
	for k, object := range s.objects {
		if k.kind == kind && (namespace == "" || namespace == k.namespace) {
			out = append(out, object)
		}
	}
	slices.SortFunc(out, func(a, b *unstructured.Unstructured) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

// put stores an object as it is, in the place of one of its name.
func (s *store) put(object *unstructured.Unstructured) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stored := object.DeepCopy()
	if stored.GetUID() == "" {
		stored.SetUID(types.UID(fmt.Sprintf("uid-%d", s.version+1)))
	}
	if stored.GetGeneration() == 0 {
		stored.SetGeneration(1)
	}
	if created := stored.GetCreationTimestamp(); created.IsZero() {
		stored.SetCreationTimestamp(metav1.Time{Time: s.clock.Now().Truncate(time.Second)})
	}
	s.record(keyOf(stored), stored)
}

// record makes the object's next version.
func (s *store) record(k key, object *unstructured.Unstructured) {
	s.version++
	if object == nil {
		delete(s.objects, k)
		return
	}
	object.SetResourceVersion(strconv.FormatInt(s.version, 10))
	s.objects[k] = object
}

// land makes a write of the reconciler: do gives what to store for what is found, nil to delete.
func (s *store) land(k key, do func(found *unstructured.Unstructured) (*unstructured.Unstructured, error)) (*unstructured.Unstructured, error) {
	s.clock.advance(time.Millisecond)
	s.mu.Lock()
	found := s.objects[k]
	stored, err := do(found)
	if err == nil && !same(found, stored) {
		s.record(k, stored)
	}
	s.mu.Unlock()
	if err == nil && s.wrote != nil && (k.kind == "VirtualService" || k.kind == "DestinationRule") && !same(found, stored) {
		s.wrote(k, found, stored)
	}
	return stored, err
}

func same(a, b *unstructured.Unstructured) bool {
	return (a == nil) == (b == nil) && (a == nil || reflect.DeepEqual(a.Object, b.Object))
}

func (s *store) create(object *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	k := keyOf(object)
	return s.land(k, func(found *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		if found != nil {
			return nil, apierrors.NewAlreadyExists(k.resource(), k.name)
		}
		stored := object.DeepCopy()
		stored.SetUID(types.UID(fmt.Sprintf("uid-%d", s.version+1)))
		stored.SetGeneration(1)
		stored.SetCreationTimestamp(metav1.Time{Time: s.clock.Now().Truncate(time.Second)})
		return stored, nil
	})
}

// update replaces an object, its status alone or everything but a Rollout's status.
func (s *store) update(object *unstructured.Unstructured, status bool) (*unstructured.Unstructured, error) {
	k := keyOf(object)
	return s.land(k, func(found *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		switch {
		case found == nil:
			return nil, apierrors.NewNotFound(k.resource(), k.name)
		case object.GetResourceVersion() != found.GetResourceVersion():
			return nil, apierrors.NewConflict(k.resource(), k.name, fmt.Errorf("the object has been modified"))
		}
		return merged(found, object, status), nil
	})
}

// merged applies the API server's rules on who may change what.
func merged(found, object *unstructured.Unstructured, status bool) *unstructured.Unstructured {
	stored, source := object.DeepCopy(), object
	if status {
		stored = found.DeepCopy()
	} else if k := found.GetKind(); k == "Rollout" {
		source = found
	}
	delete(stored.Object, "status")
	if value, ok := source.Object["status"]; ok {
		stored.Object["status"] = value
	}
	stored.SetUID(found.GetUID())
	stored.SetCreationTimestamp(found.GetCreationTimestamp())
	stored.SetResourceVersion(found.GetResourceVersion())
	stored.SetGeneration(found.GetGeneration())
	if !reflect.DeepEqual(specOf(stored), specOf(found)) {
		stored.SetGeneration(found.GetGeneration() + 1)
	}
	return stored
}

func (s *store) remove(k key) error {
	_, err := s.land(k, func(found *unstructured.Unstructured) (*unstructured.Unstructured, error) {
		if found == nil {
			return nil, apierrors.NewNotFound(k.resource(), k.name)
		}
		return nil, nil
	})
	return err
}

func specOf(object *unstructured.Unstructured) map[string]any {
	out := maps.Clone(object.Object)
	delete(out, "status")
	delete(out, "metadata")
	return out
}

// toJSON is a value as the API server's answers are decoded: whole numbers are int64.
func toJSON(value any) (map[string]any, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	var out map[string]any
	return out, utiljson.Unmarshal(raw, &out)
}
