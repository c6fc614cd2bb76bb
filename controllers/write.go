package controllers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// send makes one change: it creates what was not found, deletes what is not wanted, else replaces exactly what was found.
// What the API server stored is put into change.want. Conflicts come back as errConflict, refusals as *refusalError.
func (c *convergence) send(ctx context.Context, change *change) error {
	if err := c.refuseForeign(change); err != nil {
		return err
	}
	var verb string
	var err error
	switch {
	case change.want == nil:
		verb = "delete"
		uid, version := change.found.GetUID(), change.found.GetResourceVersion()
		precondition := client.Preconditions(metav1.Preconditions{UID: &uid, ResourceVersion: &version})
		err = client.IgnoreNotFound(c.Client.Delete(ctx, change.found.DeepCopy(), precondition))
	case change.found == nil:
		verb = "create"
		change.want = change.want.DeepCopy()
		err = c.Client.Create(ctx, change.want, FieldOwner)
	default:
		verb = "update"
		change.want = change.want.DeepCopy()
		change.want.SetResourceVersion(change.found.GetResourceVersion())
		err = c.Client.Update(ctx, change.want, FieldOwner)
	}
	return classify(err, verb, change)
}

// refuseForeign guards the routes that other Rollouts had inserted: no write of ours changes or drops one. (Those that lead
// to this Rollout's own host are re-weighted with it.)
func (c *convergence) refuseForeign(change *change) error {
	if change.kind != kindVirtualService || change.found == nil || change.want == nil {
		return nil
	}
	kept := map[string]bool{}
	for _, name := range routeNames(change.want) {
		kept[name] = true
	}
	for _, name := range routeNames(change.found) {
		owner, _ := copyOwner(name)
		if owner == "" || owner == c.key.Name || kept[name] || !c.sight.drives(owner, change.name) {
			continue
		}
		return &refusalError{pipeline.Problem{Reason: v1.ReasonHostConflict, Message: fmt.Sprintf(
			"writing VirtualService %s would drop route %s of Rollout %s", change.name, name, owner)}}
	}
	return nil
}

// drives tells whether a Rollout of the namespace has a VirtualService in its status.
func (s *sight) drives(rollout, virtualService string) bool {
	for i := range s.rollouts {
		if s.rollouts[i].Name != rollout {
			continue
		}
		for _, name := range drivenNames(kindVirtualService, &s.rollouts[i].Status) {
			if name == virtualService {
				return true
			}
		}
	}
	return false
}

// classify sorts what a write came back with.
func classify(err error, verb string, change *change) error {
	what := fmt.Sprintf("%s of %s %s", verb, change.kind.Kind, change.name)
	refused := func(reason, format string, args ...any) error {
		return &refusalError{pipeline.Problem{Reason: reason, Message: fmt.Sprintf(format, args...)}}
	}
	switch {
	case err == nil:
		return nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), verb == "update" && apierrors.IsNotFound(err):
		return fmt.Errorf("%s: %w", what, errConflict)
	case meta.IsNoMatchError(err):
		return refused(v1.ReasonIstioNotInstalled, istioMissing)
	case apierrors.IsForbidden(err) && !byAdmission(err):
		return refused(v1.ReasonForbidden, "%s", forbiddenMessage(err))
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err), byAdmission(err):
		return refused(v1.ReasonMeshWriteRefused, "the API server refused the %s, traffic stays as it is: %v", what, rootCause(err))
	default:
		return fmt.Errorf("%s: %w", what, err)
	}
}

// byAdmission tells whether an admission webhook or policy said no; it may do so with any status.
func byAdmission(err error) bool {
	message := err.Error()
	return strings.Contains(message, "denied the request") || strings.Contains(message, "ValidatingAdmissionPolicy")
}

// sameObject tells whether nothing has to be written.
func sameObject(found, want *unstructured.Unstructured) bool {
	if found == nil || want == nil {
		return found == nil && want == nil
	}
	return sameTree(found.Object, want.Object)
}

// sameTree tells whether two values have the same JSON. Their numbers may be of different types.
func sameTree(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, sameTree)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, sameTree)
	case string, bool, nil:
		return a == b
	case int64:
		if b, ok := b.(int64); ok {
			return a == b
		}
	}
	return bytes.Equal(v1.CanonicalJSON(a), v1.CanonicalJSON(b))
}

func keyOf(namespace, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: namespace, Name: name}
}

func asError[T error](err error, target *T) bool { return errors.As(err, target) }

// rootCause is the API server's own message, without what was wrapped around it.
func rootCause(err error) error {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		if cause, ok := status.(error); ok {
			return cause
		}
	}
	return err
}
