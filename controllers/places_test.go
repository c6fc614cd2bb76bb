package controllers

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

const partnerEntry = `
metadata: {name: partner, namespace: bookinfo}
kind: ServiceEntry
spec:
  hosts: [Api.partner.com, other.partner.com]
  endpoints:
  - {address: 10.0.0.1, labels: {version: v1}}
  - {address: 10.0.0.2}
  - strange
`

func TestListedEndpoints(t *testing.T) {
	p := &place{entries: []*unstructured.Unstructured{parse(t, partnerEntry)}}
	want := []endpoint{
		{"serviceentry partner endpoint 0", labelled("version", "v1"), true}, {"serviceentry partner endpoint 1", nil, true},
	}
	if diff := cmp.Diff(want, p.listedEndpoints(), cmp.AllowUnexported(endpoint{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPlaces(t *testing.T) {
	chosen := parse(t, "{spec: {hosts: [api.partner.com], workloadSelector: {labels: {app: partner}}}}")
	dns := parse(t, "{spec: {hosts: [api.partner.com], resolution: DNS}}")
	for name, tc := range map[string]struct {
		place                     place
		exists, selects, unlisted bool
	}{
		"nothing":                       {place{}, false, false, false},
		"a Service":                     {place{service: reviewsService()}, true, true, false},
		"a Service without a selector":  {place{service: &corev1.Service{}}, true, false, false},
		"WorkloadEntries by a selector": {place{entries: []*unstructured.Unstructured{chosen}}, true, true, false},
		"addresses left to DNS":         {place{entries: []*unstructured.Unstructured{dns}}, true, false, true},
		"listed addresses":              {place{entries: []*unstructured.Unstructured{parse(t, partnerEntry)}, endpoints: []endpoint{{}}}, true, false, false},
	} {
		if got := tc.place.exists(); got != tc.exists {
			t.Errorf("%s: exists %v", name, got)
		}
		if got := tc.place.selects(); got != tc.selects {
			t.Errorf("%s: selects %v", name, got)
		}
		if got := tc.place.unlisted(); got != tc.unlisted {
			t.Errorf("%s: unlisted %v", name, got)
		}
	}
}

// Istio takes a name with a dot for a full one, and a ServiceEntry's hosts as they stand.
func TestForeignHost(t *testing.T) {
	for name, tc := range map[string]struct {
		host   string
		exists bool
		want   string
	}{
		"a Service":                {"reviews", true, ""},
		"a ServiceEntry":           {"api.partner.com", true, ""},
		"no such Service":          {"reviews", false, "there is no Service reviews in namespace bookinfo"},
		"no such Service, in full": {"reviews.bookinfo.svc.cluster.local", false, "there is no Service reviews in namespace bookinfo"},
		"another namespace's":      {"reviews.other.svc.cluster.local", false, "is a Service of namespace other"},
		"half a name":              {"reviews.bookinfo", false, "takes a name with dots for a full one"},
	} {
		p := foreignHost("spec.host", tc.host, "bookinfo", tc.exists)
		switch {
		case tc.want == "" && p != nil:
			t.Errorf("%s: %+v", name, p)
		case tc.want != "" && (p == nil || p.Reason != v1.ReasonForeignHost || !strings.Contains(p.Message, tc.want)):
			t.Errorf("%s: %+v, want %s", name, p, tc.want)
		}
	}
	if got := entryHosts(parse(t, partnerEntry)); !cmp.Equal(got, []string{"api.partner.com", "other.partner.com"}) {
		t.Errorf("hosts of the ServiceEntry: %v", got)
	}
}
