package controllers

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	v1 "sluice.dev/sluice/api/v1"
)

func TestClassify(t *testing.T) {
	resource := schema.GroupResource{Group: "networking.istio.io", Resource: "virtualservices"}
	webhook := apierrors.NewForbidden(resource, "reviews", errors.New(`admission webhook "policy" denied the request: no`))
	cases := map[string]struct {
		verb     string
		err      error
		conflict bool
		reason   string
		message  string
	}{
		"conflict":             {verb: "update", err: apierrors.NewConflict(resource, "reviews", errors.New("changed")), conflict: true},
		"created by another":   {verb: "create", err: apierrors.NewAlreadyExists(resource, "reviews"), conflict: true},
		"gone in between":      {verb: "update", err: apierrors.NewNotFound(resource, "reviews"), conflict: true},
		"no namespace":         {verb: "create", err: apierrors.NewNotFound(resource, "reviews")},
		"RBAC":                 {verb: "update", err: apierrors.NewForbidden(resource, "reviews", errors.New("cannot update")), reason: v1.ReasonForbidden, message: "virtualservices"},
		"admission":            {verb: "update", err: webhook, reason: v1.ReasonMeshWriteRefused, message: "denied the request"},
		"invalid":              {verb: "update", err: apierrors.NewInvalid(schema.GroupKind{Kind: "VirtualService"}, "reviews", nil), reason: v1.ReasonMeshWriteRefused, message: "VirtualService reviews"},
		"CRDs absent":          {verb: "create", err: &meta.NoKindMatchError{}, reason: v1.ReasonIstioNotInstalled, message: "CRDs"},
		"the API server ailed": {verb: "update", err: apierrors.NewInternalError(errors.New("etcd"))},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := classify(fmt.Errorf("wrapped: %w", tc.err), tc.verb, &change{kind: kindVirtualService, name: "reviews"})
			var refusal *refusalError
			switch {
			case errors.Is(got, errConflict) != tc.conflict:
				t.Errorf("conflict %v, want %v: %v", !tc.conflict, tc.conflict, got)
			case errors.As(got, &refusal) != (tc.reason != ""):
				t.Errorf("refusal expected: %v, got %v", tc.reason != "", got)
			case refusal != nil && refusal.problem.Reason != tc.reason:
				t.Errorf("reason %s, want %s", refusal.problem.Reason, tc.reason)
			case !strings.Contains(got.Error(), tc.message):
				t.Errorf("message %q lacks %q", got, tc.message)
			}
		})
	}
}

func virtualServiceOf(name string, routes ...string) *unstructured.Unstructured {
	obj := newObject(kindVirtualService)
	obj.SetName(name)
	obj.SetNamespace("bookinfo")
	var http []any
	for _, route := range routes {
		http = append(http, map[string]any{"name": route})
	}
	if err := unstructured.SetNestedSlice(obj.Object, http, "spec", "http"); err != nil {
		panic(err)
	}
	return obj
}

func TestNoWriteDropsTheRoutesOfAnotherRollout(t *testing.T) {
	other := rolloutOf(v1.RolloutSpec{})
	other.Name = "ratings"
	other.Status.VirtualServices = []v1.ManagedVirtualService{{Name: "bookinfo"}}
	c := &convergence{key: keyOf("bookinfo", "reviews"), sight: &sight{rollouts: []v1.Rollout{*other}}}
	found := virtualServiceOf("bookinfo", "sluice-match-ratings-0", "sluice-match-reviews-0", "sluice-match-gone-0", "primary")
	for name, tc := range map[string]struct {
		want    *unstructured.Unstructured
		refused bool
	}{
		"its own copy goes":               {virtualServiceOf("bookinfo", "sluice-match-ratings-0", "primary"), false},
		"the copy of a Rollout that left": {virtualServiceOf("bookinfo", "sluice-match-ratings-0", "sluice-match-reviews-0", "primary"), false},
		"the copy of another Rollout":     {virtualServiceOf("bookinfo", "sluice-match-reviews-0", "sluice-match-gone-0", "primary"), true},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.refuseForeign(&change{kind: kindVirtualService, name: "bookinfo", found: found, want: tc.want})
			if (err != nil) != tc.refused {
				t.Errorf("refused %v, want %v: %v", err != nil, tc.refused, err)
			}
		})
	}
}

func TestHasCopies(t *testing.T) {
	vs := virtualServiceOf("ratings", "sluice-fault-a-1-0")
	for rollout, want := range map[string]bool{"a-1": true, "a": false, "a-1-0": false} {
		if got := hasCopies(vs, rollout); got != want {
			t.Errorf("Rollout %s has copies: %v, want %v", rollout, got, want)
		}
	}
}

func TestLedger(t *testing.T) {
	l := newLedger()
	obj := virtualServiceOf("reviews")
	obj.SetResourceVersion("100")
	if l.stale(kindVirtualService, obj) {
		t.Error("an object that was never written is stale")
	}
	l.wrote(kindVirtualService, obj)
	for version, want := range map[string]bool{"99": true, "100": false, "101": false, "9": true, "1000": false, "?": false} {
		seen := obj.DeepCopy()
		seen.SetResourceVersion(version)
		if got := l.stale(kindVirtualService, seen); got != want {
			t.Errorf("resourceVersion %s stale: %v, want %v", version, got, want)
		}
	}
	if l.forget(kindVirtualService, keyOf("bookinfo", "reviews")); l.own(kindVirtualService, obj) {
		t.Error("a forgotten write is known")
	}
	l.removed(kindVirtualService, obj)
	if made := obj.DeepCopy(); !l.stale(kindVirtualService, obj) {
		t.Error("what was deleted and is still in the cache is not stale")
	} else if made.SetResourceVersion("101"); l.stale(kindVirtualService, made) {
		t.Error("what was made anew is stale")
	}
	l.wrote(kindVirtualService, obj)
	before, after := obj.DeepCopy(), obj.DeepCopy()
	before.SetResourceVersion("99")
	after.SetResourceVersion("101")
	if l.gone(kindVirtualService, keyOf("bookinfo", "reviews")); !l.stale(kindVirtualService, before) || !l.stale(kindVirtualService, obj) {
		t.Error("what a live read did not find any more is believed of an older cache")
	} else if l.stale(kindVirtualService, after) || l.own(kindVirtualService, obj) {
		t.Error("what came after it was gone is stale, or what is gone is our own")
	}
}

func TestClaims(t *testing.T) {
	c := newClaims()
	target, a, b := keyOf("ns", "ratings"), keyOf("ns", "a"), keyOf("ns", "b")
	if _, ok := c.take(target, a); !ok {
		t.Fatal("a free VirtualService was not given")
	}
	if holder, ok := c.take(target, b); ok || holder != a {
		t.Errorf("taken twice; holder %s", holder)
	}
	if _, ok := c.holder(target, a); ok {
		t.Error("a is in its own way")
	}
	c.keep(a, "ratings")
	if holder, ok := c.holder(target, b); !ok || holder != a {
		t.Error("a kept claim is gone")
	}
	c.keep(a)
	if _, ok := c.take(target, b); !ok {
		t.Error("a released VirtualService was not given")
	}
}
