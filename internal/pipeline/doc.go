// Package pipeline decides. Next is a pure function from a Rollout (its spec and its committed status), what was
// observed, and the time, to the next status, the events that tell of it, and what to measure meanwhile.
//
// It does no I/O, reads no clock, and knows neither the mesh's objects nor PromQL: it shares only v1.Traffic with the
// package that renders and GateWatch with the package that measures.
package pipeline
