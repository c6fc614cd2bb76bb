// Package scenario plays the stories that `make demo` tells and the end-to-end tests assert: a version pushed to Git and
// what becomes of it. A story drives bookinfo, Git and the load; what happens it learns from the API server alone.
package scenario
