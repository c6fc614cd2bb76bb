package controllers

import v1 "sluice.dev/sluice/api/v1"

// SubsetOf gives the subset and the labels of a version, as a run resolves them: as the spec lists them, else as found in the
// host's DestinationRule, else by the version's name.
func SubsetOf(rollout *v1.Rollout, version string, found []v1.Subset) (name string, labels map[string]string) {
	return resolveSubset(rollout, version, found)
}
