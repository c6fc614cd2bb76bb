// Package cli is the kubectl plugin: commands that read files, and a cluster where one is asked for, hand them to the packages
// that know, and print what those say.
//
// It decides nothing about rollouts and writes nothing to a cluster.
package cli
