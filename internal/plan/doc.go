// Package plan foretells what a run writes: it plays a Rollout's steps through the operator's own reconciler, on an API
// server in memory, by a clock that jumps, and with gates and probes that pass. So there is no second renderer whose
// output could differ from what a run writes.
//
// It does no I/O and reads no clock. What the given objects leave open, such as pods of a version, it assumes and says so.
package plan
