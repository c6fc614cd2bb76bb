package gitsync

import (
	"bytes"
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/csaupgrade"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
)

// routingTries bounds how often an apply starts again because somebody else wrote in between.
const routingTries = 8

// Routing applies VirtualServices and DestinationRules through the traffic state of the Rollouts that drive them: all that is
// not a Rollout's becomes as the manifest says, and what is a Rollout's stays as it is.
type Routing struct {
	// Client reads and writes the objects, as the service account.
	Client client.Client
	// Operator reads Rollouts and routes from the API server, with the operator's own rights.
	Operator client.Reader
}

// HeldError is why an object is left as it is for now: as the manifest says it would take away what a Rollout drives.
type HeldError struct{ Why string }

// Error implements error.
func (e *HeldError) Error() string { return e.Why }

// IsRouting tells whether an object of a kind may be driven.
func IsRouting(object *unstructured.Unstructured) bool {
	kind := object.GroupVersionKind()
	return kind.Group == "networking.istio.io" && (kind.Kind == "VirtualService" || kind.Kind == "DestinationRule")
}

// Try tells whether Apply would write something, and what the API server says to it. A HeldError: nothing would be written.
func (r *Routing) Try(ctx context.Context, manifest *unstructured.Unstructured) (differs bool, err error) {
	p, err := r.plan(ctx, manifest)
	if err != nil || !p.differs() {
		return false, err
	}
	if p.through {
		_, err = r.merge(ctx, p.body(), p.found) // the manifest alone was tried already
	}
	return true, err
}

// Apply tells whether it wrote. Each write is made on an object, and on Rollouts that were read after it; when the object is
// another one by then, it starts again.
func (r *Routing) Apply(ctx context.Context, manifest *unstructured.Unstructured) (wrote bool, err error) {
	for range routingTries {
		var p *routed
		p, err = r.plan(ctx, manifest)
		switch {
		case err == nil && !p.differs():
			return wrote, nil
		case err == nil && len(p.upgrade) > 0:
			if err = r.Client.Patch(ctx, p.found, client.RawPatch(types.JSONPatchType, p.upgrade)); err == nil {
				wrote = true
				continue
			}
		case err == nil:
			err = r.write(ctx, p)
		}
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return wrote || err == nil, err
		}
	}
	return wrote, fmt.Errorf("somebody else wrote it %d times in a row: %w", routingTries, err)
}

// routed is a manifest and what its object is to become.
type routed struct {
	manifest *unstructured.Unstructured
	// found is nil when there is none; merged is it with the manifest's fields, and wanted that with the Rollouts' traffic.
	found, merged, wanted *unstructured.Unstructured
	// through: traffic makes a difference.
	through bool
	// upgrade makes fields that create wrote, before it was cut off, those of an apply.
	upgrade []byte
}

// plan reads the object first and the Rollouts afterwards: so they are at least as new as what they last wrote into it.
func (r *Routing) plan(ctx context.Context, manifest *unstructured.Unstructured) (*routed, error) {
	p := &routed{manifest: manifest}
	found := &unstructured.Unstructured{}
	found.SetGroupVersionKind(manifest.GroupVersionKind())
	switch err := r.Client.Get(ctx, client.ObjectKeyFromObject(manifest), found); {
	case err == nil:
		var err error
		if p.upgrade, err = upgradeOf(found); err != nil {
			return nil, err
		}
		p.found = found
		p.found.SetManagedFields(nil)
	case !apierrors.IsNotFound(err):
		return nil, err
	}
	rollouts := &v1.RolloutList{}
	if err := r.Operator.List(ctx, rollouts, client.InNamespace(manifest.GetNamespace())); err != nil {
		return nil, fmt.Errorf("list Rollouts of %s: %w", manifest.GetNamespace(), err)
	}
	var err error
	if p.merged, err = r.merge(ctx, manifest, p.found); err != nil {
		return nil, err
	}
	wanted, problem := mesh.Rebase(rollouts.Items, p.found, p.merged)
	if problem != nil {
		return nil, &HeldError{Why: problem.Message}
	}
	if err := r.keepNamed(ctx, p.found, wanted); err != nil {
		return nil, err
	}
	p.wanted, p.through = wanted, !sameContent(p.merged, wanted)
	return p, nil
}

// keepNamed leaves a rule the subsets that routes still name: Git's routes come after its rules.
func (r *Routing) keepNamed(ctx context.Context, found, wanted *unstructured.Unstructured) error {
	if found == nil || wanted.GetKind() != "DestinationRule" || sameContent(found, wanted) {
		return nil
	}
	list, err := virtualServicesOf(ctx, r.Operator, found.GetNamespace())
	if err != nil {
		return err
	}
	services := make([]*unstructured.Unstructured, len(list))
	for i := range list {
		services[i] = &list[i]
	}
	mesh.KeepNamed(found, wanted, services)
	return nil
}

// merge asks the API server what applying a manifest to exactly the found object would come to.
func (r *Routing) merge(ctx context.Context, manifest, found *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	merged := onto(manifest, found)
	err := r.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(merged), client.ForceOwnership, client.FieldOwner(FieldManager), client.DryRunAll)
	merged.SetManagedFields(nil)
	return merged, err
}

// onto is a manifest that only applies to the found object.
func onto(manifest, found *unstructured.Unstructured) *unstructured.Unstructured {
	out := manifest.DeepCopy()
	out.SetResourceVersion("")
	if found != nil {
		out.SetResourceVersion(found.GetResourceVersion())
	}
	return out
}

func (p *routed) differs() bool {
	return p.found == nil || len(p.upgrade) > 0 || !sameContent(p.found, p.wanted)
}

// body is the manifest with those fields of the spec in which the Rollouts' traffic makes a difference.
func (p *routed) body() *unstructured.Unstructured {
	body := p.manifest.DeepCopy()
	spec, _ := body.Object["spec"].(map[string]any)
	merged, _ := p.merged.Object["spec"].(map[string]any)
	wanted, _ := p.wanted.Object["spec"].(map[string]any)
	if spec == nil {
		spec = map[string]any{}
		body.Object["spec"] = spec
	}
	for field := range merged {
		if _, stays := wanted[field]; !stays {
			delete(spec, field)
		}
	}
	for field, value := range wanted {
		if !bytes.Equal(v1.CanonicalJSON(merged[field]), v1.CanonicalJSON(value)) {
			spec[field] = value
		}
	}
	return body
}

func (r *Routing) write(ctx context.Context, p *routed) error {
	body := onto(p.body(), p.found)
	if p.found == nil {
		return r.create(ctx, body)
	}
	return r.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(body), client.ForceOwnership, client.FieldOwner(FieldManager))
}

// create makes an object only if there is none: an apply would merge into what a Rollout that begins at this moment makes, or
// makes again. Its fields become ours as if they had been applied.
func (r *Routing) create(ctx context.Context, body *unstructured.Unstructured) error {
	if err := r.Client.Create(ctx, body, client.FieldOwner(FieldManager)); err != nil {
		return err
	}
	patch, err := upgradeOf(body)
	if err != nil || len(patch) == 0 {
		return err
	}
	return r.Client.Patch(ctx, body, client.RawPatch(types.JSONPatchType, patch))
}

// upgradeOf is the patch, for exactly this version of an object, that makes what we created of it what we applied; or none.
func upgradeOf(object *unstructured.Unstructured) ([]byte, error) {
	patch, err := csaupgrade.UpgradeManagedFieldsPatch(object, sets.New(FieldManager), FieldManager)
	if err != nil {
		return nil, fmt.Errorf("take over managedFields: %w", err)
	}
	return patch, nil
}

// sameContent compares what people write of an object.
func sameContent(a, b *unstructured.Unstructured) bool {
	return bytes.Equal(v1.CanonicalJSON(content(a)), v1.CanonicalJSON(content(b)))
}

func content(object *unstructured.Unstructured) map[string]any {
	out := map[string]any{}
	for field, value := range object.Object {
		if field != "metadata" && field != "status" {
			out[field] = value
		}
	}
	metadata, _ := object.Object["metadata"].(map[string]any)
	for _, field := range []string{"labels", "annotations", "ownerReferences", "finalizers"} {
		if value, given := metadata[field]; given {
			out[field] = value
		}
	}
	return out
}
