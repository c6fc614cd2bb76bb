package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/load"
	"sluice.dev/sluice/sandbox/scenario"
)

// TestFaultOfADeletedRollout: the operator is killed while a fault stands, and the Rollout is deleted before another one comes. Until
// then the fault stays, for jason on v3; then it goes, with the VirtualService that was made for it, and jason is on v1 again.
func TestFaultOfADeletedRollout(t *testing.T) {
	t.Parallel()
	s := newStage(t, "fault-orphan")
	stayIn(t, s, "ratings-slow")
	asJason := load.Options{User: "jason", UserShare: 1}
	eventually(t, "the proxies send jason to v3", func() bool { return visit(t, s, 8, asJason).ByVersion[scenario.Canary] > 0 })
	sync := &v1.GitSync{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "bookinfo"}}
	change(t, s, sync, func(sync *v1.GitSync) { sync.Spec.Suspend = true }) // which would bring the Rollout back
	s.operator.Kill()

	rollout := &v1.Rollout{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "reviews"}}
	if err := s.cluster.Client.Delete(t.Context(), rollout); err != nil {
		t.Fatal(err)
	}
	if !s.hasFault(t) {
		t.Error("the fault is gone although no operator runs")
	}
	const delay = 2 * time.Second
	if fastest := visit(t, s, 8, asJason).Quantile(0); fastest < delay {
		t.Errorf("jason's fastest page took %s while no operator ran, want the fault's %s", fastest, delay)
	}

	if err := s.operator.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Rollout is gone", func() bool {
		return apierrors.IsNotFound(s.cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(rollout), rollout))
	})
	if s.hasFault(t) { // the finalizer goes after it
		t.Error("the Rollout went before its fault")
	}
	assertClean(t, s)
	eventually(t, "jason is on v1, at full speed", func() bool {
		seen := visit(t, s, 8, asJason)
		return seen.ByVersion[scenario.Stable] == seen.Total && seen.Failed == 0 && seen.Quantile(1) < delay
	})
	if status := askRatingsAsJason(t, s); status != http.StatusOK {
		t.Errorf("ratings answered %d", status)
	}
}

// hasFault tells whether a VirtualService of the namespace has a fault's copy.
func (s *stage) hasFault(t *testing.T) bool {
	t.Helper()
	var list networking.VirtualServiceList
	if err := s.cluster.Client.List(t.Context(), &list, client.InNamespace(s.Namespace)); err != nil {
		t.Fatal(err)
	}
	for _, vs := range list.Items {
		for _, route := range vs.Spec.Http {
			if strings.HasPrefix(route.Name, "sluice-fault-") {
				return true
			}
		}
	}
	return false
}
