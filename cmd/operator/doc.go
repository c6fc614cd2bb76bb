// Command operator runs Sluice's controllers: it drives Rollouts and applies what GitSyncs name.
//
// It only wires: flags, the manager, the analysis and the controllers. It is the one place that hands out the real clock.
package main
