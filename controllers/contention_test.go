package controllers

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// What somebody else changes in a route is kept, and its copies follow: that is no quarrel, however often. What is undone is one.
func TestWhatCountsAsUndone(t *testing.T) {
	object := func(version, http string) *unstructured.Unstructured {
		return parse(t, "{metadata: {name: reviews, resourceVersion: '"+version+"'}, spec: {http: ["+http+"]}}")
	}
	const (
		route  = "{name: primary, route: [{destination: {host: reviews, subset: v1}, weight: 50}]}"
		match  = "{name: sluice-match-reviews-0, route: [{destination: {host: reviews, subset: v3}}]}, "
		edited = "{name: primary, timeout: 3s, route: [{destination: {host: reviews, subset: v1}, weight: 50}]}"
		follow = "{name: sluice-match-reviews-0, timeout: 3s, route: [{destination: {host: reviews, subset: v3}}]}, "
		moved  = "{name: primary, timeout: 3s, route: [{destination: {host: reviews, subset: v1}, weight: 5}]}"
	)
	for name, tc := range map[string]struct {
		found, want *unstructured.Unstructured
		stored      string
		altered     bool
		is          bool
	}{
		"the route is edited, its copy follows": {found: object("2", match+edited), want: object("2", follow+edited)},
		"the copy is taken away":                {found: object("2", route), want: object("2", match+route), is: true},
		"the copy is edited":                    {found: object("2", follow+route), want: object("2", match+route), is: true},
		"the weight is moved as well":           {found: object("2", match+moved), want: object("2", follow+edited), is: true},
		"the object is deleted":                 {want: object("", match+route), is: true},
		"it is as it was":                       {found: object("1", match+route), want: object("1", follow+route)},
		"it was stored otherwise":               {found: object("2", match+edited), want: object("2", follow+edited), stored: "2", altered: true, is: true},
	} {
		c := &contest{right: "p", version: "1", rest: restOf(object("1", match+route), "reviews"), stored: tc.stored, altered: tc.altered}
		if got := c.foreign(&change{kind: kindVirtualService, found: tc.found, want: tc.want}, "reviews", "p"); got != tc.is {
			t.Errorf("%s: undone %v, want %v", name, got, tc.is)
		}
	}
}

// A state to which traffic was taken back is written each second, whoever asked for it; not for ever where nothing was rejected.
func TestWentBack(t *testing.T) {
	stable := &v1.Traffic{Stable: v1.Target{Version: "v1"}}
	half := &v1.Traffic{Stable: v1.Target{Version: "v1"}, Canary: &v1.Target{Version: "v3"}, Weight: 50}
	now := time.Unix(1_000_000, 0)
	ended := func(verdict string, ago time.Duration) []v1.RunRecord {
		return []v1.RunRecord{{Verdict: verdict, FinishedAt: metav1.NewMicroTime(now.Add(-ago))}}
	}
	for name, tc := range map[string]struct {
		status v1.RolloutStatus
		want   bool
	}{
		"rejected":      {v1.RolloutStatus{Traffic: stable, Rejected: &v1.Rejection{}}, true},
		"reverted":      {v1.RolloutStatus{Traffic: stable, History: ended(v1.ReasonReverted, time.Minute)}, true},
		"promoted":      {v1.RolloutStatus{Traffic: stable, History: ended(v1.ReasonPromoted, time.Minute)}, false},
		"never ran":     {v1.RolloutStatus{Traffic: stable}, false},
		"long ago":      {v1.RolloutStatus{Traffic: stable, History: ended(v1.ReasonReverted, contendedWithin)}, false},
		"in a run":      {v1.RolloutStatus{Traffic: half, History: ended(v1.ReasonReverted, time.Minute)}, false},
		"nothing known": {v1.RolloutStatus{}, false},
	} {
		if got := wentBack(&tc.status, now); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
