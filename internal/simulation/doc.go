// Package simulation proves, by running them, that the reconciler, the pipeline and the mesh keep the project's
// invariants: its tests drive the real code over a simulated API server, clock, Prometheus, cluster and people, all drawn
// from one seed, with conflicts, lost answers, lagging caches and crashes between any two writes.
//
// It holds tests only. What it asserts it reads from the history of the simulated API, never from the reconciler.
//
// SLUICE_SEEDS=10000 runs that many seeds, SLUICE_SEED=17 replays one and prints its transcript.
package simulation
