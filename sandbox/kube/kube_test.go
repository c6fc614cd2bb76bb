package kube_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/kube"
)

const lamps = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: lamps.example.com
spec:
  group: example.com
  scope: Namespaced
  names: {kind: Lamp, plural: lamps, singular: lamp, listKind: LampList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
---
# only a comment
---
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bookinfo"}}
`

const lamp = `
apiVersion: example.com/v1
kind: Lamp
metadata:
  name: desk
%s
bulbs: %d
`

func TestApplyAndDelete(t *testing.T) {
	c, err := controlplane.StartAPIOnly(t.Context(), controlplane.Options{Out: t.Output(), SkipIstioCRDs: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	client := c.Kube
	if err := client.Apply(t.Context(), "", []byte(lamps)); err != nil {
		t.Fatal(err)
	}
	resource := dynamic.NewForConfigOrDie(c.RESTConfig).
		Resource(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "lamps"}).Namespace("bookinfo")
	for _, bulbs := range []int64{1, 2} { // creates, then changes
		if err := client.Apply(t.Context(), "bookinfo", fmt.Appendf(nil, lamp, "", bulbs)); err != nil {
			t.Fatal(err)
		}
		got, err := resource.Get(t.Context(), "desk", metav1.GetOptions{})
		if err != nil || got.Object["bulbs"] != bulbs || got.GetManagedFields()[0].Manager != kube.FieldManager {
			t.Errorf("applied %d bulbs, got %v, %v", bulbs, got, err)
		}
	}

	if err := client.Apply(t.Context(), "", fmt.Appendf(nil, lamp, "", 3)); err == nil || !strings.Contains(err.Error(), "metadata.namespace") {
		t.Errorf("apply without a namespace: %v", err)
	}
	elsewhere := fmt.Appendf(nil, lamp, "  namespace: nowhere", 3)
	if err := client.Apply(t.Context(), "bookinfo", elsewhere); !apierrors.IsNotFound(err) {
		t.Errorf("an object's own namespace must win: %v, want NotFound", err)
	}
	if err := client.Apply(t.Context(), "bookinfo", []byte("{apiVersion: example.com/v1, kind: Desk, metadata: {name: x}}")); err == nil || !strings.Contains(err.Error(), "Desk") {
		t.Errorf("apply of an unknown kind: %v", err)
	}

	for range 2 { // the second time there is nothing to delete
		if err := client.Delete(t.Context(), "bookinfo", fmt.Appendf(nil, lamp, "", 2)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := resource.Get(t.Context(), "desk", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after Delete: %v, want NotFound", err)
	}
}

func TestDecode(t *testing.T) {
	objects, err := kube.Decode([]byte(lamps))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, object := range objects {
		got = append(got, object.GetKind()+"/"+object.GetName())
	}
	if diff := cmp.Diff([]string{"CustomResourceDefinition/lamps.example.com", "Namespace/bookinfo"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := json.Marshal(objects[0]); err != nil {
		t.Error(err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const fine = "{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n---\n"
	for name, text := range map[string]string{
		"no mapping": "- a\n",
		"no kind":    "apiVersion: v1\nmetadata: {name: a}\n",
		"no name":    "apiVersion: v1\nkind: Namespace\n",
		"bad YAML":   "a: b: c\n",
	} {
		if _, err := kube.Decode([]byte(fine + text)); err == nil || !strings.Contains(err.Error(), "document 2") {
			t.Errorf("%s: %v, want an error that names document 2", name, err)
		}
	}
}
