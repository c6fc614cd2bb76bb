// Package e2e holds the end-to-end tests: the operator's binary against real servers, judged by what users, the API server and
// Prometheus see. Each test has a namespace, a repository and an operator of its own, so that they run side by side.
package e2e
