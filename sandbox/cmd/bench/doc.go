// Command bench measures the operator's speed and cost in a control plane of its own, and prints a table; see docs/performance.md.
// What is measured and how is package bench's.
package main
