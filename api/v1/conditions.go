package v1

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Phase is what `kubectl get rollouts` shows first.
type Phase string

// The phases.
const (
	PhaseHealthy     Phase = "Healthy"
	PhaseProgressing Phase = "Progressing"
	PhaseSoaking     Phase = "Soaking"
	PhaseWaiting     Phase = "Waiting"
	PhaseRolledBack  Phase = "RolledBack"
	PhaseStalled     Phase = "Stalled"
	PhaseDetached    Phase = "Detached"
)

// Condition types; Ready, Reconciling and Stalled follow kstatus.
const (
	ConditionReady       = "Ready"
	ConditionReconciling = "Reconciling"
	ConditionStalled     = "Stalled"
	ConditionUnreleased  = "Unreleased"
	ConditionContended   = "Contended"
	// ConditionCommandIgnored is True while an annotation asks for what Sluice does not do.
	ConditionCommandIgnored = "CommandIgnored"
)

// Reasons of Waiting.
const (
	ReasonSuspended  = "Suspended"
	ReasonNoEvidence = "NoEvidence"
	ReasonFaultBusy  = "FaultBusy"
	ReasonContended  = "Contended"
)

// Reasons of RolledBack; NoEvidence is one as well.
const (
	ReasonGateFailed  = "GateFailed"
	ReasonTrip        = "Trip"
	ReasonProbe       = "Probe"
	ReasonUnavailable = "Unavailable"
)

// Reasons of Stalled.
const (
	ReasonInitialVersionUnknown  = "InitialVersionUnknown"
	ReasonVersionNotFound        = "VersionNotFound"
	ReasonVersionsOverlap        = "VersionsOverlap"
	ReasonSubsetInUse            = "SubsetInUse"
	ReasonInvalidQuery           = "InvalidQuery"
	ReasonInvalidSpec            = "InvalidSpec"
	ReasonMatchConflict          = "MatchConflict"
	ReasonUnscopedFault          = "UnscopedFault"
	ReasonMixedRoute             = "MixedRoute"
	ReasonHostConflict           = "HostConflict"
	ReasonForeignHost            = "ForeignHost"
	ReasonVirtualServiceNotFound = "VirtualServiceNotFound"
	ReasonRouteNotFound          = "RouteNotFound"
	ReasonStableUnavailable      = "StableUnavailable"
	ReasonMeshWriteRefused       = "MeshWriteRefused"
	ReasonIstioNotInstalled      = "IstioNotInstalled"
	ReasonForbidden              = "Forbidden"
)

// Reasons of Healthy, Progressing, Soaking and Detached, and verdicts of runs that rejected nothing.
const (
	ReasonServing         = "Serving"
	ReasonStarting        = "Starting"
	ReasonAvailability    = "Availability"
	ReasonStep            = "Step"
	ReasonDetached        = "Detached"
	ReasonPromoted        = "Promoted"
	ReasonReverted        = "Reverted"
	ReasonReturned        = "Returned"
	ReasonPlanChanged     = "PlanChanged"
	ReasonWorkloadChanged = "WorkloadChanged"
	ReasonVersionChanged  = "VersionChanged"
)

// ReasonRestored is the reason of the event that tells of what somebody else wrote and Sluice put back.
const ReasonRestored = "Restored"

// ReasonNotSupported is why a command is ignored.
const ReasonNotSupported = "NotSupported"

// SetPhase writes phase, reason and message, and the three conditions that follow from the phase.
// The conditions' transition times are set to now only where their status changes.
func (s *RolloutStatus) SetPhase(phase Phase, reason, message string, generation int64, now metav1.Time) {
	s.Phase, s.Reason, s.Message = phase, reason, message
	s.ObservedGeneration = generation
	set := func(kind string, on bool) {
		status := metav1.ConditionFalse
		if on {
			status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: kind, Status: status, Reason: reason, Message: message,
			ObservedGeneration: generation, LastTransitionTime: now,
		})
	}
	reconciling := phase == PhaseProgressing || phase == PhaseSoaking || phase == PhaseWaiting
	stalled := phase == PhaseRolledBack || phase == PhaseStalled || phase == PhaseDetached
	set(ConditionReady, phase == PhaseHealthy)
	for kind, on := range map[string]bool{ConditionReconciling: reconciling, ConditionStalled: stalled} {
		if on {
			set(kind, true)
		} else {
			meta.RemoveStatusCondition(&s.Conditions, kind)
		}
	}
}
