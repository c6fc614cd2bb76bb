package controllers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// workload is what matters of a Deployment, StatefulSet or DaemonSet.
type workload struct {
	kind, name string
	template   *corev1.PodTemplateSpec
	// ready replicas, of whatever template. available: at its current generation, with one of them, and no pod of an older
	// template is left, which would be ready in the place of the new ones.
	ready     int32
	available bool
	// selector of its pods.
	selector *metav1.LabelSelector
}

// endpoint is a pod or WorkloadEntry of a host, or one that its ServiceEntry lists.
type endpoint struct {
	name   string
	labels map[string]string
	ready  bool
}

// fill lists what serves a host: the workloads, also those that the spec names, and the endpoints.
func (r *RolloutReconciler) fill(ctx context.Context, rollout *v1.Rollout, p *place) error {
	selectors := p.selectors()
	var err error
	if p.workloads, err = r.findWorkloads(ctx, rollout, selectors); err != nil {
		return err
	}
	p.endpoints = p.listedEndpoints()
	for _, selector := range selectors {
		found, err := r.findEndpoints(ctx, rollout.Namespace, selector)
		if err != nil {
			return err
		}
		p.endpoints = append(p.endpoints, found...)
	}
	slices.SortFunc(p.endpoints, func(a, b endpoint) int { return strings.Compare(a.name, b.name) })
	p.endpoints = slices.CompactFunc(p.endpoints, func(a, b endpoint) bool { return a.name == b.name })
	return nil
}

// findWorkloads lists the workloads whose pods any of the selectors selects, and those that the spec names; by kind and name.
func (r *RolloutReconciler) findWorkloads(ctx context.Context, rollout *v1.Rollout, selectors []labels.Selector) ([]workload, error) {
	named := map[string]bool{}
	var tokens []string
	for _, selector := range selectors {
		tokens = append(tokens, selectorTokens(selector)...)
	}
	for _, v := range rollout.Spec.Versions {
		if v.Workload != nil {
			named[workloadKind(v.Workload)+"/"+v.Workload.Name] = true
			tokens = append(tokens, nameToken(v.Workload.Name))
		}
	}
	tokens = unique(tokens)
	var found []workload
	for _, list := range []client.ObjectList{&appsv1.DaemonSetList{}, &appsv1.DeploymentList{}, &appsv1.StatefulSetList{}} {
		some, err := r.listWorkloads(ctx, list, rollout.Namespace, tokens)
		if err != nil {
			return nil, err
		}
		for _, w := range some {
			if named[w.kind+"/"+w.name] || anySelects(selectors, w.template.Labels) {
				found = append(found, w)
			}
		}
	}
	slices.SortFunc(found, func(a, b workload) int {
		return strings.Compare(a.kind+"/"+a.name, b.kind+"/"+b.name)
	})
	return found, nil
}

func anySelects(selectors []labels.Selector, set map[string]string) bool {
	return slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(labels.Set(set)) })
}

func workloadKind(ref *v1.WorkloadReference) string {
	if ref.Kind == "" {
		return "Deployment"
	}
	return ref.Kind
}

// listWorkloads lists, once each, those of a kind that have any of the tokens.
func (r *RolloutReconciler) listWorkloads(ctx context.Context, list client.ObjectList, namespace string, tokens []string) ([]workload, error) {
	kind := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", list), "*v1."), "List")
	if err := r.readable(schema.GroupKind{Group: appsv1.GroupName, Kind: kind}); err != nil {
		return nil, err
	}
	var out []workload
	seen := map[string]bool{}
	add := func(w workload) {
		if !seen[w.name] {
			seen[w.name] = true
			out = append(out, w)
		}
	}
	err := listBy(ctx, r.Client, list, namespace, tokens, func() { eachWorkload(list, add) })
	return out, err
}

// eachWorkload reads a list.
func eachWorkload(list client.ObjectList, do func(workload)) {
	switch l := list.(type) {
	case *appsv1.DaemonSetList:
		for i := range l.Items {
			do(daemonSet(&l.Items[i]))
		}
	case *appsv1.DeploymentList:
		for i := range l.Items {
			do(deployment(&l.Items[i]))
		}
	case *appsv1.StatefulSetList:
		for i := range l.Items {
			do(statefulSet(&l.Items[i]))
		}
	}
}

func deployment(d *appsv1.Deployment) workload {
	status := &d.Status
	available := status.ObservedGeneration >= d.Generation && status.ReadyReplicas > 0 && status.UpdatedReplicas == status.Replicas
	for _, c := range status.Conditions {
		if c.Type == appsv1.DeploymentAvailable && c.Status == corev1.ConditionFalse {
			available = false
		}
	}
	return workload{"Deployment", d.Name, &d.Spec.Template, status.ReadyReplicas, available, d.Spec.Selector}
}

func statefulSet(s *appsv1.StatefulSet) workload {
	status := &s.Status
	available := status.ObservedGeneration >= s.Generation && status.ReadyReplicas > 0 && status.UpdatedReplicas == status.Replicas
	return workload{"StatefulSet", s.Name, &s.Spec.Template, status.ReadyReplicas, available, s.Spec.Selector}
}

func daemonSet(d *appsv1.DaemonSet) workload {
	status := &d.Status
	available := status.ObservedGeneration >= d.Generation && status.NumberReady > 0 &&
		status.UpdatedNumberScheduled == status.CurrentNumberScheduled
	return workload{"DaemonSet", d.Name, &d.Spec.Template, status.NumberReady, available, d.Spec.Selector}
}

// revision is the hash of the stored pod template, ten hex digits.
func (w *workload) revision() string {
	raw, err := json.Marshal(w.template)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:5])
}

// findEndpoints lists the pods and WorkloadEntries that a selector selects, ready or not.
func (r *RolloutReconciler) findEndpoints(ctx context.Context, namespace string, selector labels.Selector) ([]endpoint, error) {
	if err := r.readable(schema.GroupKind{Kind: "Pod"}); err != nil {
		return nil, err
	}
	var found []endpoint
	pods := &corev1.PodList{}
	err := listBy(ctx, r.Client, pods, namespace, selectorTokens(selector), func() {
		for i := range pods.Items {
			if pod := &pods.Items[i]; podLives(pod) && selector.Matches(labels.Set(pod.Labels)) {
				found = append(found, endpoint{"pod " + pod.Name, pod.Labels, podReady(pod)})
			}
		}
	})
	if err != nil {
		return nil, err
	}
	entries, err := r.listRaw(ctx, r.Client, kindWorkloadEntry, namespace, selectorTokens(selector))
	if problem, err := unreadable(err); err != nil || problem != nil {
		return found, err // without Istio's CRDs there are no WorkloadEntries
	}
	for _, entry := range entries {
		if set := entryLabels(entry); entry.GetDeletionTimestamp() == nil && selector.Matches(labels.Set(set)) {
			found = append(found, endpoint{"workloadentry " + entry.GetName(), set, entryReady(entry)})
		}
	}
	return found, nil
}

// podLives: a pod that goes, or whose containers are over for good, is no endpoint that may become ready.
func podLives(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

func podReady(pod *corev1.Pod) bool {
	return podLives(pod) && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// entryLabels are those by which Istio selects a WorkloadEntry: spec.labels, over which its own labels win.
func entryLabels(entry *unstructured.Unstructured) map[string]string {
	set, _, err := unstructured.NestedStringMap(entry.Object, "spec", "labels")
	if err != nil || set == nil {
		set = map[string]string{}
	}
	for k, v := range entry.GetLabels() {
		set[k] = v
	}
	return set
}

// entryReady: a WorkloadEntry is, unless its health check says otherwise.
func entryReady(entry *unstructured.Unstructured) bool {
	conditions, _, err := unstructured.NestedSlice(entry.Object, "status", "conditions")
	if err != nil {
		return true
	}
	return !slices.ContainsFunc(conditions, func(raw any) bool {
		c, ok := raw.(map[string]any)
		return ok && c["type"] == "Healthy" && c["status"] == "False"
	})
}
