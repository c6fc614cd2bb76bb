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

func TestRefuseDriven(t *testing.T) {
	const reviews = "---\n{apiVersion: sluice.dev/v1, kind: Rollout, metadata: {name: r}, spec: {host: reviews, steps: [{name: a}, {fault: {host: ratings}}, x]}}\n"
	istio := func(kind, spec string) string {
		return "---\n{apiVersion: networking.istio.io/v1, kind: " + kind + ", metadata: {name: i}, spec: " + spec + "}\n"
	}
	route := func(protocol, host string) string {
		return "{hosts: [public.example.com], " + protocol + ": [{route: [{destination: {host: " + host + "}}]}]}"
	}
	live := []Driven{{Rollout: "bookinfo/r", Namespace: "bookinfo", Host: "reviews"}}
	for name, tc := range map[string]struct {
		content string
		live    []Driven
		refused bool
	}{
		"host":                       {reviews + istio("VirtualService", "{hosts: [reviews]}"), nil, true},
		"fqdn":                       {reviews + istio("VirtualService", "{hosts: [reviews.bookinfo.svc.cluster.local]}"), nil, true},
		"destination":                {reviews + istio("VirtualService", route("http", "reviews")), nil, true},
		"tcp destination":            {reviews + istio("VirtualService", route("tcp", "reviews")), nil, true},
		"tls destination":            {reviews + istio("VirtualService", route("tls", "reviews")), nil, true},
		"rule":                       {reviews + istio("DestinationRule", "{host: reviews}"), nil, true},
		"faulted host":               {reviews + istio("VirtualService", "{hosts: [ratings]}"), nil, true},
		"rule of a faulted host":     {reviews + istio("DestinationRule", "{host: ratings}"), nil, false},
		"another host":               {reviews + istio("VirtualService", route("http", "details")), nil, false},
		"another service, same name": {reviews + istio("VirtualService", "{hosts: [reviews.other.svc.cluster.local]}"), nil, false},
		"gateway":                    {reviews + istio("Gateway", "{servers: [{hosts: [reviews]}]}"), nil, false},
		"another group":              {reviews + "---\n{apiVersion: x.io/v1, kind: DestinationRule, metadata: {name: i}, spec: {host: reviews}}\n", nil, false},
		"live":                       {istio("DestinationRule", "{host: reviews}"), live, true},
		"nobody's":                   {istio("DestinationRule", "{host: reviews}"), nil, false},
		"live elsewhere":             {istio("DestinationRule", "{host: reviews}"), []Driven{{Rollout: "x/r", Namespace: "x", Host: "reviews"}}, false},
		"odd shapes":                 {reviews + istio("VirtualService", "{hosts: 3, http: [1, {route: 2}, {route: [3, {destination: 4}]}]}"), nil, false},
	} {
		manifests := mustDecode(t, strings.TrimPrefix(tc.content, "---\n"))
		if err := Place(manifests, "bookinfo", "c0ffee", testScope); err != nil {
			t.Fatal(err)
		}
		err := RefuseDriven(manifests, tc.live)
		if (err != nil) != tc.refused {
			t.Errorf("%s: %v, want refused %t", name, err, tc.refused)
		}
		if err != nil && !strings.Contains(err.Error(), "the Rollout bookinfo/r drives") {
			t.Errorf("%s: %v does not name the Rollout", name, err)
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
