// Package bench measures what a release costs: how long it takes, what it asks of the API server, and how much processor
// time and memory the operator needs. The API server and etcd are real, the operator is a process of its own, workloads are
// ready at once, and a stand-in for Prometheus answers in 5 ms; beside each figure stands what a plain client of the same API
// server achieves with the writes that can't be avoided.
//
// It knows the operator from outside only: by its objects, its metrics and its process.
package bench
