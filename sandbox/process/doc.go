// Package process runs the sandbox's child processes: it starts a program,
// waits until it answers, stops or kills it, starts it again with the same
// arguments, and quotes the end of its log when something goes wrong.
//
// A child never outlives the program that started it (on Linux, even when that
// program is killed). The package knows nothing of what the programs do.
package process
