package controllertest

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	admissionv1 "k8s.io/api/admission/v1"
	admission "k8s.io/api/admissionregistration/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

// A person who edits weights is told once that Sluice put them back, and what to do instead.
func TestHandEditIsToldOf(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.awaitRoutes("reviews", "v1 50, v3 50")
	vs := w.awaitApplied()
	vs.Spec.Http[0].Route[0].Weight, vs.Spec.Http[0].Route[1].Weight = 5, 95
	if err := w.client.Update(t.Context(), vs, client.FieldOwner("kubectl-edit")); err != nil {
		t.Fatal(err)
	}
	w.awaitRoutes("reviews", "v1 50, v3 50")
	w.eventually("an event names the editor", func() error {
		list := &eventsv1.EventList{}
		if err := w.client.List(t.Context(), list, client.InNamespace(w.namespace)); err != nil {
			return err
		}
		for _, e := range list.Items {
			if e.Reason == v1.ReasonRestored && strings.Contains(e.Note, "field manager kubectl-edit") && strings.Contains(e.Note, v1.ReconcileAnnotation) {
				return nil
			}
		}
		return fmt.Errorf("events: %s", strings.Join(w.events(), ", "))
	})
	if r := w.get(); r.Status.Reason == v1.ReasonContended {
		t.Errorf("one edit is no loop: %s", r.Status.Message)
	}
}

// awaitApplied waits until the step's clock runs, and returns the VirtualService as it is then.
func (w *world) awaitApplied() *networking.VirtualService {
	w.t.Helper()
	w.await("the step is applied", func(r *v1.Rollout) bool { return r.Status.Step != nil && r.Status.Step.Applied != nil })
	vs := &networking.VirtualService{}
	if err := w.client.Get(w.t.Context(), w.key("reviews"), vs); err != nil {
		w.t.Fatal(err)
	}
	return vs
}

// Another applier of the whole VirtualService, in a loop: the run holds, writes are few, the remedy is told, and a rollback goes
// through at once.
func TestContended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.rollout(gated)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.awaitRoutes("reviews", "v1")
	w.push("v3")
	w.awaitRoutes("reviews", "v1 50, v3 50")
	w.awaitApplied()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var applied atomic.Int32
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.applyInALoop(ctx, &applied)
	}()
	r := w.awaitPhase(v1.PhaseWaiting, v1.ReasonContended)
	for _, want := range []string{"VirtualService reviews", "field manager kustomize-controller", "kustomize.toolkit.fluxcd.io/ssa: IfNotPresent"} {
		if !strings.Contains(r.Status.Message, want) {
			t.Errorf("message %q lacks %q", r.Status.Message, want)
		}
	}
	if c := meta.FindStatusCondition(r.Status.Conditions, v1.ConditionContended); c == nil || c.Status != metav1.ConditionTrue {
		t.Errorf("conditions: %+v", r.Status.Conditions)
	}
	w.eventually("an event tells of it", func() error {
		if told := w.events(); !slices.Contains(told, v1.ReasonContended) {
			return fmt.Errorf("events: %s", strings.Join(told, ", "))
		}
		return nil
	})
	// As the writes of others stand, ours are withheld.
	at := applied.Load()
	w.eventually("the other writer goes on", func() error {
		if n := applied.Load(); n < at+20 {
			return fmt.Errorf("%d times", n-at)
		}
		return nil
	})
	w.awaitRoutes("reviews", "v1")
	if r := w.get(); r.Status.Step == nil || r.Status.Step.Name != "half" {
		t.Errorf("the run went on: %+v", r.Status.Step)
	}
	w.push("v1")
	w.await("the run is over", func(r *v1.Rollout) bool { return r.Status.Run == nil && r.Status.Stable == "v1" })
	stop()
	<-done
	w.awaitRoutes("reviews", "v1")
}

// applyInALoop applies the whole VirtualService by server-side apply whenever it is not as it has it.
func (w *world) applyInALoop(ctx context.Context, applied *atomic.Int32) {
	for ctx.Err() == nil {
		whole := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
			"metadata": map[string]any{"name": "reviews", "namespace": w.namespace},
			"spec": map[string]any{"hosts": []any{"reviews"}, "gateways": []any{"mesh"}, "http": []any{map[string]any{
				"name": "primary", "route": []any{map[string]any{"destination": map[string]any{"host": "reviews", "subset": "v1"}}},
			}}},
		}}
		err := w.client.Apply(ctx, client.ApplyConfigurationFromUnstructured(whole), client.ForceOwnership, client.FieldOwner("kustomize-controller"))
		if err == nil {
			applied.Add(1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// mutating is a real admission webhook that patches VirtualServices of the namespace.
func (w *world) mutating(patch string) {
	w.t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(req.Body).Decode(&review); err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{
			UID: review.Request.UID, Allowed: true, Patch: []byte(patch), PatchType: new(admissionv1.PatchTypeJSONPatch),
		}
		rw.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(rw).Encode(review)
	}))
	w.t.Cleanup(s.Close)
	hook := &admission.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Webhooks: []admission.MutatingWebhook{{
			Name: "mutate.example.com", AdmissionReviewVersions: []string{"v1"}, SideEffects: new(admission.SideEffectClassNone),
			ClientConfig: admission.WebhookClientConfig{
				URL:      &s.URL,
				CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}),
			},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/metadata.name": w.namespace}},
			Rules: []admission.RuleWithOperations{{
				Operations: []admission.OperationType{admission.Create, admission.Update},
				Rule:       admission.Rule{APIGroups: []string{"networking.istio.io"}, APIVersions: []string{"*"}, Resources: []string{"virtualservices"}},
			}},
		}},
	}
	if err := w.client.Create(w.t.Context(), hook); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := w.client.Delete(context.WithoutCancel(w.t.Context()), hook); err != nil {
			w.t.Error(err)
		}
	})
	w.eventually("the webhook is in force", func() error {
		trial := &networking.VirtualService{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "trial"}}
		if err := yaml.Unmarshal([]byte(`{hosts: [trial], http: [{name: primary, route: [{destination: {host: trial}}]}]}`), &trial.Spec); err != nil {
			return err
		}
		if err := w.client.Create(w.t.Context(), trial, client.DryRunAll); err != nil {
			return err
		}
		if trial.Annotations["webhook"] == "" {
			return fmt.Errorf("annotations are %v", trial.Annotations)
		}
		return nil
	})
}

// A webhook that adds an annotation is no quarrel: what it adds lives, and the run goes its way.
func TestWebhookThatAnnotates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mutating(`[{"op": "add", "path": "/metadata/annotations", "value": {"webhook": "was-here"}}]`)
	w.rollout(walk)
	w.awaitPhase(v1.PhaseHealthy, v1.ReasonServing)
	w.push("v3")
	w.await("v3 serves", func(r *v1.Rollout) bool { return r.Status.Stable == "v3" && r.Status.Phase == v1.PhaseHealthy })
	if vs := w.awaitRoutes("reviews", "v3"); vs.Annotations["webhook"] != "was-here" {
		t.Errorf("annotations are %v", vs.Annotations)
	}
	for _, reason := range []string{v1.ReasonRestored, v1.ReasonContended} {
		if slices.Contains(w.events(), reason) {
			t.Errorf("an event %s although nobody fought: %s", reason, strings.Join(w.events(), ", "))
		}
	}
}

// A webhook that changes what Sluice writes is named as such, instead of being written against without end.
func TestWebhookThatChangesRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.mutating(`[{"op": "add", "path": "/metadata/annotations", "value": {"webhook": "was-here"}},` +
		`{"op": "add", "path": "/spec/http/0/route", "value": [{"destination": {"host": "reviews", "subset": "v1"}, "weight": 100}]}]`)
	w.rollout(gated)
	w.push("v3")
	r := w.awaitPhase(v1.PhaseWaiting, v1.ReasonContended)
	if want := "an admission webhook or policy undoes what Sluice writes"; !strings.Contains(r.Status.Message, want) {
		t.Errorf("message %q lacks %q", r.Status.Message, want)
	}
	if r.Status.Step != nil && r.Status.Step.Applied != nil {
		t.Error("the step's clock runs although its traffic was not stored")
	}
}
