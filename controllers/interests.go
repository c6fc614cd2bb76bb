package controllers

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
	namespaces map[string]*neighbourhood
	awaited    map[types.NamespacedName]bool
}

// neighbourhood are the interests of a namespace's Rollouts by their names, and their names by what they are interested in.
type neighbourhood struct {
	of map[string]interest
	by map[string]map[string]bool
}

// interest of one Rollout.
type interest struct {
	selectors []labels.Selector
	// tokens by which the interest is found, a selector's being one of those that it demands.
	tokens []string
}

func newInterests() *interests {
	return &interests{namespaces: map[string]*neighbourhood{}, awaited: map[types.NamespacedName]bool{}}
}

// note records what a Rollout depends on, pods and WorkloadEntries by the selectors of its hosts.
func (in *interests) note(rollout *v1.Rollout, selectors []labels.Selector) {
	i := interest{selectors: selectors, tokens: slices.Concat(routingTokens(rollout), ruleTokens(rollout))}
	for _, selector := range selectors {
		i.tokens = append(i.tokens, selectorTokens(selector)...)
	}
	for _, host := range append(hostsOf(rollout), rollout.HostKeys()...) {
		if name, _, ok := mesh.ServiceOf(host, rollout.Namespace); ok {
			i.tokens = append(i.tokens, serviceToken(name))
		}
	}
	for _, host := range mirrorHosts(rollout) { // to be there is all that is asked of them
		i.tokens = append(i.tokens, hostToken(mesh.HostKey(host, rollout.Namespace)))
		if name, _, ok := mesh.ServiceOf(host, rollout.Namespace); ok {
			i.tokens = append(i.tokens, serviceToken(name))
		}
	}
	for _, v := range rollout.Spec.Versions {
		if v.Workload != nil {
			i.tokens = append(i.tokens, workloadToken(v.Workload.Name))
		}
	}
	i.tokens = unique(i.tokens)
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.namespaces[rollout.Namespace] == nil {
		in.namespaces[rollout.Namespace] = &neighbourhood{of: map[string]interest{}, by: map[string]map[string]bool{}}
	}
	in.namespaces[rollout.Namespace].set(rollout.Name, i)
}

func serviceToken(name string) string  { return "service/" + name }
func workloadToken(name string) string { return "workload/" + name }

func (n *neighbourhood) set(name string, i interest) {
	if slices.Equal(n.of[name].tokens, i.tokens) {
		n.of[name] = i
		return
	}
	n.remove(name)
	n.of[name] = i
	for _, token := range i.tokens {
		if n.by[token] == nil {
			n.by[token] = map[string]bool{}
		}
		n.by[token][name] = true
	}
}

func (n *neighbourhood) remove(name string) {
	for _, token := range n.of[name].tokens {
		if delete(n.by[token], name); len(n.by[token]) == 0 {
			delete(n.by, token)
		}
	}
	delete(n.of, name)
}

func (in *interests) forget(key types.NamespacedName) {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.awaited, key)
	n := in.namespaces[key.Namespace]
	if n == nil {
		return
	}
	if n.remove(key.Name); len(n.of) == 0 {
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

// where lists the Rollouts of a namespace that are interested in any of the tokens; of those found by labels, whose pods' they
// are, only the ones whose selector matches.
func (in *interests) where(namespace string, tokens []string, pods map[string]string) []types.NamespacedName {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := in.namespaces[namespace]
	if n == nil {
		return nil
	}
	found := map[string]bool{}
	for _, token := range tokens {
		maps.Copy(found, n.by[token])
	}
	for key, value := range pods {
		for name := range n.by[labelToken(key, value)] {
			found[name] = found[name] || anySelects(n.of[name].selectors, pods)
		}
	}
	var keys []types.NamespacedName
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if found[name] {
			keys = append(keys, types.NamespacedName{Namespace: namespace, Name: name})
		}
	}
	return keys
}

func (in *interests) inService(obj client.Object) []types.NamespacedName {
	return in.where(obj.GetNamespace(), []string{serviceToken(obj.GetName())}, nil)
}

// inPods: the Service selects the labels.
func (in *interests) inPods(namespace string, set map[string]string) []types.NamespacedName {
	return in.where(namespace, nil, set)
}

func (in *interests) inWorkload(namespace, name string, template map[string]string) []types.NamespacedName {
	return in.where(namespace, []string{workloadToken(name)}, template)
}

// inMesh: the object is one of those that a look at the mesh would find.
func (in *interests) inMesh(obj *unstructured.Unstructured) []types.NamespacedName {
	return in.where(obj.GetNamespace(), Tokens(obj), nil)
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

// all lists every Rollout that was ever looked at.
func (in *interests) all() []types.NamespacedName {
	in.mu.Lock()
	defer in.mu.Unlock()
	var keys []types.NamespacedName
	for namespace, rollouts := range in.namespaces {
		for name := range rollouts.of {
			keys = append(keys, types.NamespacedName{Namespace: namespace, Name: name})
		}
	}
	return keys
}
