package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
)

// IndexName is the field by which a cache finds objects that may concern a Rollout, by their tokens. Without it each
// reconcile would go through its whole namespace, and a namespace of Rollouts through itself squared.
const IndexName = "sluice.dev/token"

// The kinds of tokens: what an object is named, which hosts it concerns, which VirtualServices it drives, which labels its pods
// have, and whose inserted routes it holds.
func nameToken(name string) string             { return "name/" + name }
func hostToken(key string) string              { return "host/" + key }
func drivenToken(virtualService string) string { return "drives/" + virtualService }
func labelToken(key, value string) string      { return "label/" + key + "=" + value }
func copiesToken(rollout string) string        { return "copies/" + rollout }

// Tokens by which an object is found; a kind that is not indexed has none.
func Tokens(obj client.Object) []string {
	tokens := []string{nameToken(obj.GetName())}
	switch o := obj.(type) {
	case *v1.Rollout:
		tokens = append(tokens, rolloutTokens(o)...)
	case *appsv1.Deployment:
		tokens = append(tokens, labelTokens(o.Spec.Template.Labels)...)
	case *appsv1.StatefulSet:
		tokens = append(tokens, labelTokens(o.Spec.Template.Labels)...)
	case *appsv1.DaemonSet:
		tokens = append(tokens, labelTokens(o.Spec.Template.Labels)...)
	case *corev1.Pod:
		tokens = append(tokens, labelTokens(o.Labels)...)
	case *unstructured.Unstructured:
		tokens = append(tokens, rawTokens(o)...)
	default:
		return nil
	}
	return tokens
}

func rolloutTokens(r *v1.Rollout) []string {
	var tokens []string
	for _, host := range hostsOf(r) {
		tokens = append(tokens, hostToken(mesh.HostKey(host, r.Namespace)))
	}
	for _, key := range r.HostKeys() {
		tokens = append(tokens, hostToken(key))
	}
	for _, name := range drivenNames(kindVirtualService, &r.Status) {
		tokens = append(tokens, drivenToken(name))
	}
	return unique(tokens)
}

// hostsOf a Rollout: its own, and those of its faults.
func hostsOf(r *v1.Rollout) []string {
	hosts := []string{r.Spec.Host}
	for i := range r.Spec.Steps {
		if fault := r.Spec.Steps[i].Fault; fault != nil && fault.Host != "" && !slices.Contains(hosts, fault.Host) {
			hosts = append(hosts, fault.Host)
		}
	}
	return hosts
}

func labelTokens(set map[string]string) []string {
	tokens := make([]string, 0, len(set))
	for key, value := range set {
		tokens = append(tokens, labelToken(key, value))
	}
	return tokens
}

func rawTokens(obj *unstructured.Unstructured) []string {
	if obj.GetKind() == kindWorkloadEntry.Kind {
		return labelTokens(entryLabels(obj))
	}
	hosts := map[string]bool{}
	collectHosts(obj.Object["spec"], obj.GetNamespace(), hosts)
	var tokens []string
	for host := range hosts {
		tokens = append(tokens, hostToken(host))
	}
	if slices.ContainsFunc(tokens, wild) && inMesh(obj) {
		tokens = append(tokens, wildToken)
	}
	for _, owner := range copyOwners(obj) {
		tokens = append(tokens, copiesToken(owner))
	}
	return tokens
}

// wildToken is of what a rule or a route for one host alone would take the place of: it is for a wildcard, in the mesh.
const wildToken = "wild"

func wild(token string) bool {
	host, ok := strings.CutPrefix(token, hostToken(""))
	return ok && mesh.Wildcard(host)
}

// inMesh: sidecars obey the object, as they do unless it is for gateways only.
func inMesh(obj *unstructured.Unstructured) bool {
	gateways, _, err := unstructured.NestedStringSlice(obj.Object, "spec", "gateways")
	return err == nil && (len(gateways) == 0 || slices.Contains(gateways, "mesh"))
}

// copyOwners are the Rollouts that routes of a VirtualService were inserted for.
func copyOwners(vs *unstructured.Unstructured) []string {
	var owners []string
	for _, name := range routeNames(vs) {
		if owner, _ := copyOwner(name); owner != "" && !slices.Contains(owners, owner) {
			owners = append(owners, owner)
		}
	}
	return owners
}

// routingTokens are those of the VirtualServices that matter to a Rollout: what routes to its hosts, what it drives, holds its
// copies, or has a name that it would take.
func routingTokens(r *v1.Rollout) []string {
	tokens := []string{nameToken(r.Name), copiesToken(r.Name), wildToken}
	for _, host := range hostsOf(r) {
		tokens = append(tokens, hostToken(mesh.HostKey(host, r.Namespace)))
		if host != r.Spec.Host {
			tokens = append(tokens, nameToken(mesh.FaultCarrier(r.Name, host, r.Namespace)))
		}
	}
	for _, key := range r.HostKeys() {
		tokens = append(tokens, hostToken(key))
	}
	for _, vs := range r.Spec.VirtualServices {
		tokens = append(tokens, nameToken(vs.Name))
		for _, host := range vs.Hosts { // another VirtualService may bind them
			tokens = append(tokens, hostToken(mesh.HostKey(host, r.Namespace)))
		}
	}
	for _, name := range drivenNames(kindVirtualService, &r.Status) {
		tokens = append(tokens, nameToken(name))
	}
	return unique(tokens)
}

// ruleTokens are those of the DestinationRules that matter to a Rollout.
func ruleTokens(r *v1.Rollout) []string {
	tokens := []string{nameToken(r.Name), wildToken}
	for _, key := range r.HostKeys() {
		tokens = append(tokens, hostToken(key))
	}
	if rule := r.Spec.DestinationRule; rule != nil {
		tokens = append(tokens, nameToken(rule.Name))
	}
	for _, name := range drivenNames(kindDestinationRule, &r.Status) {
		tokens = append(tokens, nameToken(name))
	}
	return unique(tokens)
}

// neighbourTokens are those of the Rollouts that share a host with one, or any of the VirtualServices that it sees or may take.
func neighbourTokens(r *v1.Rollout, virtualServices []*unstructured.Unstructured) []string {
	var tokens []string // its own host's is among them, so that it finds itself
	for _, token := range routingTokens(r) {
		if name, ok := strings.CutPrefix(token, nameToken("")); ok {
			tokens = append(tokens, drivenToken(name))
		} else if strings.HasPrefix(token, hostToken("")) {
			tokens = append(tokens, token)
		}
	}
	for _, vs := range virtualServices {
		tokens = append(tokens, drivenToken(vs.GetName()))
		for _, owner := range copyOwners(vs) {
			tokens = append(tokens, nameToken(owner))
		}
	}
	return unique(tokens)
}

// selectorTokens find, among more, whatever a selector of labels selects: by one of the labels. None: it selects nothing.
func selectorTokens(selector labels.Selector) []string {
	requirements, selectable := selector.Requirements()
	if !selectable || len(requirements) == 0 {
		return nil
	}
	first := requirements[0]
	for value := range first.Values() {
		return []string{labelToken(first.Key(), value)}
	}
	return nil
}

func unique(tokens []string) []string {
	slices.Sort(tokens)
	return slices.Compact(tokens)
}

// listBy lists, for each of the tokens, what of a namespace has it. Each time the list has new items, which are the cache's own.
func listBy(ctx context.Context, reader client.Reader, list client.ObjectList, namespace string, tokens []string, each func()) error {
	for _, token := range tokens {
		options := []client.ListOption{client.InNamespace(namespace), client.MatchingFields{IndexName: token}, client.UnsafeDisableDeepCopy}
		if err := reader.List(ctx, list, options...); err != nil {
			return fmt.Errorf("listing %T of %s by %s: %w", list, namespace, token, err)
		}
		each()
	}
	return nil
}
