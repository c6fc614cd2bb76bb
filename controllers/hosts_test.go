package controllers

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

func onHost(name, host string, seconds int64, drives bool) v1.Rollout {
	r := rolloutOf(v1.RolloutSpec{Host: host})
	r.Name, r.CreationTimestamp = name, metav1.Unix(seconds, 0)
	if drives {
		r.Status.Traffic = &v1.Traffic{Stable: v1.Target{Version: "v1", Subset: "v1"}}
	}
	return *r
}

// elsewhere gives a Rollout a version with a host of its own.
func elsewhere(r v1.Rollout, host string) v1.Rollout {
	r.Spec.Versions = []v1.Version{{Name: "v2", Destination: &v1.Destination{Host: host}}}
	return r
}

func TestFirstOnHost(t *testing.T) {
	const full = "reviews.bookinfo.svc.cluster.local"
	for name, tc := range map[string]struct {
		rollouts []v1.Rollout
		want     map[string]string
	}{
		"the older": {
			[]v1.Rollout{onHost("a", "reviews", 9, false), onHost("b", full, 5, false), onHost("other", "ratings", 1, true)},
			map[string]string{"a": "b", "b": "", "other": ""},
		},
		"of the same second the name": {
			[]v1.Rollout{onHost("a", "reviews", 5, false), onHost("b", full, 5, false), onHost("c", full, 6, false)},
			map[string]string{"a": "", "b": "a", "c": "a"},
		},
		"one that drives has it": {
			[]v1.Rollout{onHost("a", "reviews", 5, false), onHost("b", full, 5, true), onHost("older", full, 1, false)},
			map[string]string{"a": "b", "b": "", "older": "b"},
		},
		"the host is a version's of another": {
			[]v1.Rollout{onHost("a", "reviews-v2", 9, false), elsewhere(onHost("b", full, 5, false), "reviews-v2"), onHost("c", "details", 1, true)},
			map[string]string{"a": "b", "b": "", "c": ""},
		},
		"a version's host is that of another": {
			[]v1.Rollout{onHost("a", "reviews-v2", 5, false), elsewhere(onHost("b", full, 9, false), "reviews-v2")}, map[string]string{"a": "", "b": "a"},
		},
		"versions share a host": {
			[]v1.Rollout{elsewhere(onHost("a", "reviews", 5, false), "spare"), elsewhere(onHost("b", "ratings", 9, false), "spare")}, map[string]string{"a": "", "b": ""},
		},
		"who leads a version to a host that is driven": {
			[]v1.Rollout{onHost("a", "reviews-v2", 9, true), elsewhere(onHost("b", full, 5, true), "reviews-v2")}, map[string]string{"a": "", "b": "a"},
		},
		"both drive": {
			[]v1.Rollout{onHost("a", "reviews", 5, true), onHost("b", full, 4, true)}, map[string]string{"a": "b", "b": ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := &sight{rollouts: tc.rollouts}
			for i := range tc.rollouts {
				r := &tc.rollouts[i]
				if got := s.firstOnHost(r); got != tc.want[r.Name] {
					t.Errorf("%s yields to %q, want %q", r.Name, got, tc.want[r.Name])
				}
			}
		})
	}
}

// An edit of either one's spec stalls a run, but what it has committed, a rollback say, is written all the same.
func TestAnEditKeepsNoWayBackFromBeingWritten(t *testing.T) {
	running, other := onHost("a", "reviews", 9, true), onHost("b", "details", 5, true)
	committed := elsewhere(running, "details")
	committed.Status.Traffic = &v1.Traffic{Stable: v1.Target{Version: "v2", Host: "details"}}
	for name, tc := range map[string]struct {
		rollouts   []v1.Rollout
		stalls, is string
	}{
		"its own edit":      {[]v1.Rollout{elsewhere(running, "details"), other}, "b", ""},
		"the other's":       {[]v1.Rollout{running, elsewhere(other, "reviews")}, "", ""},
		"the same host":     {[]v1.Rollout{running, onHost("b", "reviews", 5, true)}, "b", "b"},
		"committed to both": {[]v1.Rollout{committed, other}, "b", "b"},
	} {
		s := &sight{rollouts: tc.rollouts}
		if got := s.firstOnHost(&tc.rollouts[0]); got != tc.stalls {
			t.Errorf("%s: it stalls for %q, want %q", name, got, tc.stalls)
		}
		if got := s.keptFrom(&tc.rollouts[0]); got != tc.is {
			t.Errorf("%s: it is kept from writing by %q, want %q", name, got, tc.is)
		}
	}
}

// Who gives up a host, or takes one, wakes those who may have been in its way.
func TestHostsMoved(t *testing.T) {
	before := onHost("a", "reviews", 5, true)
	leads := elsewhere(before, "details")
	committed := leads
	committed.Status.Traffic = &v1.Traffic{Stable: v1.Target{Version: "v2", Host: "details"}}
	for name, tc := range map[string]struct {
		before, after v1.Rollout
		want          bool
	}{
		"nothing":              {leads, leads, false},
		"it begins":            {onHost("a", "reviews", 5, false), before, true},
		"a version comes":      {before, leads, true},
		"a version goes":       {leads, before, true},
		"traffic goes to it":   {leads, committed, true},
		"its entry is removed": {committed, func() v1.Rollout { r := committed; r.Spec.Versions = nil; return r }(), false},
	} {
		if got := hostsMoved(&tc.before, &tc.after); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}

// The cache may show this very Rollout as it was before it drove: it is not in its own way.
func TestNoRolloutYieldsToItsOwnPast(t *testing.T) {
	past, present := onHost("a", "reviews", 5, true), onHost("a", "reviews", 5, false)
	if got := (&sight{rollouts: []v1.Rollout{past}}).firstOnHost(&present); got != "" {
		t.Errorf("a yields to %q", got)
	}
}

// The fault of another Rollout, which calls reviews, stands on the VirtualService of reviews: a second one has to wait.
func TestAFaultOnTheOwnHostWaitsForOneThatStands(t *testing.T) {
	page := rolloutOf(v1.RolloutSpec{Host: "page"})
	page.Name = "page"
	carrying := page.DeepCopy()
	carrying.Status.FaultVirtualService = &v1.ManagedVirtualService{Name: "reviews"}
	standing := virtualServiceOf("reviews", "sluice-fault-page-0", "primary")
	matched := virtualServiceOf("reviews", "sluice-match-page-0", "primary")
	for name, tc := range map[string]struct {
		host, claimed string
		other         *v1.Rollout
		found         *unstructured.Unstructured
		want          string
	}{
		"nothing stands there":       {"", "", page, matched, ""},
		"by its status":              {"", "", carrying, nil, "page"},
		"the host in full":           {"reviews.bookinfo.svc.cluster.local", "", carrying, nil, "page"},
		"by the copy that was found": {"", "", page, standing, "page"},
		"by a claim":                 {"reviews", "reviews", page, nil, "page"},
		"a claim on something else":  {"", "ratings", page, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			rollout := atHalf("reviews")
			rollout.Spec.Steps = []v1.Step{{Name: "abort", Fault: &v1.Fault{Host: tc.host}}}
			r := NewRolloutReconciler(Dependencies{})
			if tc.claimed != "" {
				r.claims.take(keyOf("bookinfo", tc.claimed), keyOf("bookinfo", "page"))
			}
			s := &sight{rollouts: []v1.Rollout{*tc.other, *rollout}}
			if tc.found != nil {
				s.virtualServices = append(s.virtualServices, tc.found)
			}
			targets, err := r.faultTargets(t.Context(), rollout, s)
			if got, ok := targets[""]; err != nil || !ok || got.Busy != tc.want {
				t.Errorf("own host: %+v (there: %v, error %v), want busy with %q", got, ok, err, tc.want)
			}
		})
	}
}

func TestAFaultOnTheOwnHostIsClaimed(t *testing.T) {
	rollout, page, target := atHalf("reviews"), keyOf("bookinfo", "page"), keyOf("bookinfo", "reviews")
	c := &convergence{RolloutReconciler: NewRolloutReconciler(Dependencies{}), key: target, rollout: rollout}
	c.decision.Status = *rollout.Status.DeepCopy()
	c.decision.Status.Traffic.Fault = &v1.FaultInjection{}
	if _, holder := c.claim(); holder != "" {
		t.Fatalf("a free VirtualService is %s's", holder)
	}
	if holder, ok := c.claims.holder(target, page); !ok || holder != c.key {
		t.Error("the VirtualService of the own host was not claimed")
	}
	c.claims.forget(c.key)
	c.claims.take(target, page)
	if host, holder := c.claim(); host != "" || holder != "page" {
		t.Errorf("host %q is %q's, want the own one and page", host, holder)
	}
}
