package controllers

import (
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
)

// interests is the index from objects to the Rollouts that they concern. A reconcile notes its own before it reads, so
// that what changes afterwards wakes it.
type interests struct {
	mu         sync.Mutex
	namespaces map[string]map[string]interest
	awaited    map[types.NamespacedName]bool
}

// interest of one Rollout.
type interest struct {
	services  []string
	selector  labels.Selector
	hosts     []string
	driven    []string // or named to be
	workloads []string
}

func newInterests() *interests {
	return &interests{namespaces: map[string]map[string]interest{}, awaited: map[types.NamespacedName]bool{}}
}

// note records what a Rollout depends on.
func (in *interests) note(rollout *v1.Rollout, service *corev1.Service) {
	i := interest{selector: labels.Nothing(), driven: drivenNames(kindVirtualService, &rollout.Status)}
	for _, vs := range rollout.Spec.VirtualServices {
		i.driven = append(i.driven, vs.Name)
	}
	if service != nil && len(service.Spec.Selector) > 0 {
		i.selector = labels.SelectorFromSet(service.Spec.Selector)
	}
	hosts := []string{rollout.Spec.Host}
	for _, step := range rollout.Spec.Steps {
		if step.Fault != nil && step.Fault.Host != "" {
			hosts = append(hosts, step.Fault.Host)
		}
	}
	for _, host := range hosts {
		i.hosts = append(i.hosts, mesh.HostKey(host, rollout.Namespace))
		if name, _, ok := mesh.ServiceOf(host, rollout.Namespace); ok {
			i.services = append(i.services, name)
		}
	}
	for _, v := range rollout.Spec.Versions {
		if v.Workload != nil {
			i.workloads = append(i.workloads, v.Workload.Name)
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.namespaces[rollout.Namespace] == nil {
		in.namespaces[rollout.Namespace] = map[string]interest{}
	}
	in.namespaces[rollout.Namespace][rollout.Name] = i
}

func (in *interests) forget(key types.NamespacedName) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.awaited, key)
	delete(in.namespaces[key.Namespace], key.Name)
	if len(in.namespaces[key.Namespace]) == 0 {
		delete(in.namespaces, key.Namespace)
	}
}

// await asks for the next event of a Rollout, even if it only tells of our own write.
func (in *interests) await(key types.NamespacedName) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.awaited[key] = true
}

// arrived tells whether an event was waited for, once.
func (in *interests) arrived(key types.NamespacedName) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	awaited := in.awaited[key]
	delete(in.awaited, key)
	return awaited
}

// where lists the Rollouts of a namespace whose interest satisfies the condition, by name.
func (in *interests) where(namespace string, concerns func(interest) bool) []types.NamespacedName {
	in.mu.Lock()
	defer in.mu.Unlock()
	var keys []types.NamespacedName
	for _, name := range slices.Sorted(maps.Keys(in.namespaces[namespace])) {
		if concerns(in.namespaces[namespace][name]) {
			keys = append(keys, types.NamespacedName{Namespace: namespace, Name: name})
		}
	}
	return keys
}

func (in *interests) inService(obj client.Object) []types.NamespacedName {
	return in.where(obj.GetNamespace(), func(i interest) bool { return slices.Contains(i.services, obj.GetName()) })
}

// inPods: the Service selects the labels.
func (in *interests) inPods(namespace string, set map[string]string) []types.NamespacedName {
	return in.where(namespace, func(i interest) bool { return i.selector.Matches(labels.Set(set)) })
}

func (in *interests) inWorkload(namespace, name string, template map[string]string) []types.NamespacedName {
	return in.where(namespace, func(i interest) bool {
		return i.selector.Matches(labels.Set(template)) || slices.Contains(i.workloads, name)
	})
}

// inMesh: the object is driven, or names the host.
func (in *interests) inMesh(namespace, name string, spec any) []types.NamespacedName {
	hosts := map[string]bool{}
	collectHosts(spec, namespace, hosts)
	return in.where(namespace, func(i interest) bool {
		return slices.Contains(i.driven, name) || slices.ContainsFunc(i.hosts, func(host string) bool { return hosts[host] })
	})
}

// collectHosts gathers the values of every field `host` and `hosts`, in their full form.
func collectHosts(value any, namespace string, into map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for key, field := range v {
			if key != "host" && key != "hosts" {
				collectHosts(field, namespace, into)
				continue
			}
			names, ok := field.([]any)
			if !ok {
				names = []any{field}
			}
			for _, raw := range names {
				if name, ok := raw.(string); ok {
					into[mesh.HostKey(strings.TrimSpace(name), namespace)] = true
				}
			}
		}
	case []any:
		for _, entry := range v {
			collectHosts(entry, namespace, into)
		}
	}
}

func (i interest) shares(hosts map[string]bool) bool {
	return slices.ContainsFunc(i.hosts, func(host string) bool { return hosts[host] })
}

// all lists every Rollout that was ever looked at.
func (in *interests) all() []types.NamespacedName {
	in.mu.Lock()
	defer in.mu.Unlock()
	var keys []types.NamespacedName
	for namespace, rollouts := range in.namespaces {
		for name := range rollouts {
			keys = append(keys, types.NamespacedName{Namespace: namespace, Name: name})
		}
	}
	return keys
}
