package pipeline

import (
	"fmt"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// Config is the operator's flags that decisions depend on.
type Config struct {
	// PropagationDelay is how long the mesh is given to obey a write.
	PropagationDelay time.Duration
	// Settle is how long after its time a sample is judged, so that scrapes have arrived.
	Settle time.Duration
	// UnscopedFaults: faults of scope Everyone are allowed.
	UnscopedFaults bool
}

// Input is everything that a decision depends on.
type Input struct {
	Config
	// Rollout with its committed status; it is not changed.
	Rollout *v1.Rollout
	Now     time.Time
	// Versions observed, by version name: at least those that VersionsToObserve names.
	Versions map[string]Version
	// Serving lists the versions that the ready endpoints of the Service belong to, sorted; used only to discover stable.
	Serving []string
	// Unready: the Service has endpoints but none of them is ready, so that it can't be told now which version serves.
	Unready bool
	// Alone: every ready endpoint of the host is stable's, so that a route without a subset leads to that too.
	Alone bool
	// HostProblem tells that the host can not be driven at all (ForeignHost, HostConflict between Rollouts), or is nil.
	HostProblem *Problem
	Mesh        Mesh
	// Written tells when the mesh was last known to be as status.traffic says; nil when it is not, or not known yet.
	Written *Written
	// Contended tells who undoes, in a loop, what is written, and the remedy; empty: nobody does.
	Contended string
	// Samples of each watched gate, by gate name, in order of time.
	Samples map[string]GateSamples
	// Probe of the current step; nil when none has begun.
	Probe *ProbeResult
	// Breaker of the run in flight; nil when nothing is watched yet.
	Breaker *BreakerState
}

// Version is what was seen of a version's workload and endpoints.
type Version struct {
	// Found is true when there is a workload or at least one endpoint.
	Found bool
	// Available: the workload is, at its current generation, with at least one ready replica; without a workload: a ready endpoint.
	Available bool
	// Ready is the number of ready replicas or endpoints.
	Ready int32
	// Revision is the hash of the workload's pod template; empty without a workload.
	Revision string
	// Workload is its name, for messages and metrics; empty without one.
	Workload string
	// Labels are the version's resolved labels, and Subset its name in the DestinationRule.
	Labels map[string]string
	Subset string
	// Host of the version's own, as in the spec, and its Port if one is given; then Subset is empty, and Labels are those by which
	// its Service selects pods.
	Host string
	Port uint32
	// Foreign is why a host of the version's own is none of the namespace's; nil: it is one.
	Foreign *Problem
	// Overlaps names another version of the Rollout that selects the same pods; empty when none does.
	Overlaps string
}

// Problem is something that the user must mend.
type Problem struct {
	// Reason is one of the Stalled reasons of v1.
	Reason string
	// Message says what was seen and what would be right.
	Message string
}

// Mesh is what was found of the host's VirtualServices and DestinationRule, and what is wrong with them.
type Mesh struct {
	// VirtualServices that route to the host, with the routes that could be driven: all destinations this host, one destination each
	// (unless the spec names them).
	VirtualServices []v1.ManagedVirtualService
	// Described are the VirtualServices that spec.virtualServices describes, which Sluice makes: what status is to hold of them.
	Described []v1.ManagedVirtualService
	// DestinationRule for the host, nil when there is none.
	DestinationRule *v1.ManagedDestinationRule
	// Subsets of that rule.
	Subsets []v1.Subset
	// Breakers are the subsets, "" for the host, at which that rule has a connectionPool or an outlierDetection; and the hosts of
	// versions' own, in full, whose rules have.
	Breakers map[string]bool
	// SkippedRoutes are routes to the host that can not be driven or are not to be, as "VirtualService/route: why".
	SkippedRoutes []string
	// PinnedSubsets are named by routes that the Rollout does not drive.
	PinnedSubsets []string
	// Leaving are the driven VirtualServices of Sluice's making that the spec names no more, with the reason for which one has to
	// stay, empty: none. Left are those that are gone.
	Leaving map[string]string
	Left    []string
	// Dropped are driven routes of adopted VirtualServices that the spec names no more, as "VirtualService/route".
	Dropped []string
	// SurveyProblem forbids starting a run or discovering stable: HostConflict, VirtualServiceNotFound, RouteNotFound, MixedRoute.
	SurveyProblem *Problem
	// WriteProblem is why the last rendering or write of status.traffic did not succeed: RouteNotFound, MatchConflict, MeshWriteRefused …
	WriteProblem *Problem
	// SplitRoutes is true when a route whose destinations are all this host has several of them; then stable can't be read from routes.
	SplitRoutes bool
	// StepProblems are why steps to come can not be rendered, by their places in the plan: MatchConflict.
	StepProblems map[int]*Problem
	// Faults tells, for each fault.host of the spec's steps that is not the Rollout's own host, what would carry the fault; and
	// under "" whether another Rollout's fault stands on the own VirtualService.
	Faults map[string]FaultTarget
	// Mirrors tells why a mirror.host of the spec's steps that is not the Rollout's own host can not be mirrored to: ForeignHost;
	// nil: it can. A host that is not there was not looked up.
	Mirrors map[string]*Problem
}

// Hidden is why the mesh may not obey what is written for a run, though it stands there: another object for the same host came, which
// proxies may obey instead, or the fault stands where nobody meets it any more. nil: nothing hides it.
func (m *Mesh) Hidden(s *v1.RolloutStatus) *Problem {
	switch {
	case s.Run == nil || s.Traffic == nil:
		return nil
	case m.SurveyProblem != nil && m.SurveyProblem.Reason == v1.ReasonHostConflict:
		return m.SurveyProblem
	case s.Traffic.Fault == nil || s.FaultVirtualService == nil:
		return nil
	}
	host, carrier := s.Traffic.Fault.Host, s.FaultVirtualService.Name
	switch now, known := m.Faults[host]; {
	case !known || host == "":
		return nil
	case now.Problem != nil:
		return now.Problem
	case now.VirtualService.Name != carrier:
		return &Problem{v1.ReasonHostConflict, fmt.Sprintf(
			"the fault on %s stands on VirtualService %s, and sidecars obey %s for that host by now: take away what was added for it, or undo the edit",
			host, carrier, now.VirtualService.Name)}
	}
	return nil
}

// FaultTarget is the VirtualService of another host that would carry a fault.
type FaultTarget struct {
	VirtualService v1.ManagedVirtualService
	// Problem forbids a fault there: ForeignHost, HostConflict. nil: none.
	Problem *Problem
	// Busy names the Rollout whose fault stands there; empty when none does.
	Busy string
}

// Written is knowledge about the mesh.
type Written struct {
	// At is when the last write was acknowledged, or when this process first found nothing to write.
	At time.Time
	// Wrote is true when At is the time of a write (also of one whose answer was lost), false when nothing had to be written since this process began.
	Wrote bool
}

// Verdict of a sample.
type Verdict string

// The verdicts. NoData and Error are never Pass.
const (
	Pass   Verdict = "Pass"
	Fail   Verdict = "Fail"
	NoData Verdict = "NoData"
	Error  Verdict = "Error"
)

// Sample is one judged value of a gate.
type Sample struct {
	// Time that the value is for: a multiple of the interval since the epoch, or GateWatch.First.
	Time    time.Time
	Verdict Verdict
	// Value as people write it, "4.2%" or "312ms"; empty for NoData and Error.
	Value string
	// Message says why it is NoData or Error.
	Message string
}

// GateSamples is what is known of a gate.
type GateSamples struct {
	// For is the watch that the samples are about; samples for another watch are not used.
	For string
	// Samples in order of time.
	Samples []Sample
	// InvalidQuery is Prometheus' message when it refuses the query (bad_data), else empty.
	InvalidQuery string
	// Query that was asked, rendered.
	Query string
}

// ProbeResult is the state of a step's probe.
type ProbeResult struct {
	// For is the watch that the result is about.
	For string
	// Total and Succeeded count its requests.
	Total, Succeeded int
	// Finished: the time is over and enough requests were made. Failed: the success share is out of reach or was missed.
	Finished, Failed bool
	// LastFailure describes the last request that failed: "GET http://…: status 503, expected 200".
	LastFailure string
	// Refused is set when the probe can not be made at all, with the reason (host not allowed): the user must act.
	Refused string
}
