// Package mesh renders: VirtualServices and DestinationRules as a pure function of a Rollout's committed status and of the
// objects found. What is not ours in a found object is carried over as raw JSON, so that unknown fields live.
//
// It does no I/O, and knows neither the pipeline's decisions nor clocks.
package mesh
