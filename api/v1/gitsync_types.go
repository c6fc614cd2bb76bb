package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// GitSync applies the manifests of a path of a Git repository to its own namespace and whatever its service account may write.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=gitsyncs,shortName=gsy,categories=sluice
// +kubebuilder:printcolumn:name="URL",type=string,JSONPath=`.spec.url`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.revision`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Status",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
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
	// URL of the repository: https, or http (with credentials: loopback only).
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('ssh://') && !self.matches('^[^/@:]+@[^/]+:')",message="ssh does not work yet: use an https URL"
	// +kubebuilder:validation:XValidation:rule="self.startsWith('ssh://') || self.matches('^[^/@:]+@[^/]+:') || (isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != '')",message="must be an https or http URL such as https://git.example.com/team/bookinfo.git"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^https?://[^/?#]*@')",message="must not hold credentials: they belong in the Secret that secretRef names"
	URL string `json:"url"`
	// Ref to follow; default: the branch main.
	// +optional
	Ref *GitRef `json:"ref,omitempty"`
	// Path inside the repository, default its root. Plain YAML and JSON, or a kustomization.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')",message="must be a path inside the repository such as deploy/prod"
	Path string `json:"path,omitempty"`
	// Interval between fetches, default 1m, at least 1s.
	// +optional
	// +sluice:atLeast="1s"
	Interval *metav1.Duration `json:"interval,omitempty"`
	// SecretRef: username and password, bearerToken, ca.crt. identity and known_hosts come with ssh.
	// +optional
	SecretRef *LocalReference `json:"secretRef,omitempty"`
	// ServiceAccountName is impersonated for every write; default: the operator's --default-service-account of the namespace.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",message="must be the name of an object: lower-case letters, digits, '-' and '.'"
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
	// Prune deletes what left the repository, default true, except what a Rollout's traffic needs: that goes later.
	// +optional
	Prune *bool `json:"prune,omitempty"`
	// Verify signatures.
	// +optional
	// +sluice:later
	Verify *Verify `json:"verify,omitempty"`
	// Webhook through which a forge or CI says "fetch now": POST to status.webhookPath on the operator's hook port.
	// +optional
	Webhook *Webhook `json:"webhook,omitempty"`
	// CommitStatus reports back to the forge.
	// +optional
	// +sluice:later
	CommitStatus *CommitStatus `json:"commitStatus,omitempty"`
	// Suspend stops fetching and applying.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
}

// GitRef names what to follow; exactly one field is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.branch), has(self.tag), has(self.semver), has(self.commit)].exists_one(given, given)",message="exactly one of branch, tag, semver and commit is needed"
type GitRef struct {
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="!self.matches('[\\\\s~^:?*\\\\[\\\\\\\\]|[.][.]|@[{]|//|^[-./]|[./]$|[.]lock$')",message="must be the name of a branch such as main or release/1.4"
	Branch string `json:"branch,omitempty"`
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:XValidation:rule="!self.matches('[\\\\s~^:?*\\\\[\\\\\\\\]|[.][.]|@[{]|//|^[-./]|[./]$|[.]lock$')",message="must be the name of a tag such as v1.4.2"
	Tag string `json:"tag,omitempty"`
	// Semver range over tags.
	// +optional
	// +sluice:later
	Semver string `json:"semver,omitempty"`
	// Commit is a full SHA-1.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="self.matches('^[0-9a-f]{40}$')",message="must be a full SHA-1 of 40 hexadecimal digits"
	Commit string `json:"commit,omitempty"`
}

// Verify holds trusted keys.
type Verify struct {
	// +required
	SecretRef LocalReference `json:"secretRef"`
}

// Webhook names a provider and its secret.
type Webhook struct {
	// Provider, whose own signature is verified: github, gitlab, gitea, bitbucket, or generic (X-Signature: sha256=HEX).
	// +required
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:XValidation:rule="self in ['github', 'gitlab', 'gitea', 'bitbucket', 'generic']",message="must be one of github, gitlab, gitea, bitbucket and generic"
	Provider string `json:"provider"`
	// SecretRef: token, the key of the signatures, and, while it is being changed, previous, which is accepted as well.
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
	// WebhookPath is where deliveries go, on the operator's hook port; empty without spec.webhook.
	// +optional
	WebhookPath string `json:"webhookPath,omitempty"`
	// LastDelivery is what the webhook received last. Refused deliveries are recorded every ten seconds at most.
	// +optional
	LastDelivery *Delivery `json:"lastDelivery,omitempty"`
	// FetchRequested is when a verified delivery last asked for a fetch.
	// +optional
	FetchRequested *metav1.MicroTime `json:"fetchRequested,omitempty"`
	// Inventory of the objects that were applied, as group/kind/namespace/name.
	// +optional
	Inventory []InventoryEntry `json:"inventory,omitempty"`
}

// Delivery is one request to a webhook.
type Delivery struct {
	// Time at which it was received.
	Time metav1.MicroTime `json:"time"`
	// Reason is the code that was answered, such as Accepted; a refusal's is more exact here than in the answer.
	Reason string `json:"reason"`
	// Message for people: what was received and, if it was refused, what would be right.
	// +optional
	Message string `json:"message,omitempty"`
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
	// Pending is written ahead: the object is about to be applied, and may not have been. Such a one is pruned only if it was.
	// +optional
	Pending bool `json:"pending,omitempty"`
}

// WebhookPathOf is where deliveries for a GitSync go.
func WebhookPathOf(namespace, name string) string {
	return "/hooks/gitsync/" + namespace + "/" + name
}

// Reasons of a GitSync's Ready condition.
const (
	ReasonApplied        = "Applied"
	ReasonFetching       = "Fetching"
	ReasonFetchFailed    = "FetchFailed"
	ReasonInvalidSource  = "InvalidSource"
	ReasonInvalidContent = "InvalidContent"
	ReasonApplyFailed    = "ApplyFailed"
	// ReasonHeldBack: all is applied but an object that would take away what a Rollout drives.
	ReasonHeldBack = "HeldBack"
	// ReasonPruneFailed: all is applied, and something that left the repository could not be deleted.
	ReasonPruneFailed = "PruneFailed"
)

// ConditionPrunePending is True, for the reason InUse, while something that left the repository is kept for a Rollout's traffic.
const (
	ConditionPrunePending = "PrunePending"
	ReasonInUse           = "InUse"
)
