package mesh

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

// TestStaleMirrorsAreForgotten: what was saved for one mirror step is not brought back by the next when people changed it since.
func TestStaleMirrorsAreForgotten(t *testing.T) {
	for name, tc := range map[string]struct{ mirrors, want string }{
		"taken away":  {``, `{}`},
		"another one": {`mirror: {host: other}, `, `{"mirror":{"host":"other"}}`},
		"several":     {`mirrors: [{destination: {host: other}}], `, `{"mirrors":[{"destination":{"host":"other"}}]}`},
		"ours stands": {`mirrors: [{destination: {host: audit}}, {destination: {host: reviews, subset: v3}}], `, `{"mirror":{"host":"audit"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			managed := v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", SavedMirror: `{"mirror":{"host":"audit"}}`}}}
			found := virtualService(t, `{name: primary, `+tc.mirrors+`route: [{destination: {host: reviews, subset: v1}}]}`)
			if got := SaveMirrors(managed, found).Routes[0].SavedMirror; got != tc.want {
				t.Errorf("saved %s, want %s", got, tc.want)
			}
		})
	}
}

// TestMadeRouteHoldsNoSingleMirror: nothing is saved of a route that Sluice made, so its copies in a mirror step are the same as
// those of the next rendering.
func TestMadeRouteHoldsNoSingleMirror(t *testing.T) {
	r := reviewsWith(t, "CANARY weight: 5, match: "+jason+", mirror: {percentage: 9}")
	found := virtualService(t, `{name: primary, mirror: {host: other}, mirrorPercentage: {value: 3}, route: [{destination: {host: reviews}}]}`)
	got, problem := VirtualService(r, v1.ManagedVirtualService{Name: "reviews", Created: true}, found)
	if problem != nil {
		t.Fatal(problem)
	}
	want := []string{"sluice-match-reviews-0 -> reviews/v3", "primary -> reviews/v1 95, reviews/v3 5 mirrors reviews/v3 9"}
	if diff := cmp.Diff(want, summary(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestOwnMirrorJustLikeOurs: a route that mirrors to the canary's subset by itself has that mirror once after the run, not twice.
func TestOwnMirrorJustLikeOurs(t *testing.T) {
	found := parseAll(t, "VirtualService", `
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - name: primary
    route: [{destination: {host: reviews, subset: v1}}]
    mirrors: [{destination: {host: reviews, subset: v3}, percentage: {value: 100}}]
`)[0]
	managed := v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", Subset: "v1"}}}
	mirroring := rolloutOf("reviews", &v1.Traffic{
		Stable: v1.Target{Version: "v1", Subset: "v1"}, Canary: &v1.Target{Version: "v3", Subset: "v3"}, Mirror: &v1.MirrorTraffic{Percentage: 100},
	})
	now := found
	for range 2 { // twice, as after a restart in the step
		managed = SaveMirrors(managed, now)
		next, problem := VirtualService(mirroring, managed, now)
		if problem != nil {
			t.Fatalf("%+v", problem)
		}
		now = next
	}
	got, problem := VirtualService(rolloutOf("reviews", &v1.Traffic{Stable: v1.Target{Version: "v1", Subset: "v1"}}), managed, now)
	if problem != nil {
		t.Fatalf("%+v", problem)
	}
	if diff := cmp.Diff(found.Object, got.Object); diff != "" {
		t.Errorf("after the run (-want +got):\n%s", diff)
	}
}
