package mesh

import (
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"

	v1 "sluice.dev/sluice/api/v1"
)

// FuzzRender: whatever JSON a cluster holds, nothing panics, what was found is not changed, and what is rendered stays as it is
// when it is rendered again.
func FuzzRender(f *testing.F) {
	f.Add(`{"hosts":["reviews"],"http":[{"name":"primary","route":[{"destination":{"host":"reviews"}}]}]}`)
	f.Add(`{"http":[{"match":[{"uri":{"prefix":"/"}}],"mirror":{"host":"audit"},"route":[{"destination":{"host":"ratings"}}]},null,1]}`)
	f.Add(`{"hosts":["reviews"],"tcp":[{"route":[{"destination":{"host":"reviews"}}]}],"tls":[null,{"match":[{"sniHosts":["a"]}],"route":[{"destination":{"host":"reviews"}}]}]}`)
	f.Fuzz(func(t *testing.T, spec string) {
		var raw any
		if json.Unmarshal([]byte(spec), &raw) != nil {
			t.Skip()
		}
		found := &unstructured.Unstructured{Object: object{"metadata": object{"name": "reviews", "namespace": "bookinfo"}, "spec": raw}}
		before := found.DeepCopy()
		for _, traffic := range []string{
			"weight: 0", "CANARY weight: 30, match: " + jason + ", fault: {match: " + jason + ", " + delayed + "}",
			"CANARY weight: 0, mirror: {percentage: 5}, fault: {host: ratings, match: " + jason + ", " + delayed + "}",
		} {
			for _, list := range routeLists {
				renderAll(t, speaking(list, reviewsWith(t, traffic)), found)
			}
		}
		if diff := cmp.Diff(before, found); diff != "" {
			t.Errorf("what was found is changed (-before +after):\n%s", diff)
		}
	})
}

// renderAll lets every function of the package see an object, and renders it in all ways.
func renderAll(t *testing.T, r *v1.Rollout, found *unstructured.Unstructured) {
	t.Helper()
	list := []*unstructured.Unstructured{found}
	References(list, "bookinfo", "reviews")
	managed := v1.ManagedVirtualService{Name: "reviews", Routes: []v1.ManagedRoute{{Key: "primary"}}}
	if surveyed := Survey(r, list, list); len(surveyed.VirtualServices) == 1 {
		managed = surveyed.VirtualServices[0]
	}
	if _, problem := SurveyFault(r, "ratings", list); problem != nil && problem.Message == "" {
		t.Error("a problem without words")
	}
	managed = SaveMirrors(managed, found)
	created := v1.ManagedVirtualService{Name: "reviews", Created: true}
	for name, render := range map[string]renderer{
		"adopted": func(u *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
			return VirtualService(r, managed, u)
		},
		"created": func(u *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
			return VirtualService(r, created, u)
		},
		"fault": func(u *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
			return FaultVirtualService(r, &managed, u)
		},
		"made carrier": func(u *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
			return FaultVirtualService(r, &created, u)
		},
		"rule": func(u *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
			return DestinationRule(r, u, nil)
		},
	} {
		once, problem := render(found)
		if problem != nil || once == nil {
			continue
		}
		twice, problem := render(once)
		if diff := cmp.Diff(once, twice); diff != "" || problem != nil {
			t.Errorf("%s: rendering twice changes something: %+v\n%s", name, problem, diff)
		}
	}
}

// FuzzJoinedStrings: a value meets what two conditions on one string are joined to exactly if it meets both. Each condition is a
// form and a text; on a uri that ignores case or not, on a header, or on one that is to be excluded.
func FuzzJoinedStrings(f *testing.F) {
	f.Add(uint8(0), "/a/b", uint8(1), "/a", "/a/b", uint8(0))
	f.Add(uint8(1), "/API", uint8(0), "/api/V1", "/Api/v1", uint8(1))
	f.Add(uint8(2), "/ab+", uint8(1), "/", "/abb", uint8(2))
	f.Add(uint8(2), "a|b", uint8(2), "a|b", "b", uint8(3))
	f.Add(uint8(3), "", uint8(2), "1*", "", uint8(4))
	f.Fuzz(func(t *testing.T, leftForm uint8, left string, rightForm uint8, right, value string, place uint8) {
		a, b := condition(leftForm, left), condition(rightForm, right)
		if a == nil || b == nil {
			t.Skip()
		}
		step, route := object{"headers": object{"u": a}}, object{"headers": object{"u": b}}
		q := request{uri: value, headers: map[string]string{"u": value}}
		switch place % 5 {
		case 0:
			step, route = object{"uri": a}, object{"uri": b}
		case 1:
			step, route = object{"uri": a, "ignoreUriCase": true}, object{"uri": b, "ignoreUriCase": true}
		case 2:
			step, route = object{"withoutHeaders": object{"u": a}}, object{"withoutHeaders": object{"u": b}}
		case 3:
			route = object{"withoutHeaders": object{"u": b}}
		}
		if value == "" {
			q.headers = nil // missing
		}
		both, conflict := andMatches([]object{step}, []object{route}, "bookinfo")
		if conflict != "" {
			return
		}
		want := q.meets(step) && q.meets(route)
		if got := len(both) > 0 && q.meetsAny(both); got != want {
			t.Errorf("%q meets %v and %v: %v, but what they are joined to, %v: %v", value, step, route, want, both, got)
		}
	})
}

// condition is a StringMatch that Istio accepts; nil: there is none of this form and text.
func condition(form uint8, pattern string) object {
	switch form % 4 {
	case 0:
		return object{"exact": pattern}
	case 1:
		if pattern == "" {
			return nil
		}
		return object{"prefix": pattern}
	case 2:
		if _, err := regexp.Compile(pattern); pattern == "" || (err != nil && pattern != "*") {
			return nil
		}
		return object{"regex": pattern}
	}
	return object{}
}
