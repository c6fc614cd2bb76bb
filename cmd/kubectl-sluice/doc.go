// Command kubectl-sluice is the kubectl plugin: plan, diff, lint and init of Rollouts. What it does is in internal/cli.
package main
