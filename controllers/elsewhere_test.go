package controllers

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	istio "istio.io/api/networking/v1alpha3"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

const (
	reviewsV2 = "reviews-v2.bookinfo.svc.cluster.local"
	partner   = "api.partner.com"
)

// seenElsewhere is a namespace with the Service reviews, of v1's pods, and two hosts that versions may have of their own.
func seenElsewhere(t *testing.T) *sight {
	t.Helper()
	v1s, v2s := labelled("app", "reviews", "version", "v1"), labelled("app", "reviews", "version", "v2")
	return &sight{
		place: place{service: serviceOf("reviews"), endpoints: []endpoint{{"pod a", v1s, true}}},
		elsewhere: map[string]*place{
			reviewsV2: {
				service:   &corev1.Service{Spec: corev1.ServiceSpec{Selector: v2s}},
				workloads: []workload{deployment(deploymentOf("reviews-v2", 1, 1, 1, v2s))},
				endpoints: []endpoint{{"pod b", v2s, true}},
			},
			partner: {entries: []*unstructured.Unstructured{parse(t, "{spec: {hosts: [api.partner.com], resolution: DNS}}")}},
		},
	}
}

func elsewhereSpec() v1.RolloutSpec {
	return v1.RolloutSpec{Host: "reviews", Version: "v2", Versions: []v1.Version{
		{Name: "v2", Destination: &v1.Destination{Host: "reviews-v2", Port: &istio.PortSelector{Number: 9080}}},
		{Name: "v3", Destination: &v1.Destination{Host: partner}},
		{Name: "v4", Destination: &v1.Destination{Host: "reviews.other.svc.cluster.local"}},
	}}
}

func TestVersionsElsewhere(t *testing.T) {
	s := seenElsewhere(t)
	versions, serving := observeVersions(rolloutOf(elsewhereSpec()), s, nil)
	if diff := cmp.Diff([]string{"v1"}, serving); diff != "" {
		t.Errorf("serving (-want +got):\n%s", diff)
	}
	v2 := versions["v2"]
	if v2.Revision == "" {
		t.Error("v2's revision is that of no workload")
	}
	v2.Revision = ""
	want := pipeline.Version{
		Found: true, Available: true, Ready: 1, Workload: "reviews-v2", Host: "reviews-v2", Port: 9080,
		Labels: labelled("app", "reviews", "version", "v2"),
	}
	if diff := cmp.Diff(want, v2); diff != "" {
		t.Errorf("v2 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(pipeline.Version{Found: true, Available: true, Ready: 1, Host: partner}, versions["v3"]); diff != "" {
		t.Errorf("v3, whose addresses are left to DNS (-want +got):\n%s", diff)
	}
	if v4 := versions["v4"]; v4.Found || v4.Foreign == nil || !strings.Contains(v4.Foreign.Message, "namespace other") {
		t.Errorf("v4 is another namespace's: %+v", v4)
	}
	if versions["v1"].Overlaps != "" || versions["v1"].Subset != "v1" {
		t.Errorf("v1: %+v", versions["v1"])
	}
}

// While a Service is gone its version keeps the labels that are committed: it is no other version, but one without endpoints.
func TestAServiceThatIsGone(t *testing.T) {
	s := seenElsewhere(t)
	s.elsewhere[reviewsV2] = &place{}
	rollout, set := rolloutOf(elsewhereSpec()), labelled("app", "reviews", "version", "v2")
	rollout.Status.Traffic = &v1.Traffic{Stable: v1.Target{Version: "v1"}, Canary: &v1.Target{Version: "v2", Host: "reviews-v2", Labels: set}}
	got := s.version(rollout, "v2", nil)
	if diff := cmp.Diff(set, got.Labels); diff != "" || got.Found || got.Foreign == nil {
		t.Errorf("%+v, labels (-want +got):\n%s", got, diff)
	}
}

// Whoever edits or takes out the entry of the stable version in mid-run moves none of its pods: what the way back asks of it is
// whether anything is ready where it leads to.
func TestReadinessIsOfWhereTrafficLeads(t *testing.T) {
	for name, tc := range map[string]struct {
		edit      func(*v1.RolloutSpec)
		committed v1.Target
		want      int32
	}{
		"as described":             {func(*v1.RolloutSpec) {}, v1.Target{Version: "v2", Host: "reviews-v2", Port: 9080}, 1},
		"its entry taken out":      {func(s *v1.RolloutSpec) { s.Versions = nil }, v1.Target{Version: "v2", Host: "reviews-v2", Port: 9080}, 1},
		"moved to an empty host":   {func(s *v1.RolloutSpec) { s.Versions[0].Destination.Host = "gone" }, v1.Target{Version: "v2", Host: "reviews-v2", Port: 9080}, 1},
		"moved from an empty host": {func(*v1.RolloutSpec) {}, v1.Target{Version: "v2", Host: "gone"}, 0},
		"its labels edited": {func(s *v1.RolloutSpec) {
			s.Versions = append(s.Versions, v1.Version{Name: "v1", Labels: labelled("version", "one")})
		}, v1.Target{Version: "v1", Subset: "v1", Labels: labelled("version", "v1")}, 1},
		"edited to labels that pods have": {func(s *v1.RolloutSpec) {
			s.Versions = append(s.Versions, v1.Version{Name: "v1", Labels: labelled("app", "reviews")})
		}, v1.Target{Version: "v1", Subset: "v1", Labels: labelled("version", "one")}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			spec := elsewhereSpec()
			tc.edit(&spec)
			rollout := rolloutOf(spec)
			rollout.Status.Traffic = &v1.Traffic{Stable: tc.committed, Canary: &v1.Target{Version: "v9", Subset: "v9"}, Weight: 50}
			if got := seenElsewhere(t).version(rollout, tc.committed.Version, nil).Ready; got != tc.want {
				t.Errorf("ready %d, want %d", got, tc.want)
			}
		})
	}
	rollout := rolloutOf(v1.RolloutSpec{Host: "reviews"})
	rollout.Status.Traffic = &v1.Traffic{Stable: v1.Target{Version: "v2", Host: "reviews-v2"}}
	if diff := cmp.Diff([]string{"reviews-v2"}, hostsElsewhere(rollout)); diff != "" {
		t.Errorf("hosts to look at (-want +got):\n%s", diff)
	}
}

func TestVersionsThatShareEndpoints(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*v1.RolloutSpec, *sight)
		want   string
	}{
		"each has its own": {func(*v1.RolloutSpec, *sight) {}, ""},
		"a subset of another host": {func(_ *v1.RolloutSpec, s *sight) {
			s.endpoints = append(s.endpoints, s.elsewhere[reviewsV2].endpoints...)
		}, ""},
		"the pods of a subset": {func(_ *v1.RolloutSpec, s *sight) { s.elsewhere[reviewsV2].endpoints = s.endpoints }, "v1"},
		"one host twice":       {func(spec *v1.RolloutSpec, _ *sight) { spec.Versions[1].Destination = spec.Versions[0].Destination }, "v3"},
		"one host, different ports": {func(spec *v1.RolloutSpec, _ *sight) {
			spec.Versions[1].Destination = &v1.Destination{Host: "reviews-v2"}
		}, "workload"},
	} {
		t.Run(name, func(t *testing.T) {
			s, spec := seenElsewhere(t), elsewhereSpec()
			spec.InitialVersion = "v1"
			tc.change(&spec, s)
			rollout := rolloutOf(spec)
			rollout.Status.Stable = "v1"
			versions, _ := observeVersions(rollout, s, nil)
			want := tc.want
			if want == "workload" {
				want = "v3" // one workload runs both
			}
			if got := versions["v2"].Overlaps; got != want {
				t.Errorf("v2 overlaps %q, want %q", got, want)
			}
		})
	}
}

func TestTokensOfVersionsElsewhere(t *testing.T) {
	rollout := rolloutOf(elsewhereSpec())
	in := newInterests()
	in.note(rollout, nil)
	object := func(kind, spec string) *unstructured.Unstructured {
		obj := parse(t, "{kind: "+kind+", metadata: {name: any, namespace: bookinfo}, spec: "+spec+"}")
		return obj
	}
	for name, tc := range map[string]struct {
		object *unstructured.Unstructured
		want   bool
	}{
		"a route to it":              {object("VirtualService", "{http: [{route: [{destination: {host: reviews-v2}}]}]}"), true},
		"its rule":                   {object("DestinationRule", "{host: reviews-v2}"), true},
		"a ServiceEntry for it":      {object("ServiceEntry", "{hosts: [api.partner.com]}"), true},
		"one for another":            {object("ServiceEntry", "{hosts: [other.partner.com]}"), false},
		"a rule for a wildcard":      {object("DestinationRule", "{host: '*.partner.com'}"), true},
		"a route for a wildcard":     {object("VirtualService", "{hosts: ['*.partner.com']}"), true},
		"one for gateways only":      {object("VirtualService", "{hosts: ['*.partner.com'], gateways: [edge]}"), false},
		"one for whatever they take": {object("VirtualService", "{hosts: ['*'], gateways: [edge]}"), false},
	} {
		if got := len(in.inMesh(tc.object)) > 0; got != tc.want {
			t.Errorf("%s wakes the Rollout: %v", name, got)
		}
	}
}

func TestBreakersElsewhere(t *testing.T) {
	s := seenElsewhere(t)
	s.destinationRules = []*unstructured.Unstructured{
		parse(t, "{spec: {host: reviews-v2, trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}}}}}"),
		parse(t, "{spec: {host: api.partner.com}}"),
		parse(t, "{spec: {host: details, trafficPolicy: {outlierDetection: {interval: 1s}}}}"),
	}
	if diff := cmp.Diff(map[string]bool{reviewsV2: true}, s.breakersElsewhere(nil, rolloutOf(elsewhereSpec()))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
