package mesh

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"

	v1 "sluice.dev/sluice/api/v1"
)

// authorityHeader is what istiod turns into a rewrite of the authority for the one destination; `rewrite` is the whole route's.
const authorityHeader = "host"

// baseDestination is the route's first destination on the host, else on one that a version has of its own, else its only one, without
// subset and weight; port, headers and unknown fields stay.
func baseDestination(r *v1.Rollout, route object) object {
	destinations := objects(route["route"])
	for _, key := range r.HostKeys() {
		at := slices.IndexFunc(destinations, func(d object) bool { return hostOf(d, r.Namespace) == key })
		if at >= 0 {
			return plainBase(destinations[at])
		}
	}
	if len(destinations) == 1 { // a host that a version had of its own until the spec listed it no more; its place is not kept
		return plainBase(destinations[0])
	}
	return object{"destination": plainDestination(r)}
}

// plainBase is a destination without subset and weight.
func plainBase(destination object) object {
	base := clone(destination)
	delete(base, "weight")
	delete(child(base, "destination"), "subset")
	return base
}

// hostOf is the key of a destination's host.
func hostOf(destination object, namespace string) string {
	return HostKey(text(child(destination, "destination"), "host"), namespace)
}

// plainDestination is the host as the spec has it.
func plainDestination(r *v1.Rollout) object {
	destination := object{"host": r.Spec.Host}
	if r.Spec.Port != nil {
		destination["port"] = toRaw(r.Spec.Port)
	}
	return destination
}

// toTarget is a destination that leads to a version, with the other fields of the base. Its host and port are in the form in
// which the route has or had them, else in the spec's.
func toTarget(r *v1.Rollout, managed v1.ManagedRoute, base object, t v1.Target) object {
	d, own := clone(base), HostKey(r.Spec.Host, r.Namespace)
	key := own
	if t.Host != "" {
		key = HostKey(t.Host, r.Namespace)
	}
	if before := hostOf(d, r.Namespace); before != key || (t.Port == 0 && onVersionsPort(r, d)) {
		if before != own {
			withoutAuthority(d, before, r.Namespace)
		}
		d["destination"] = destinationOn(r, managed, key, t)
	}
	destination := child(d, "destination")
	if t.Subset != "" {
		destination["subset"] = t.Subset
	}
	if t.Port != 0 {
		destination["port"] = object{"number": int64(t.Port)}
	}
	if _, _, service := ServiceOf(t.Host, r.Namespace); key != own && !service && drivenList(r) == httpList {
		setAuthority(d, t.Host)
	}
	return d
}

// destinationOn is a version's host without subset, as the route had it, else as the spec has it. A port by which another version
// is told is not taken over.
func destinationOn(r *v1.Rollout, managed v1.ManagedRoute, key string, t v1.Target) object {
	saved := object{"destination": savedDestination(managed)}
	switch {
	case hostOf(saved, r.Namespace) == key && (t.Port != 0 || !onVersionsPort(r, saved)):
		return child(saved, "destination")
	case key != HostKey(r.Spec.Host, r.Namespace):
		return object{"host": t.Host}
	}
	return plainDestination(r)
}

// onVersionsPort tells whether a destination on the Rollout's host has the port of a version that is told by that.
func onVersionsPort(r *v1.Rollout, d object) bool {
	return hostOf(d, r.Namespace) == HostKey(r.Spec.Host, r.Namespace) && versionsPort(r, d) != 0
}

// versionsPort is a destination's port where a version has one of its own on that host; 0: none has.
func versionsPort(r *v1.Rollout, d object) uint32 {
	key := hostOf(d, r.Namespace)
	port, _ := number(child(child(d, "destination"), "port")["number"])
	for i := range r.Spec.Versions {
		own := r.Spec.Versions[i].Destination
		if own != nil && HostKey(own.Host, r.Namespace) == key && int64(own.Port.GetNumber()) == port {
			return own.Port.GetNumber()
		}
	}
	return 0
}

// setAuthority has requests ask the destination for its host, unless the route sets an authority of its own there.
func setAuthority(d object, host string) {
	if at, _ := authorityOf(d); at != "" {
		return
	}
	at := d
	for _, field := range []string{"headers", "request", "set"} {
		if child(at, field) == nil {
			at[field] = object{}
		}
		at = child(at, field)
	}
	at[authorityHeader] = host
}

// authorityOf is the header by which a destination sets the authority, and what it sets; empty: it does not.
func authorityOf(d object) (header, value string) {
	set := child(child(child(d, "headers"), "request"), "set")
	for _, name := range sortedKeys(keysOf(set)) {
		if strings.EqualFold(name, authorityHeader) || strings.EqualFold(name, ":authority") {
			return name, text(set, name)
		}
	}
	return "", ""
}

// withoutAuthority takes away an authority that stands for the destination's host, and what held nothing else.
func withoutAuthority(d object, key, namespace string) {
	header, value := authorityOf(d)
	if header == "" || HostKey(value, namespace) != key {
		return
	}
	headers := child(d, "headers")
	request := child(headers, "request")
	set := child(request, "set")
	delete(set, header)
	for _, holder := range []struct {
		in    object
		field string
		value object
	}{{request, "set", set}, {headers, "request", request}, {d, "headers", headers}} {
		if len(holder.value) == 0 {
			delete(holder.in, holder.field)
		}
	}
}

// savedDestination is the route's own destination, without its subset; nil when none was kept.
func savedDestination(managed v1.ManagedRoute) object {
	var saved object
	if err := json.Unmarshal([]byte(managed.Destination), &saved); err != nil {
		return nil
	}
	return saved
}

// SaveDestinations returns the managed value with the found destination of each route noted that is to lead to a host of a
// version's own, to be committed before that is written.
func SaveDestinations(r *v1.Rollout, managed v1.ManagedVirtualService, found *unstructured.Unstructured) v1.ManagedVirtualService {
	out := managed
	out.Routes = slices.Clone(managed.Routes)
	for i := range out.Routes {
		routes := drivenList(r).routes(found)
		at := slices.IndexFunc(routes, func(o object) bool { return routeKey(o) == out.Routes[i].Key })
		if at < 0 || out.Routes[i].Destination != "" {
			continue
		}
		destination := child(baseDestination(r, routes[at]), "destination")
		ours := slices.Contains(r.HostKeys(), HostKey(text(destination, "host"), r.Namespace))
		if data, err := json.Marshal(destination); err == nil && ours && !isSpelled(r, destination) {
			out.Routes[i].Destination = string(data)
		}
	}
	return out
}

// isSpelled tells whether the spec by itself comes to the form of a destination.
func isSpelled(r *v1.Rollout, destination object) bool {
	if sameJSON(destination, plainDestination(r)) {
		return true
	}
	return slices.ContainsFunc(r.Spec.Versions, func(v v1.Version) bool {
		if v.Destination == nil {
			return false
		}
		t := v1.Target{Host: v.Destination.Host, Port: v.Destination.Port.GetNumber()}
		return sameJSON(destination, toTarget(r, v1.ManagedRoute{}, object{"destination": plainDestination(r)}, t)["destination"])
	})
}

// allOwn tells whether all destinations of a route are hosts of the Rollout: its own, or those of its versions.
func allOwn(r *v1.Rollout, route object) bool {
	destinations, keys := objects(route["route"]), r.HostKeys()
	return len(destinations) > 0 && !slices.ContainsFunc(destinations, func(d object) bool {
		return !slices.Contains(keys, hostOf(d, r.Namespace))
	})
}
