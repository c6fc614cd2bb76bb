package controllers

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	v1 "sluice.dev/sluice/api/v1"
)

func TestDeletionOfTheSecondRolloutLeavesTheMeshAlone(t *testing.T) {
	younger := atHalf("reviews-too")
	younger.CreationTimestamp = metav1.NewTime(after(1))
	deleted := metav1.NewTime(after(2))
	younger.DeletionTimestamp = &deleted
	k := newCluster(t, interceptor.Funcs{}, reviewsService(), parse(t, halfRoutes), parse(t, bothSubsets), atHalf("reviews"), younger)
	before := k.routes("reviews")
	if _, err := k.Reconcile(t.Context(), reconcile.Request{NamespacedName: keyOf("bookinfo", "reviews-too")}); err != nil {
		t.Fatal(err)
	}
	if got := k.routes("reviews"); got != before {
		t.Errorf("routes are %s, were %s", got, before)
	}
	if err := k.Live.Get(t.Context(), keyOf("bookinfo", "reviews-too"), &v1.Rollout{}); !apierrors.IsNotFound(err) {
		t.Errorf("the deleted Rollout is still there: %v", err)
	}
}

// reconciled reconciles the Rollout reviews and returns when it asks to be reconciled again.
func (k *cluster) reconciled() time.Duration {
	k.t.Helper()
	result, err := k.Reconcile(k.t.Context(), reconcile.Request{NamespacedName: keyOf("bookinfo", "reviews")})
	if err != nil {
		k.t.Fatal(err)
	}
	return result.RequeueAfter
}

func (k *cluster) isGone() bool {
	return apierrors.IsNotFound(k.Live.Get(k.t.Context(), keyOf("bookinfo", "reviews"), &v1.Rollout{}))
}

// told is the text of the next event, empty when there is none.
func (k *cluster) told() string {
	select {
	case text := <-k.events.Events:
		return text
	default:
		return ""
	}
}

// deletedAtHalf is a cluster in which a Rollout is deleted in mid-run, and only some of the versions are ready.
func deletedAtHalf(t *testing.T, ready map[string]corev1.ConditionStatus) *cluster {
	rollout := atHalf("reviews")
	deleted := metav1.NewTime(start)
	rollout.DeletionTimestamp = &deleted
	pod := func(version string) *corev1.Pod {
		return podOf("reviews-"+version, ready[version], labelled("app", "reviews", "version", version))
	}
	return newCluster(t, interceptor.Funcs{}, reviewsService(), parse(t, halfRoutes), parse(t, bothSubsets), rollout, pod("v1"), pod("v3"))
}

func TestDeletionWaitsForAStableVersionThatIsDead(t *testing.T) {
	k := deletedAtHalf(t, map[string]corev1.ConditionStatus{"v1": corev1.ConditionFalse, "v3": corev1.ConditionTrue})
	before := k.routes("reviews")
	for range 3 {
		if rest := k.reconciled(); rest <= 0 || rest > refusedRetry {
			t.Fatalf("asks to be reconciled again in %s", rest)
		}
		k.clock.SetTime(k.clock.Now().Add(time.Second))
	}
	if got := k.routes("reviews"); k.isGone() || got != before {
		t.Fatalf("gone: %v; routes are %s", k.isGone(), got)
	}
	if text := k.told(); !strings.Contains(text, "v1 has no ready endpoint and v3 has") {
		t.Errorf("the event says %q", text)
	}
	if text := k.told(); text != "" {
		t.Errorf("a second event says %q", text)
	}
	pod := podOf("reviews-v1", corev1.ConditionTrue, labelled("app", "reviews", "version", "v1"))
	if err := k.Client.Status().Update(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	k.reconciled()
	if routes := k.routes("reviews"); !k.isGone() || strings.Contains(routes, "v3") {
		t.Errorf("gone: %v; routes are %s, want all on v1", k.isGone(), routes)
	}
}

func TestDeletionLeavesTheCanaryAloneWhenStableStaysDead(t *testing.T) {
	k := deletedAtHalf(t, map[string]corev1.ConditionStatus{"v1": corev1.ConditionFalse, "v3": corev1.ConditionTrue})
	k.reconciled()
	k.told()
	k.clock.SetTime(k.clock.Now().Add(giveUpAfter))
	k.reconciled()
	if routes := k.routes("reviews"); !k.isGone() || strings.Contains(routes, "v1") || !strings.Contains(routes, "v3") {
		t.Errorf("gone: %v; routes are %s, want all on v3", k.isGone(), routes)
	}
	if text := k.told(); !strings.Contains(text, "all traffic on v3") {
		t.Errorf("the event says %q", text)
	}
}

func TestDeletionDoesNotWaitOtherwise(t *testing.T) {
	for name, ready := range map[string]map[string]corev1.ConditionStatus{
		"both are ready":   {"v1": corev1.ConditionTrue, "v3": corev1.ConditionTrue},
		"neither is ready": {"v1": corev1.ConditionFalse, "v3": corev1.ConditionFalse},
		"stable is ready":  {"v1": corev1.ConditionTrue, "v3": corev1.ConditionFalse},
	} {
		t.Run(name, func(t *testing.T) {
			k := deletedAtHalf(t, ready)
			k.reconciled()
			if routes := k.routes("reviews"); !k.isGone() || strings.Contains(routes, "v3") {
				t.Errorf("gone: %v; routes are %s, want all on v1", k.isGone(), routes)
			}
		})
	}
}
