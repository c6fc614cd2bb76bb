package simulation

import (
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

var (
	mainKey    = objectKey{kindVirtualService, namespace, "reviews"}
	edgeKey    = objectKey{kindVirtualService, namespace, "edge"}
	ruleKey    = objectKey{kindDestinationRule, namespace, "reviews"}
	ratingsKey = objectKey{kindVirtualService, namespace, "ratings"}
)

// routeKeys are the VirtualServices that may route to the Rollout's host: for the mesh, and for a gateway.
var routeKeys = []objectKey{mainKey, edgeKey}

// drivenKeys are those of them that a status says are driven.
func drivenKeys(s *v1.RolloutStatus) []objectKey {
	var keys []objectKey
	for _, key := range routeKeys {
		if slices.ContainsFunc(s.VirtualServices, func(vs v1.ManagedVirtualService) bool { return vs.Name == key.name }) {
			keys = append(keys, key)
		}
	}
	return keys
}

// routeView is one route as the oracle reads it, by its own means.
type routeView struct {
	name string
	// host that all destinations name; empty when they differ.
	host string
	// weights of the subsets; mirrors are percentages of subsets of the Rollout's host.
	weights map[string]int64
	mirrors map[string]float64
	sum     int64
	whole   bool // all weights are integers within 0 and 100
	fault   bool
	// ours is true for a copy that Sluice inserted.
	ours bool
	raw  map[string]any
}

// managed tells whether this route is to be driven: it is not pinned to another version (pinned-…), the spec does not leave it
// out (left-…), and people did not rename it in mid-run.
func (r *routeView) managed() bool {
	alone := strings.HasPrefix(r.name, "pinned-") || strings.HasPrefix(r.name, "left-") || r.name == "renamed"
	return !r.ours && r.host == "reviews" && !alone
}

// viewOf reads the routes of a VirtualService.
func viewOf(vs *unstructured.Unstructured) []routeView {
	if vs == nil {
		return nil
	}
	var views []routeView
	for _, list := range routeLists {
		for _, r := range routesIn(vs.Object, list) {
			if route, ok := r.(map[string]any); ok {
				views = append(views, viewRoute(route))
			}
		}
	}
	return views
}

func viewRoute(route map[string]any) routeView {
	v := routeView{weights: map[string]int64{}, mirrors: map[string]float64{}, whole: true, raw: route}
	if v.name, _ = route["name"].(string); v.name == "" {
		v.name, _ = route["note"].(string)
	}
	v.ours = strings.HasPrefix(v.name, "sluice-")
	v.fault = route["fault"] != nil
	destinations, _ := route["route"].([]any)
	for i, d := range destinations {
		entry, _ := d.(map[string]any)
		host, subset := destination(entry)
		if i == 0 {
			v.host = host
		} else if host != v.host {
			v.host = ""
		}
		weight, ok := entry["weight"].(int64)
		if !ok && entry["weight"] == nil && len(destinations) == 1 {
			weight, ok = 100, true
		}
		v.whole = v.whole && (ok || entry["weight"] == nil) && weight >= 0 && weight <= 100
		v.weights[subset] += weight
		v.sum += weight
	}
	mirrors, _ := route["mirrors"].([]any)
	for _, m := range mirrors {
		entry, _ := m.(map[string]any)
		if host, subset := destination(entry); host == "reviews" {
			percentage, _ := entry["percentage"].(map[string]any)
			v.mirrors[subset] = number(percentage["value"])
		}
	}
	return v
}

func number(value any) float64 {
	switch n := value.(type) {
	case int64:
		return float64(n)
	case float64:
		return n
	}
	return 0
}

func destination(entry map[string]any) (host, subset string) {
	d, _ := entry["destination"].(map[string]any)
	host, _ = d["host"].(string)
	host = strings.TrimSuffix(host, "."+namespace+"."+v1.ClusterDomain)
	if isElsewhere(host) {
		return "reviews", host
	}
	subset, _ = d["subset"].(string)
	return host, subset
}

// ruleSubsets are the labels of the live rule's subsets.
func (w *world) ruleSubsets() map[string]map[string]string { return subsetsOf(w.store.live(ruleKey)) }

func subsetsOf(rule *unstructured.Unstructured) map[string]map[string]string {
	out := map[string]map[string]string{}
	if rule == nil {
		return out
	}
	raw, _, _ := unstructured.NestedSlice(rule.Object, "spec", "subsets")
	for _, s := range raw {
		entry, _ := s.(map[string]any)
		name, _ := entry["name"].(string)
		labels, _, _ := unstructured.NestedStringMap(entry, "labels")
		out[name] = labels
	}
	return out
}

// references are the subsets of the host that a VirtualService names, in routes and mirrors, with their greatest weight;
// copies and mirrors count as 1 at least.
func references(vs *unstructured.Unstructured) map[string]int64 {
	out := map[string]int64{}
	for _, r := range viewOf(vs) {
		if r.host != "reviews" {
			continue
		}
		for subset, weight := range r.weights {
			out[subset] = max(out[subset], weight)
		}
		for subset := range r.mirrors {
			out[subset] = max(out[subset], 1)
		}
	}
	delete(out, "")
	return out
}

// carries tells whether a VirtualService of the host is as a traffic says.
func carries(vs *unstructured.Unstructured, t *v1.Traffic) bool {
	if vs == nil || t == nil {
		return false
	}
	copies, managed := map[string]int{}, 0
	for _, r := range viewOf(vs) {
		switch {
		case r.ours:
			copies[r.kind()]++
			if !carriesCopy(r, t) {
				return false
			}
		case r.managed():
			managed++
			if !carriesRoute(r, t) {
				return false
			}
		}
	}
	ownFault := t.Fault != nil && t.Fault.Host == ""
	return managed > 0 && (copies["match"] > 0) == (len(t.Match) > 0) && (copies["fault"] > 0) == ownFault && (copies["mirror"] > 0) == mirrorsApart(t)
}

// kind of an inserted copy: fault, match or mirror.
func (r *routeView) kind() string {
	kind, _, _ := strings.Cut(strings.TrimPrefix(r.name, "sluice-"), "-")
	return kind
}

// mirrorsApart: the mirror is narrowed or leads elsewhere, which leaves the routes' own mirrors alone.
func mirrorsApart(t *v1.Traffic) bool {
	return t.Canary != nil && t.Mirror != nil && (t.Canary.Host != "" || t.Mirror.Host != "" || len(t.Mirror.Match) > 0)
}

// carriesCopy tells whether a copy leads where a traffic sends those whom it is for.
func carriesCopy(r routeView, t *v1.Traffic) bool {
	if t.Canary == nil || r.fault != (r.kind() == "fault") {
		return false
	}
	canary := reflect.DeepEqual(r.weights, map[string]int64{place(*t.Canary): 100})
	same := reflect.DeepEqual(r.weights, map[string]int64{place(t.Stable): int64(100 - t.Weight), place(*t.Canary): int64(t.Weight)})
	switch r.kind() {
	case "mirror":
		_, toCanary := r.mirrors[place(*t.Canary)]
		return same && t.Mirror != nil && toCanary == (t.Mirror.Host == "")
	case "fault":
		return t.Fault != nil && (canary || (same && t.Fault.Traffic == v1.FaultTrafficUnchanged))
	}
	return canary
}

func carriesRoute(r routeView, t *v1.Traffic) bool {
	want := map[string]int64{place(t.Stable): 100}
	mirror := 0.0
	if t.Canary != nil {
		want[place(t.Stable)], want[place(*t.Canary)] = int64(100-t.Weight), int64(t.Weight)
		if t.Mirror != nil && !mirrorsApart(t) {
			mirror = float64(t.Mirror.Percentage)
		}
	}
	canary := ""
	if t.Canary != nil {
		canary = place(*t.Canary)
	}
	for subset, percentage := range r.mirrors {
		if subset != canary || percentage != mirror {
			return false
		}
	}
	if mirror > 0 && len(r.mirrors) == 0 {
		return false
	}
	return reflect.DeepEqual(r.weights, want)
}

// faultStands tells whether a fault of ours stands on the other host's VirtualService.
func faultStands(vs *unstructured.Unstructured) bool {
	for _, r := range viewOf(vs) {
		if r.ours {
			return true
		}
	}
	return false
}

// faultCarriers are the VirtualServices that carry our fault on the other host, as a reader at the objects' positions sees them.
func (w *world) faultCarriers(position func(objectKey) int64) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, key := range w.store.names[kindVirtualService] {
		if v := w.store.at(key, position(key)); v != nil && !slices.Contains(routeKeys, key) && faultStands(v.object) {
			out = append(out, v.object)
		}
	}
	return out
}

// now is the position of a reader who sees everything.
func (w *world) now(objectKey) int64 { return w.store.rv }
