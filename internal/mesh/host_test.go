package mesh

import (
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"
)

func TestSubsetName(t *testing.T) {
	for version, want := range map[string]string{
		"v3":                    `^v3$`,
		"1-4":                   `^1-4$`,
		"1.4.2":                 `^1-4-2-[0-9a-f]{6}$`,
		"V3":                    `^v3-[0-9a-f]{6}$`,
		"release/2026_11":       `^release-2026-11-[0-9a-f]{6}$`,
		"...":                   `^v-[0-9a-f]{6}$`,
		strings.Repeat("a", 63): `^a{63}$`,
		strings.Repeat("a", 64): `^a{56}-[0-9a-f]{6}$`,
	} {
		if got := SubsetName(version); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("SubsetName(%q) = %q, want %s", version, got, want)
		}
	}
}

// TestSubsetNameAlwaysFits: any version gives a name that Istio takes, and different versions give different ones.
func TestSubsetNameAlwaysFits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		if problems := validation.IsDNS1123Label(SubsetName(a)); len(problems) > 0 {
			t.Fatalf("SubsetName(%q) = %q: %v", a, SubsetName(a), problems)
		}
		if a != b && SubsetName(a) == SubsetName(b) {
			t.Fatalf("%q and %q are both %q", a, b, SubsetName(a))
		}
	})
}

func TestServiceOf(t *testing.T) {
	for host, want := range map[string]string{
		"reviews":                              "reviews/bookinfo",
		"Reviews":                              "reviews/bookinfo",
		"reviews.bookinfo.svc.cluster.local":   "reviews/bookinfo",
		"ratings.other.svc.cluster.local":      "ratings/other",
		"a.reviews.bookinfo.svc.cluster.local": "",
		"reviews.bookinfo":                     "", // istiod does not expand it
		"reviews.bookinfo.svc":                 "",
		"api.partner.com":                      "",
		"":                                     "",
		"*":                                    "",
		".svc.cluster.local":                   "",
		"reviews.svc.cluster.local":            "",
		".bookinfo.svc.cluster.local":          "",
		"*.bookinfo.svc.cluster.local.partner.io": "",
	} {
		name, namespace, ok := ServiceOf(host, "bookinfo")
		got := ""
		if ok {
			got = name + "/" + namespace
		}
		if got != want {
			t.Errorf("ServiceOf(%q) = %q, want %q", host, got, want)
		}
	}
}
