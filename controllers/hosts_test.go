package controllers

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

// The cache may show this very Rollout as it was before it drove: it is not in its own way.
func TestNoRolloutYieldsToItsOwnPast(t *testing.T) {
	past, present := onHost("a", "reviews", 5, true), onHost("a", "reviews", 5, false)
	if got := (&sight{rollouts: []v1.Rollout{past}}).firstOnHost(&present); got != "" {
		t.Errorf("a yields to %q", got)
	}
}
