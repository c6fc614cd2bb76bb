package gitsynctest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	v1 "sluice.dev/sluice/api/v1"
)

// A kustomization's objects are applied, put back and pruned as any, its base is fetched from elsewhere in the repository, and one
// bad part of it is named while nothing of its revision is applied.
func TestKustomization(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "configmaps")
	const overlay = "resources: [../base]\nnameSuffix: -prod\npatches: [{path: patch.yaml}]\n"
	first := w.push(
		"base/kustomization.yaml", "resources: [a.yaml, b.yaml]\n", "base/a.yaml", configMap("a", "1"), "base/b.yaml", configMap("b", "1"),
		"deploy/kustomization.yaml", overlay, "deploy/patch.yaml", configMap("a", "2"), "deploy/unnamed.yaml", configMap("unnamed", "1"),
	)
	w.sync(nil)
	w.applied(first)
	for name, want := range map[string]string{"a-prod": "2", "b-prod": "1"} {
		if got, err := w.configMap(name); err != nil || got.Data["key"] != want {
			t.Errorf("%s: %v, %v, want %s", name, got.Data, err, want)
		}
	}
	for _, name := range []string{"a", "unnamed"} {
		if _, err := w.configMap(name); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v, want it not found", name, err)
		}
	}

	edited, err := w.configMap("a-prod")
	w.must(err)
	edited.Data["key"] = "by hand"
	w.must(admin.Update(t.Context(), edited))
	w.eventually("the edit to be put back", func(context.Context) error {
		if got, err := w.configMap("a-prod"); err != nil || got.Data["key"] != "2" {
			return fmt.Errorf("%v, %w", got.Data, err)
		}
		return nil
	})

	w.push("base/a.yaml", configMap("a", "1")+"kind: Secret\n", "deploy/patch.yaml", configMap("a", "3"))
	w.ready(v1.ReasonInvalidContent, "base/kustomization.yaml: resources[0]: base/a.yaml (document 1): ")
	w.push("base/a.yaml", configMap("a", "1"), "deploy/kustomization.yaml", overlay+"labels: [{pairs: {a: b c}}]\n")
	w.ready(v1.ReasonInvalidContent, "deploy/kustomization.yaml (rendered): ConfigMap "+w.namespace+"/a-prod")
	if got, err := w.configMap("a-prod"); err != nil || got.Data["key"] != "2" {
		t.Errorf("of bad revisions was applied: %v, %v", got.Data, err)
	}

	w.applied(w.push("base/kustomization.yaml", "resources: [a.yaml]\n", "deploy/kustomization.yaml", overlay))
	w.eventually("what left the kustomization to be pruned", func(context.Context) error {
		if _, err := w.configMap("b-prod"); !apierrors.IsNotFound(err) {
			return fmt.Errorf("b-prod: %w", err)
		}
		return nil
	})
	if got, err := w.configMap("a-prod"); err != nil || got.Data["key"] != "3" {
		t.Errorf("a-prod: %v, %v", got.Data, err)
	}
}

// A Deployment whose version is changed in place, its selector included, is refused with what to do instead.
func TestSelectorChangedInPlace(t *testing.T) {
	w := newWorld(t)
	w.allow("default", "*")
	w.followed(w.push("deploy/reviews.yaml", strings.Replace(deployment("v1"), "reviews-v1", "reviews", 1)))
	w.push("deploy/reviews.yaml", strings.Replace(deployment("v2"), "reviews-v2", "reviews", 1))
	w.ready(v1.ReasonInvalidContent, `field is immutable: give each version a workload of its own, as docs/gitsync.md shows under "One Deployment`)
}
