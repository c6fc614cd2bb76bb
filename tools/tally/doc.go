// Command tally adds up the results of several test runs into one closing line: "N passed, N failed, N skipped".
//
//	tally FILE...
//
// Each file is the output of `go test -json`. A package that fails without a failing test (it does not compile, or its
// TestMain gives up) counts as one failure. It exits 1 when something failed or when no test ran at all.
package main
