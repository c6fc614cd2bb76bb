// Package kustomization renders kustomizations of one repository, in memory. It first follows what they name, itself: each
// reference must be a file or folder of the repository, and what could leave it (remote addresses, plugins, Helm, symbolic links) or
// grow without bound is refused by the file's and the field's name. Only what was followed so is given to kustomize.
//
// Where the repository comes from it does not know, nor what is done with the objects.
package kustomization
