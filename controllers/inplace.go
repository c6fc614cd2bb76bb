package controllers

import (
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// noteInPlace finds that the workload of the version that is asked for is the one that ran stable: stable had one, and has none of its
// own any more, and this one's selector takes pods of either version. Updated in place, it leaves nothing to step between.
func (s *sight) noteInPlace(rollout *v1.Rollout, versions map[string]pipeline.Version) {
	name := rollout.Status.Stable
	stable, asked := versions[name], versions[rollout.Spec.Version]
	if name == rollout.Spec.Version || rollout.Status.StableRevision == "" || stable.Workload != "" || asked.Workload == "" {
		return
	}
	for i := range s.workloads {
		if w := &s.workloads[i]; w.name == asked.Workload && w.takes(stable.Labels) {
			stable.Workload = w.name
			versions[name] = stable
			return
		}
	}
}

// takes tells whether a pod of the template, but with these labels, would be the workload's.
func (w *workload) takes(set map[string]string) bool {
	selector, err := metav1.LabelSelectorAsSelector(w.selector)
	if err != nil || selector.Empty() {
		return false
	}
	pod := maps.Clone(w.template.Labels)
	maps.Copy(pod, set)
	return selector.Matches(labels.Set(pod))
}
