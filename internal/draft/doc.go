// Package draft writes the first Rollout of a service from what is there: its Service, workloads, VirtualServices and
// DestinationRule. What would be managed it learns by playing a run, through package plan.
//
// It knows no cluster.
package draft
