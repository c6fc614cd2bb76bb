package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GitSync applies the manifests of a path of a Git repository to its own namespace and whatever its service account may write.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
type GitSync struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec GitSyncSpec `json:"spec"`
	// +optional
	Status GitSyncStatus `json:"status,omitempty"`
}

// GitSyncList is a list of GitSyncs.
//
// +kubebuilder:object:root=true
type GitSyncList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []GitSync `json:"items"`
}

// GitSyncSpec is the desired state.
type GitSyncSpec struct {
	// URL of the repository: https, or http (with credentials: loopback only). ssh: +sluice:later
	// +required
	URL string `json:"url"`
	// Ref to follow; default: the branch main.
	// +optional
	Ref *GitRef `json:"ref,omitempty"`
	// Path inside the repository, default its root. Plain YAML; a kustomization: later, refused when met.
	// +optional
	Path string `json:"path,omitempty"`
	// Interval between fetches, default 1m, at least 1s.
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`
	// SecretRef: username and password, bearerToken, ca.crt. identity and known_hosts come with ssh.
	// +optional
	SecretRef *LocalReference `json:"secretRef,omitempty"`
	// ServiceAccountName is impersonated for every write; default: the operator's --default-service-account of the namespace.
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
	// Prune deletes what left the repository. true: +sluice:later (absent means no pruning for now)
	// +optional
	Prune *bool `json:"prune,omitempty"`
	// Verify signatures. +sluice:later
	// +optional
	Verify *Verify `json:"verify,omitempty"`
	// Webhook from CI. +sluice:later
	// +optional
	Webhook *Webhook `json:"webhook,omitempty"`
	// CommitStatus reports back to the forge. +sluice:later
	// +optional
	CommitStatus *CommitStatus `json:"commitStatus,omitempty"`
	// Suspend stops fetching and applying.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// GitRef names what to follow; exactly one field is set.
type GitRef struct {
	// +optional
	Branch string `json:"branch,omitempty"`
	// +optional
	Tag string `json:"tag,omitempty"`
	// Semver range over tags. +sluice:later
	// +optional
	Semver string `json:"semver,omitempty"`
	// Commit is a full SHA-1.
	// +optional
	Commit string `json:"commit,omitempty"`
}

// Verify holds trusted keys.
type Verify struct {
	// +required
	SecretRef LocalReference `json:"secretRef"`
}

// Webhook names a provider and its secret.
type Webhook struct {
	// Provider: github, gitlab, gitea, bitbucket or generic.
	// +required
	Provider string `json:"provider"`
	// +required
	SecretRef LocalReference `json:"secretRef"`
}

// CommitStatus names a provider and its secret.
type CommitStatus struct {
	// +required
	Provider string `json:"provider"`
	// +required
	SecretRef LocalReference `json:"secretRef"`
}

// GitSyncStatus is what was fetched and applied.
type GitSyncStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Revision that was applied whole: the full commit.
	// +optional
	Revision string `json:"revision,omitempty"`
	// AttemptedRevision is the last commit that was fetched, applied or not.
	// +optional
	AttemptedRevision string `json:"attemptedRevision,omitempty"`
	// LastFetch is when the revision last changed or an attempt failed; not each fetch is recorded.
	// +optional
	LastFetch *metav1.MicroTime `json:"lastFetch,omitempty"`
	// LastCommand echoes the sync annotation that was last handled.
	// +optional
	LastCommand string `json:"lastCommand,omitempty"`
	// Inventory of the objects that were applied, as group/kind/namespace/name.
	// +optional
	Inventory []InventoryEntry `json:"inventory,omitempty"`
}

// InventoryEntry identifies an applied object.
type InventoryEntry struct {
	// +optional
	Group   string `json:"group,omitempty"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
	// +optional
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Reasons of a GitSync's Ready condition.
const (
	ReasonApplied        = "Applied"
	ReasonFetching       = "Fetching"
	ReasonFetchFailed    = "FetchFailed"
	ReasonInvalidSource  = "InvalidSource"
	ReasonInvalidContent = "InvalidContent"
	ReasonApplyFailed    = "ApplyFailed"
)
