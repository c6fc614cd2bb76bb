package gitsync

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/runtime/schema"

	v1 "sluice.dev/sluice/api/v1"
)

func mustDecode(t *testing.T, content string) []Manifest {
	t.Helper()
	manifests, err := Decode([]File{{Path: "a.yaml", Content: []byte(content)}})
	if err != nil {
		t.Fatal(err)
	}
	return manifests
}

func testScope(kind schema.GroupVersionKind) (namespaced, known bool, err error) {
	switch kind.Kind {
	case "ClusterRole", "CustomResourceDefinition", "Namespace":
		return false, true, nil
	case "Unknown", "Widget", "Cluster":
		return false, false, nil
	case "Broken":
		return false, false, errors.New("discovery failed")
	default:
		return true, true, nil
	}
}

func TestPlace(t *testing.T) {
	manifests := mustDecode(t, `
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: other}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: a, namespace: other}}
---
{apiVersion: example.com/v1, kind: Unknown, metadata: {name: a}}
---
{apiVersion: example.com/v1, kind: Widget, metadata: {name: a}}
---
{apiVersion: example.com/v1, kind: Cluster, metadata: {name: a}}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: a}, spec: {group: example.com, scope: Namespaced, names: {kind: Widget}}}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: b}, spec: {group: example.com, scope: Cluster, names: {kind: Cluster}}}
---
{apiVersion: sluice.dev/v1, kind: Rollout, metadata: {name: a, annotations: {sluice.dev/revision: forged}}}
`)
	if err := Place(manifests, "bookinfo", "c0ffee", testScope); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"ConfigMap bookinfo/a", "ConfigMap other/a", "ClusterRole a", "Unknown bookinfo/a", "Widget bookinfo/a", "Cluster a",
		"CustomResourceDefinition a", "CustomResourceDefinition b", "Rollout bookinfo/a",
	}
	for i, m := range manifests {
		if got := describe(m.Object); got != want[i] {
			t.Errorf("got %s, want %s", got, want[i])
		}
		revision := ""
		if i == len(manifests)-1 {
			revision = "c0ffee"
		}
		if got := m.Object.GetAnnotations()[v1.RevisionAnnotation]; got != revision {
			t.Errorf("%s: revision %q, want %q", want[i], got, revision)
		}
	}
}

func TestPlaceRefuses(t *testing.T) {
	for _, tc := range []struct{ first, second, want string }{
		{
			"{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: bookinfo}}",
			"a.yaml (document 2): ConfigMap bookinfo/a stands in a.yaml (document 1) as well",
		},
		{"{apiVersion: x.io/v1, kind: A, metadata: {name: a}}", "{apiVersion: x.io/v2, kind: A, metadata: {name: a}}", "as well"},
		{
			"{apiVersion: rbac/v1, kind: ClusterRole, metadata: {name: a, namespace: x}}",
			"{apiVersion: rbac/v1, kind: ClusterRole, metadata: {name: a, namespace: z}}", "ClusterRole a stands in",
		},
		{"# none", "{apiVersion: v1, kind: Broken, metadata: {name: a}}", "discovery failed"},
	} {
		if err := Place(mustDecode(t, tc.first+"\n---\n"+tc.second), "bookinfo", "c0ffee", testScope); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %q", err, tc.want)
		}
	}
}

func TestInOrder(t *testing.T) {
	manifests := mustDecode(t, strings.Join([]string{
		"{apiVersion: sluice.dev/v1, kind: Rollout, metadata: {name: r}}", "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}",
		"{apiVersion: v1, kind: Service, metadata: {name: s}}", "{apiVersion: v1, kind: Namespace, metadata: {name: ns}}",
		"{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: c}}",
	}, "\n---\n"))
	var kinds []string
	for _, m := range inOrder(manifests) {
		kinds = append(kinds, m.Object.GetKind())
	}
	if diff := cmp.Diff([]string{"CustomResourceDefinition", "Namespace", "Service", "Deployment", "Rollout"}, kinds); diff != "" {
		t.Error(diff)
	}
}
