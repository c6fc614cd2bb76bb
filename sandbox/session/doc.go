// Package session is one use of the sandbox: a control plane with Sluice installed, bookinfo in the mesh, an operator
// process, a Git repository that it follows, and a load of users. The demo, `make sandbox` and the end-to-end tests are
// made of it. It asks the API server and Prometheus what happens, never the sidecars, so that it can run on a real cluster.
package session
