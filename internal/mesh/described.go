package mesh

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	istio "istio.io/api/networking/v1alpha3"

	v1 "sluice.dev/sluice/api/v1"
)

// describedFields are the fields of a described VirtualService's spec, and templateFields those of its routes, that are as the
// Rollout says, also when it says nothing of them. All others are left to people.
var (
	describedFields = []string{"hosts", "gateways", "exportTo"}
	templateFields  = []string{"match", "rewrite", "headers", "timeout", "retries", "corsPolicy"}
)

// described are the VirtualServices that spec.virtualServices describes, as status lists them.
func described(r *v1.Rollout) []v1.ManagedVirtualService {
	var list []v1.ManagedVirtualService
	for _, entry := range r.Described() {
		managed := v1.ManagedVirtualService{Name: entry.Name, Created: true, Template: templateHash(r, entry)}
		for _, key := range routeKeys(drivenList(r).of(describedVirtualService(r, entry))) {
			managed.Routes = append(managed.Routes, v1.ManagedRoute{Key: key})
		}
		list = append(list, managed)
	}
	return list
}

// templateHash tells descriptions apart: eight hex digits.
func templateHash(r *v1.Rollout, entry v1.VirtualService) string {
	sum := sha256.Sum256(v1.CanonicalJSON(map[string]any{"entry": entry, "port": r.Spec.Port}))
	return hex.EncodeToString(sum[:4])
}

// description is the entry that describes the VirtualService of a name, nil when none does.
func description(r *v1.Rollout, name string) *v1.VirtualService {
	entries := r.Described()
	at := slices.IndexFunc(entries, func(entry v1.VirtualService) bool { return entry.Name == name })
	if at < 0 {
		return nil
	}
	return &entries[at]
}

// describedVirtualService is the whole object of a description; its routes lead to the host and to no subset yet.
func describedVirtualService(r *v1.Rollout, entry v1.VirtualService) *unstructured.Unstructured {
	vs := createdVirtualService(r, entry.Name)
	spec := specOf(vs)
	for field, given := range map[string][]string{"gateways": entry.Gateways, "hosts": entry.Hosts, "exportTo": entry.ExportTo} {
		if len(given) > 0 {
			spec[field] = toRaw(given)
		}
	}
	if templates := rawTemplates(r, entry); len(templates) > 0 {
		for _, route := range templates {
			asObject(route)["route"] = []any{baseDestination(r, nil)}
		}
		spec[string(drivenList(r))] = templates
	}
	return vs
}

// rawTemplates are a description's routes without destinations; none where the one of a VirtualService without a description does.
func rawTemplates(r *v1.Rollout, entry v1.VirtualService) []any {
	var routes []any
	switch list := drivenList(r); {
	case list == httpList:
		names := templateNames(entry.HTTP)
		for i := range entry.HTTP {
			route := asObject(toRaw(httpTemplate(&entry.HTTP[i])))
			route["name"] = names[i]
			routes = append(routes, route)
		}
	case list == tcpList && len(entry.TCP) == 0 && len(entry.Gateways) > 0 && !slices.Contains(entry.Gateways, meshGateway):
		routes = append(routes, object{}) // the port of the Service is none of the gateway's
	case list == tcpList:
		for i := range entry.TCP {
			routes = append(routes, asObject(toRaw(&istio.TCPRoute{Match: entry.TCP[i].Match})))
		}
	case len(entry.TLS) == 0 && len(entry.Hosts) > 0:
		routes = append(routes, asObject(toRaw(madeTLS(r, entry.Hosts, nil))))
	default:
		for i := range entry.TLS {
			routes = append(routes, asObject(toRaw(&istio.TLSRoute{Match: entry.TLS[i].Match})))
		}
	}
	return routes
}

// httpTemplate is a template as Istio's route, without name and destinations.
func httpTemplate(t *v1.HTTPRouteTemplate) *istio.HTTPRoute {
	route := &istio.HTTPRoute{Match: t.Match, Rewrite: t.Rewrite, Headers: t.Headers, Retries: t.Retries, CorsPolicy: t.CorsPolicy}
	if t.Timeout != nil {
		route.Timeout = durationpb.New(t.Timeout.Duration)
	}
	return route
}

// templateNames are the names of routes: their own, else primary for the first without one, and for the others primary- and a hash
// of their match, so that they keep them wherever they stand.
func templateNames(templates []v1.HTTPRouteTemplate) []string {
	names, taken := make([]string, len(templates)), map[string]bool{}
	for i := range templates {
		names[i] = templates[i].Name
		taken[names[i]] = true
	}
	for i := range templates {
		if names[i] != "" {
			continue
		}
		names[i] = createdRoute
		if taken[createdRoute] {
			names[i] += "-" + routeKey(object{"match": toRaw(templates[i].Match)})[len("#"):]
		}
		taken[names[i]] = true
	}
	return names
}

func routeKeys(list []any) []string {
	keys := make([]string, len(list))
	for i := range list {
		keys[i] = routeKey(asObject(list[i]))
	}
	return keys
}

// renderDescribed brings a VirtualService that the spec describes, or described, into its state. Where it is described otherwise
// than status says, that is not decided yet: everything but the traffic of the routes that are there stays as found.
func renderDescribed(r *v1.Rollout, managed v1.ManagedVirtualService, found *unstructured.Unstructured) (*unstructured.Unstructured, *Problem) {
	entry := description(r, managed.Name)
	if entry == nil && found == nil {
		return nil, &Problem{v1.ReasonVirtualServiceNotFound, fmt.Sprintf(
			"VirtualService %s is gone, and spec.virtualServices describes it no more", managed.Name)}
	}
	list := drivenList(r)
	keys := make([]string, len(managed.Routes))
	for i := range managed.Routes {
		keys[i] = managed.Routes[i].Key
	}
	var out *unstructured.Unstructured
	switch decided := entry != nil && templateHash(r, *entry) == managed.Template; {
	case found == nil:
		out = describedVirtualService(r, *entry)
		keys = routeKeys(list.of(out))
	case decided:
		made := describedVirtualService(r, *entry)
		out = follow(r, found.DeepCopy(), made, keys)
		keys = routeKeys(list.of(made))
	default:
		out = found.DeepCopy()
	}
	var routes []v1.ManagedRoute
	entries := list.of(out)
	for _, key := range keys {
		at := indexOfRoute(entries, key)
		if at < 0 {
			continue
		}
		if found != nil { // as for the one route of a VirtualService without a description
			for _, field := range mirrorFields {
				delete(asObject(entries[at]), field)
			}
		}
		routes = append(routes, v1.ManagedRoute{Key: key, SavedMirror: "{}"})
	}
	return renderRoutes(r, routes, out)
}

// follow makes a found VirtualService, which it may change, what its description says. Of the routes that status lists, those that
// are described no more go; what people added stays.
func follow(r *v1.Rollout, found, made *unstructured.Unstructured, listed []string) *unstructured.Unstructured {
	spec, want := specOf(found), specOf(made)
	for _, field := range describedFields {
		delete(spec, field)
		if value, given := want[field]; given {
			spec[field] = value
		}
	}
	list := drivenList(r)
	list.set(found, followRoutes(withoutCopies(list.of(found), r.Name), list.of(made), listed))
	return found
}

// followRoutes gives a list the made routes, in their order: each where it is found, or all in the place of the first of them where
// some are missing or stand in another order.
func followRoutes(found, made []any, listed []string) []any {
	keys := routeKeys(made)
	first, seen, inOrder := len(found), -1, true
	var rest []any
	places := map[string]int{}
	for _, entry := range found {
		route, isRoute := entry.(object)
		key := routeKey(route)
		at := slices.Index(keys, key)
		switch _, again := places[key]; {
		case isRoute && at >= 0 && !again:
			inOrder = inOrder && at == seen+1
			seen = at
			first = min(first, len(rest))
			places[key] = len(rest)
			rest = append(rest, followRoute(route, asObject(made[at])))
		case isRoute && at < 0 && slices.Contains(listed, key):
		default:
			rest = append(rest, entry)
		}
	}
	if inOrder && len(places) == len(made) {
		return rest
	}
	return regroup(rest, made, places, first)
}

// regroup puts the made routes, those that were found in their found form, one after the other at a place among the others.
func regroup(list, made []any, places map[string]int, first int) []any {
	group := make([]any, len(made))
	for i := range made {
		group[i] = made[i]
		if at, found := places[routeKey(asObject(made[i]))]; found {
			group[i] = list[at]
		}
	}
	var others []any
	for i, entry := range list {
		if at, found := places[routeKey(asObject(entry))]; !found || at != i {
			others = append(others, entry)
		}
	}
	return slices.Insert(others, min(first, len(others)), group...)
}

// followRoute gives a found route what its template says; its destinations are the traffic's.
func followRoute(found, made object) object {
	for _, field := range templateFields {
		delete(found, field)
		if value, given := made[field]; given {
			found[field] = value
		}
	}
	return found
}
