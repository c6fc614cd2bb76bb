// Package gitsynctest drives the GitSync controller against a real API server and a real Git server.
package gitsynctest
