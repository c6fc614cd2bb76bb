// Package validate holds what Sluice renders against Istio's own validation, which only this module can import. It has nothing
// but tests.
package validate
