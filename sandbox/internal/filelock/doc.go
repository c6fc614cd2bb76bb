// Package filelock holds an exclusive lock between processes by way of a file.
// The kernel releases it when the holder dies, so no stale lock can remain.
package filelock
