// Package lint finds in manifests what the API server would refuse, what would stop a run, and what would make its evidence
// worthless, each with the place where it stands. The rules are one table, which docs/lint.md shows.
//
// It knows no cluster. How a run proceeds and what its gates ask it learns from the operator's own code, through package plan.
package lint
