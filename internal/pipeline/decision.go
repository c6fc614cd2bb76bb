package pipeline

import (
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// Decision is what follows from an Input.
type Decision struct {
	// Status to commit; equal to the Rollout's when there is nothing to decide.
	Status v1.RolloutStatus
	// Changed tells whether Status differs from the Rollout's. Istio's messages can't be compared by reflection.
	Changed bool
	// Events to emit once Status is committed.
	Events []Event
	// RequeueAfter is when to decide again without being woken; 0: only when woken.
	RequeueAfter time.Duration
	// Watch is what to measure from now on; nil: nothing.
	Watch *Watch
	// Rollback is true when this decision takes traffic off the canary: its writes overtake all others and are made on live reads.
	Rollback bool
}

// Event is one transition, as users read it.
type Event struct {
	// Warning, else Normal.
	Warning bool
	Reason  string
	Message string
}

// Watch is what the analysis measures for one step of one run.
type Watch struct {
	// ID changes with everything that makes earlier samples worthless: run, step, its clock.
	ID    string
	Gates []GateWatch
	Probe *ProbeWatch
	// Breaker is watched apart from the step: ID is not about it. Without a step that is measured ID is empty.
	Breaker *BreakerWatch
}

// Exposure of the canary decides whose proxy reports its requests.
type Exposure string

// The exposures: mirrored requests are seen by the destination's proxy only, all others by the source's.
const (
	ExposureMirror  Exposure = "Mirror"
	ExposureTraffic Exposure = "Traffic"
)

// GateWatch is a gate with everything resolved.
type GateWatch struct {
	// Name is unique in the watch.
	Name     string
	Metric   v1.Metric
	Query    string
	Quantile string
	// Limits as given; at least one is set.
	Max, Min string
	// Window is 0 for a query without {{ .Window }}.
	Window      time.Duration
	Interval    time.Duration
	Samples     int
	Failures    int
	MinRequests int
	NoData      v1.NoDataPolicy
	// First is the time of the first sample; later ones follow at multiples of Interval since the epoch. OffGrid: First is the only one that is off it.
	First   time.Time
	OffGrid bool
	// SeriesSince is when the step's traffic was applied: a series born since then counts from 0.
	SeriesSince time.Time
	Exposure    Exposure
	// Host (as in the spec), Namespace, and both versions with their labels and workloads: the variables of queries.
	Host, Namespace string
	Canary, Stable  GateTarget
}

// GateTarget is a version as metrics name it.
type GateTarget struct {
	Version  string
	Workload string
	Labels   map[string]string
	// Host of the version's own, as in the spec; empty: the Rollout's.
	Host string
	// SharesHost: the version that it is compared with answers on another port of that host, and this one on Port.
	SharesHost bool
	Port       uint32
}

// ProbeWatch is a probe with its time.
type ProbeWatch struct {
	Spec v1.Probe
	// Start and End bound the requests; at least 3 are made, whatever End is.
	Start, End time.Time
}
