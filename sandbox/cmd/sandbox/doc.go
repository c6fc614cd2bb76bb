// Command sandbox runs Sluice in a real control plane on this machine: `sandbox demo` tells a story and ends, `sandbox up`
// stays until a signal, `sandbox build-servers` only builds what they need.
package main
