// Command houserules checks what no linter does: that files keep below 450 lines, that every package tells in a doc.go
// what it is for, and that CRDs stay small enough to be applied and stored without a thought.
//
//	houserules DIR
package main
