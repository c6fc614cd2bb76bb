package mesh

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

// TestMirrorsComeBack: whatever mirrors a route had, it has them again after a mirror step, and nobody meets ours again.
func TestMirrorsComeBack(t *testing.T) {
	for name, route := range map[string]string{
		"none":                 `{name: primary, route: [{destination: {host: reviews, subset: v1}}]}`,
		"single":               `{name: primary, mirror: {host: audit}, route: [{destination: {host: reviews, subset: v1}}]}`,
		"single, own host":     `{name: primary, mirror: {host: reviews, subset: v2}, mirrorPercentage: {value: 12.5}, route: [{destination: {host: reviews, subset: v1}}]}`,
		"deprecated percent":   `{name: primary, mirror: {host: audit}, mirrorPercent: 20, route: [{destination: {host: reviews, subset: v1}}]}`,
		"deprecated, in snake": `{name: primary, mirror: {host: audit}, mirror_percent: 20, route: [{destination: {host: reviews, subset: v1}}]}`,
		"single, the canary":   `{name: primary, mirror: {host: reviews, subset: v3}, route: [{destination: {host: reviews, subset: v1}}]}`,
		"several":              `{name: primary, mirrors: [{destination: {host: audit}}, {destination: {host: reviews, subset: v2}, percentage: {value: 1}}], route: [{destination: {host: reviews, subset: v1}}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			found := virtualService(t, route)
			managed := SaveMirrors(v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "gone"}, {Key: "primary", Subset: "v1"}}}, found)
			if managed.Routes[0].SavedMirror != "" || managed.Routes[1].SavedMirror == "" {
				t.Fatalf("saved %+v", managed.Routes)
			}
			managed.Routes = managed.Routes[1:]
			shadowed, problem := VirtualService(reviewsWith(t, "CANARY weight: 0, mirror: {percentage: 100}"), managed, found)
			if problem != nil || !strings.Contains(summary(shadowed)[0], "mirrors reviews/v3 100") || strings.Contains(summary(shadowed)[0], " mirror ") {
				t.Fatalf("%v %+v", summary(shadowed), problem)
			}
			if diff := cmp.Diff(managed, SaveMirrors(managed, shadowed)); diff != "" {
				t.Errorf("saving again notes ours:\n%s", diff)
			}
			again, problem := VirtualService(reviewsWith(t, "CANARY weight: 0, mirror: {percentage: 100}"), managed, shadowed)
			if diff := cmp.Diff(shadowed, again); diff != "" || problem != nil {
				t.Errorf("rendering twice changes something: %+v\n%s", problem, diff)
			}
			back, problem := VirtualService(reviewsWith(t, "weight: 0"), managed, shadowed)
			if diff := cmp.Diff(found, back); diff != "" || problem != nil {
				t.Errorf("%+v -want +got:\n%s", problem, diff)
			}
		})
	}
}

// TestMirrorThatCameSince: a single mirror that somebody adds in a mirror step is saved as well, ours beside it is not.
func TestMirrorThatCameSince(t *testing.T) {
	managed := v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", SavedMirror: `{"mirrors":[{"destination":{"host":"audit"}}]}`}}}
	found := virtualService(t, `{name: primary, mirror: {host: late}, mirrors: [{destination: {host: audit}}, {destination: {host: later}}, {destination: {host: reviews, subset: v3}}],
	  route: [{destination: {host: reviews}}]}`)
	managed = SaveMirrors(managed, found)
	const want = `{"mirror":{"host":"late"},"mirrors":[{"destination":{"host":"audit"}}]}`
	if got := managed.Routes[0].SavedMirror; got != want {
		t.Errorf("saved %s, want %s", got, want)
	}
	shadowed, _ := VirtualService(reviewsWith(t, "CANARY weight: 0, mirror: {percentage: 9}"), managed, found)
	if diff := cmp.Diff([]string{"primary -> reviews/v1 100, reviews/v3 0 mirrors audit/ <nil> mirrors later/ <nil> mirrors late/ 100 mirrors reviews/v3 9"}, summary(shadowed)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestMirrorsOutsideOfOurs: outside of mirror steps people do with a route's mirrors what they like, and one that was moved away
// is never lost.
func TestMirrorsOutsideOfOurs(t *testing.T) {
	managed := v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary", SavedMirror: `{"mirror":{"host":"audit"}}`}}}
	const rest = `route: [{destination: {host: reviews, subset: v1}}]}`
	for name, tc := range map[string]struct{ found, want string }{
		"another one":          {`{name: primary, mirror: {host: other}, `, "mirror other"},
		"none any more":        {`{name: primary, `, ""},
		"several":              {`{name: primary, mirrors: [{destination: {host: other}, percentage: {value: 1}}], `, "mirrors other/ 1"},
		"ours never came":      {`{name: primary, mirror: {host: audit}, `, "mirror audit"},
		"ours stands":          {`{name: primary, mirrors: [{destination: {host: reviews, subset: v3}}], `, "mirror audit"},
		"ours and a newer one": {`{name: primary, mirrors: [{destination: {host: audit}}, {destination: {host: other}, percentage: {value: 1}}], `, "mirrors other/ 1 mirrors audit/ 100"},
	} {
		t.Run(name, func(t *testing.T) {
			got, problem := VirtualService(reviewsWith(t, "weight: 0"), managed, virtualService(t, tc.found+rest))
			if problem != nil {
				t.Fatal(problem)
			}
			want := strings.TrimSpace("primary -> reviews/v1 " + tc.want)
			if lines := summary(got); len(lines) != 1 || lines[0] != want {
				t.Errorf("%q, want %q", lines, want)
			}
		})
	}
}
