// Package controllertest tests the reconciler of Rollouts against a real API server: everything that lives between the
// pipeline and the mesh, with workloads whose status the tests write and evidence that they script.
package controllertest
