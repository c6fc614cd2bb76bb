// Package gitserver serves Git repositories over HTTP on loopback with git's own
// http-backend, so that clients meet the real protocol, and lets tests make it
// misbehave. Work is a clone that commits and pushes like a person's.
package gitserver
