package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RolloutStatus is the write-ahead log: a decision is committed here before the mesh is written, and the mesh is a function of it. At most 16 KiB.
type RolloutStatus struct {
	// ObservedGeneration is the generation that the last decision was made on.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	Phase Phase `json:"phase,omitempty"`
	// +optional
	Reason string `json:"reason,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Revision is the Git commit that the observed spec came from.
	// +optional
	Revision string `json:"revision,omitempty"`
	// Stable is the version that serves.
	// +optional
	Stable string `json:"stable,omitempty"`
	// Canary is the version of the run in flight.
	// +optional
	Canary string `json:"canary,omitempty"`
	// Previous is the version that served before stable.
	// +optional
	Previous string `json:"previous,omitempty"`
	// StableRevision is the hash of stable's pod template, empty without a workload.
	// +optional
	StableRevision string `json:"stableRevision,omitempty"`
	// Since is when the current step began, or outside a run the phase.
	// +optional
	Since *metav1.MicroTime `json:"since,omitempty"`
	// Mode tells, in words, what the traffic holds besides weight: mirror 100, match, fault.
	// +optional
	Mode string `json:"mode,omitempty"`
	// Runs counts the runs and returns that were begun.
	// +optional
	Runs int64 `json:"runs,omitempty"`
	// Weight is the share that spec.version gets, 0 to 100.
	// +optional
	Weight *int32 `json:"weight,omitempty"`
	// Run in flight.
	// +optional
	Run *Run `json:"run,omitempty"`
	// Step of the run; absent while the run waits for its canary.
	// +optional
	Step *StepStatus `json:"step,omitempty"`
	// Traffic is what the mesh must be.
	// +optional
	Traffic *Traffic `json:"traffic,omitempty"`
	// Subsets that the DestinationRule must hold.
	// +optional
	Subsets []Subset `json:"subsets,omitempty"`
	// VirtualServices that are driven.
	// +optional
	VirtualServices []ManagedVirtualService `json:"virtualServices,omitempty"`
	// DestinationRule that holds the subsets.
	// +optional
	DestinationRule *ManagedDestinationRule `json:"destinationRule,omitempty"`
	// FaultVirtualService is the VirtualService of another host that carries, or may still carry, the fault of a step.
	// +optional
	FaultVirtualService *ManagedVirtualService `json:"faultVirtualService,omitempty"`
	// SkippedRoutes are routes to the host that pin another version or already split, and are left alone.
	// +optional
	SkippedRoutes []string `json:"skippedRoutes,omitempty"`
	// Proven versions may be returned to at once. Newest first.
	// +optional
	Proven []Proof `json:"proven,omitempty"`
	// Rejected is the version that is not tried again until version or revision changes.
	// +optional
	Rejected *Rejection `json:"rejected,omitempty"`
	// LastFailure is the evidence of the last rollback.
	// +optional
	LastFailure *Failure `json:"lastFailure,omitempty"`
	// History of runs, newest first, 10 at most.
	// +optional
	History []RunRecord `json:"history,omitempty"`
}

// ManagedDestinationRule names the rule that holds the subsets.
type ManagedDestinationRule struct {
	Name string `json:"name"`
	// Created is true when Sluice made it.
	// +optional
	Created bool `json:"created,omitempty"`
	// Policies are the blocks of trafficPolicy that the Rollout writes, and what it found in their place.
	// +optional
	Policies []ManagedPolicy `json:"policies,omitempty"`
}

// ManagedPolicy is about the trafficPolicy of the host or of one subset.
type ManagedPolicy struct {
	// Subset; empty for the host's own.
	// +optional
	Subset string `json:"subset,omitempty"`
	// Blocks are top-level fields of TrafficPolicy that the spec gives, or gave and that are not put back yet.
	Blocks []string `json:"blocks"`
	// Found is the JSON object of those blocks that were there before; empty when there was no trafficPolicy at all.
	// +optional
	Found string `json:"found,omitempty"`
}

// Run is a way from one version to another.
type Run struct {
	// Number counts the Rollout's runs from 1.
	Number int64 `json:"number"`
	// From is the stable version, To the canary.
	From string `json:"from"`
	To   string `json:"to"`
	// Revision and StableRevision are the hashes of the pod templates that the run's evidence is about.
	// +optional
	Revision string `json:"revision,omitempty"`
	// +optional
	StableRevision string `json:"stableRevision,omitempty"`
	// StartedAt is when the run was committed; a change of the spec before the first step moves it.
	StartedAt metav1.MicroTime `json:"startedAt"`
	// Plan holds a hash of each step's resolved traffic, up to and with the current one, and first that of what all steps share.
	// +optional
	Plan []string `json:"plan,omitempty"`
	// Records of the steps that ended.
	// +optional
	Steps []StepRecord `json:"steps,omitempty"`
	// BreakerBlind is true while the breaker can not see the canary, for longer than a moment.
	// +optional
	BreakerBlind bool `json:"breakerBlind,omitempty"`
}

// StepStatus is the step in which the run is.
type StepStatus struct {
	// Index counts from 0.
	Index int32 `json:"index"`
	// Total number of steps, the soak included.
	Total int32  `json:"total"`
	Name  string `json:"name"`
	// Display is "5/7 sign-off".
	Display string `json:"display"`
	// StartedAt is when the step, or after an edit its clock, was committed.
	StartedAt metav1.MicroTime `json:"startedAt"`
	// Applied is when the step's last mesh write was acknowledged; hold and gates count from it.
	// +optional
	Applied *metav1.MicroTime `json:"applied,omitempty"`
	// Interrupted: since applied the mesh was found not to be as promised; the clock starts afresh once it is.
	// +optional
	Interrupted bool `json:"interrupted,omitempty"`
}

// Proof records that a version completed a stepped run, or was the stable that was discovered first.
type Proof struct {
	Version string `json:"version"`
	// +optional
	Revision string           `json:"revision,omitempty"`
	At       metav1.MicroTime `json:"at"`
}

// Rejection of a version at a revision.
type Rejection struct {
	Version string `json:"version"`
	// +optional
	Revision string `json:"revision,omitempty"`
	Reason   string `json:"reason"`
	// +optional
	Message string           `json:"message,omitempty"`
	At      metav1.MicroTime `json:"at"`
}

// Failure is the evidence of a rollback.
type Failure struct {
	Version string `json:"version"`
	// Step's display, as "4/6 half".
	// +optional
	Step string `json:"step,omitempty"`
	// Gate that failed.
	// +optional
	Gate string `json:"gate,omitempty"`
	// +optional
	Query string `json:"query,omitempty"`
	// Value measured and Limit, as people write them ("4.2%", "1%").
	// +optional
	Value string `json:"value,omitempty"`
	// +optional
	Limit string `json:"limit,omitempty"`
	// Time of the sample that decided.
	Time metav1.MicroTime `json:"time"`
}

// RunRecord is a run that ended.
type RunRecord struct {
	Number int64  `json:"number"`
	From   string `json:"from"`
	To     string `json:"to"`
	// Verdict is Promoted, Returned or one of the RolledBack reasons.
	Verdict string `json:"verdict"`
	// +optional
	Revision   string           `json:"revision,omitempty"`
	StartedAt  metav1.MicroTime `json:"startedAt"`
	FinishedAt metav1.MicroTime `json:"finishedAt"`
	// +optional
	Steps []StepRecord `json:"steps,omitempty"`
}

// StepRecord is a step that ended.
type StepRecord struct {
	Name       string           `json:"name"`
	StartedAt  metav1.MicroTime `json:"startedAt"`
	FinishedAt metav1.MicroTime `json:"finishedAt"`
	// +optional
	Gates []GateRecord `json:"gates,omitempty"`
}

// GateRecord is the last judged value of a gate in a step.
type GateRecord struct {
	Name    string `json:"name"`
	Verdict string `json:"verdict"`
	// +optional
	Value string `json:"value,omitempty"`
	// +optional
	Limit string `json:"limit,omitempty"`
}
