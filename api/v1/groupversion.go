package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: "sluice.dev", Version: "v1"}

// AddToScheme registers Rollout and GitSync with a scheme.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, &Rollout{}, &RolloutList{}, &GitSync{}, &GitSyncList{})
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}

// Annotations and the finalizer that Sluice reads and writes on its own kinds.
const (
	// FinalizerName keeps a Rollout until its traffic is back on the stable version.
	FinalizerName = "sluice.dev/rollout"
	// RevisionAnnotation is written by GitSync on each Rollout: the full Git commit that it was applied from.
	RevisionAnnotation = "sluice.dev/revision"
	// CommandAnnotation carries "<verb> ... <nonce>"; on a GitSync: "sync <nonce>".
	CommandAnnotation = "sluice.dev/command"
	// ReconcileAnnotation set to "disabled" detaches a Rollout: no mesh write at all.
	ReconcileAnnotation = "sluice.dev/reconcile"
	// DeletionPolicyAnnotation set to "Delete" removes, with the Rollout, the mesh objects that Sluice made. Set to "Orphan" it keeps
	// them also when spec.virtualServices names them no more.
	DeletionPolicyAnnotation = "sluice.dev/deletion-policy"
	// PruneAnnotation set to "disabled" on any object keeps it when it leaves its GitSync's repository.
	PruneAnnotation = "sluice.dev/prune"
	// ReconcileDisabled, DeletionPolicyDelete and PruneDisabled are the values that those annotations know.
	ReconcileDisabled    = "disabled"
	DeletionPolicyDelete = "Delete"
	PruneDisabled        = "disabled"
	// DeletionPolicyOrphan keeps what Sluice made; of a GitSync that is deleted, all that it applied.
	DeletionPolicyOrphan = "Orphan"
	// GitSyncFinalizer keeps a GitSync until what it applied is pruned.
	GitSyncFinalizer = "sluice.dev/gitsync"
)
