// Package setup starts what the tests of several packages stand on: a process' way in and out, and an API server that knows
// Sluice's kinds. Tests that need a whole mesh begin with package session instead.
package setup
