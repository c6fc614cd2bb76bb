package controllers

import (
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// A Rollout whose versions have hosts of their own makes no rule: one of the name that it would have had is somebody else's, and
// deletion-policy Delete leaves it alone.
func TestOnlyARuleOfSluicesMakingIsDeleted(t *testing.T) {
	const ours = "labels: {app.kubernetes.io/managed-by: sluice}"
	for name, tc := range map[string]struct {
		ref  *v1.ManagedDestinationRule
		rule string
		want bool
	}{
		"ours":                {&v1.ManagedDestinationRule{Name: "reviews", Created: true}, "{metadata: {name: reviews, " + ours + "}, spec: {host: reviews}}", true},
		"ours, found":         {&v1.ManagedDestinationRule{Name: "reviews"}, "{metadata: {name: reviews, " + ours + "}, spec: {host: reviews}}", false},
		"somebody's":          {&v1.ManagedDestinationRule{Name: "reviews", Created: true}, "{metadata: {name: reviews}, spec: {host: reviews}}", false},
		"for a version's own": {&v1.ManagedDestinationRule{Name: "reviews", Created: true}, "{metadata: {name: reviews, " + ours + "}, spec: {host: reviews-v2}}", false},
		"of another name":     {&v1.ManagedDestinationRule{Name: "reviews", Created: true}, "{metadata: {name: other, " + ours + "}, spec: {host: reviews}}", false},
		"none":                {nil, "{metadata: {name: reviews, " + ours + "}, spec: {host: reviews}}", false},
	} {
		c := &convergence{rollout: rolloutOf(v1.RolloutSpec{Host: "reviews"}), sight: &sight{destinationRules: []*unstructured.Unstructured{parse(t, tc.rule)}}}
		c.rollout.Status.DestinationRule = tc.ref
		if got := c.madeRule(); got != tc.want {
			t.Errorf("%s: deleted %v, want %v", name, got, tc.want)
		}
	}
}
