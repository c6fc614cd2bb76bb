package controllertest

import (
	"maps"
	"testing"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
)

// reconciled wakes the Rollout, and waits until it was reconciled once more.
func (w *world) reconciled() {
	w.t.Helper()
	before := w.operator.evidence.passes(w.key("reviews"))
	w.operator.reconciler.Wake(w.key("reviews"))
	w.eventually("the Rollout is reconciled", func() error {
		if w.operator.evidence.passes(w.key("reviews")) == before {
			return errNotYet
		}
		return nil
	})
}

// settles waits until reconciling writes nothing more.
func (w *world) settles() {
	w.t.Helper()
	w.eventually("nothing is written any more", func() error {
		before := w.versions()
		w.reconciled()
		if after := w.versions(); !maps.Equal(before, after) {
			return errStillWriting
		}
		return nil
	})
}

func TestDeletionInEachStep(t *testing.T) {
	t.Parallel()
	for _, step := range []string{"shadow", "testers", "half", "full"} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.rollout(`
host: reviews
version: v1
gates: [{name: never, query: "up", max: "1", samples: 1, failures: 5, interval: 1h}]
steps:
- {name: shadow, mirror: {percentage: 100}, useGates: []}
- {name: testers, match: [{headers: {end-user: {exact: jason}}}], useGates: []}
- {name: half, weight: 50, useGates: []}
- {name: full, weight: 100, useGates: []}
`)
			w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
			w.edit(func(r *v1.Rollout) {
				for i := range r.Spec.Steps {
					if r.Spec.Steps[i].Name == step {
						r.Spec.Steps[i].Hold = &metav1.Duration{Duration: patience * 10}
					}
				}
				r.Spec.Version = "v3"
			})
			w.awaitStep(step)
			if err := w.client.Delete(t.Context(), w.get()); err != nil {
				t.Fatal(err)
			}
			w.gone(&v1.Rollout{}, "reviews")
			w.awaitRoutes("reviews", "v1")
		})
	}
}

func TestDeletionPolicyDelete(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.edit(func(r *v1.Rollout) {
		r.Annotations = map[string]string{v1.DeletionPolicyAnnotation: v1.DeletionPolicyDelete}
	})
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.awaitRoutes("reviews", "v1")
	if err := w.client.Delete(t.Context(), w.get()); err != nil {
		t.Fatal(err)
	}
	w.gone(&v1.Rollout{}, "reviews")
	w.gone(&networking.VirtualService{}, "reviews")
	w.gone(&networking.DestinationRule{}, "reviews")
}

func TestDeletionWithoutItsObjects(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create(&networking.VirtualService{ObjectMeta: metav1.ObjectMeta{Name: "adopted"}, Spec: *routeTo("reviews", "v1")})
	w.create(&networking.DestinationRule{ObjectMeta: metav1.ObjectMeta{Name: "adopted"}, Spec: *subsetOf("reviews", "v1")})
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	vs := w.awaitRoutes("adopted", "v1 50, v3 50")
	if err := w.client.Delete(t.Context(), vs); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(v1.PhaseStalled, v1.ReasonVirtualServiceNotFound)
	if err := w.client.Delete(t.Context(), w.get()); err != nil {
		t.Fatal(err)
	}
	w.gone(&v1.Rollout{}, "reviews")
	w.gone(&networking.VirtualService{}, "adopted")
}

func TestDeletionWithUnknownStable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout("host: reviews\nversion: v1\ninitialVersion: v0\nsteps: []\n")
	w.awaitPhase(v1.PhaseStalled, v1.ReasonInitialVersionUnknown)
	if err := w.client.Delete(t.Context(), w.get()); err != nil {
		t.Fatal(err)
	}
	w.gone(&v1.Rollout{}, "reviews")
}
