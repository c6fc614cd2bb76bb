package mesh

import (
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// checkDescribed: what spec.virtualServices describes can be made, beside what is there.
func (s *surveyor) checkDescribed(all []*unstructured.Unstructured) {
	made := map[string]*unstructured.Unstructured{}
	for _, entry := range s.rollout.Described() {
		if made[entry.Name] != nil {
			s.fail(v1.ReasonInvalidSpec, "spec.virtualServices describes %s twice, since an entry without a name is about the one "+
				"that is named like the Rollout: give each a name of its own", entry.Name)
			return
		}
		vs := describedVirtualService(s.rollout, entry)
		made[entry.Name] = vs
		s.checkHosts(vs)
		s.checkRoutes(vs)
	}
	for _, vs := range all {
		if made[vs.GetName()] != nil {
			s.checkTaken(vs)
		}
	}
	s.checkShared(made, all)
	s.noteMadeRoutes(all)
}

// noteMadeRoutes adds, to what is described of a VirtualService that Sluice made without a description, the route that it made then:
// it takes every request, and those described now would never be reached behind it.
func (s *surveyor) noteMadeRoutes(all []*unstructured.Unstructured) {
	key := createdKey(s.rollout)
	for i := range s.found.Described {
		described := &s.found.Described[i]
		if s.madeBare(described.Name, all) && !slices.ContainsFunc(described.Routes, func(route v1.ManagedRoute) bool { return route.Key == key }) {
			described.Routes = append(described.Routes, v1.ManagedRoute{Key: key})
		}
	}
}

// madeBare tells whether Sluice made a VirtualService without a description: for this Rollout, or perhaps for an earlier one.
func (s *surveyor) madeBare(name string, all []*unstructured.Unstructured) bool {
	if managed := managedOf(s.rollout, name); managed != nil {
		return managed.Created && managed.Template == ""
	}
	return slices.ContainsFunc(all, func(vs *unstructured.Unstructured) bool { return vs.GetName() == name && isOurs(vs) })
}

// checkHosts: sidecars obey for a host what its own namespace says, so that other hosts are for gateways only.
func (s *surveyor) checkHosts(vs *unstructured.Unstructured) {
	if !slices.Contains(gatewaysOf(vs, s.rollout.Namespace), meshGateway) {
		return
	}
	own := spellings(s.rollout.Spec.Host, s.rollout.Namespace)
	for _, host := range boundHosts(vs, s.rollout.Namespace) {
		if host != s.host && !slices.Contains(own, host) {
			s.fail(v1.ReasonForeignHost, "spec.virtualServices describes %s for host %s and for all sidecars: give it gateways without mesh, "+
				"or host %s only", vs.GetName(), host, s.rollout.Spec.Host)
		}
	}
}

// checkRoutes: each of its routes can be told apart.
func (s *surveyor) checkRoutes(vs *unstructured.Unstructured) {
	keys := routeKeys(s.list.of(vs))
	for i, key := range keys {
		if slices.Index(keys, key) < i {
			s.fail(v1.ReasonInvalidSpec, "spec.virtualServices describes %s with two routes %s: the second would never be reached, take it out",
				vs.GetName(), key)
		}
	}
}

// checkTaken: a VirtualService of a described one's name is one that Sluice made.
func (s *surveyor) checkTaken(found *unstructured.Unstructured) {
	name := found.GetName()
	known := slices.ContainsFunc(s.rollout.Status.VirtualServices, func(vs v1.ManagedVirtualService) bool {
		return vs.Name == name && vs.Created
	})
	switch {
	case known:
	case !isOurs(found):
		s.fail(v1.ReasonInvalidSpec, "VirtualService %s is there and Sluice did not make it, so that it is managed as it is: take gateways, hosts, "+
			"exportTo, http, tcp and tls out of its entry in spec.virtualServices, or give that another name", name)
	case !slices.Contains(s.routing, name):
		s.taken(found)
	}
}

// checkShared: no other VirtualService binds one of their hosts on one of their gateways, except until it goes.
func (s *surveyor) checkShared(made map[string]*unstructured.Unstructured, all []*unstructured.Unstructured) {
	names := sortedKeys(keysOf(made))
	for i, name := range names {
		var others []*unstructured.Unstructured
		for _, later := range names[i+1:] {
			others = append(others, made[later])
		}
		for _, vs := range all {
			if made[vs.GetName()] == nil && !s.leaves(vs.GetName()) {
				others = append(others, vs)
			}
		}
		for _, other := range others {
			if host, gateway := shared(made[name], other, s.rollout.Namespace); host != "" {
				s.conflict("VirtualServices %s, which spec.virtualServices describes, and %s both bind host %s on gateway %s: keep one of them, "+
					"or give them hosts or gateways of their own", name, other.GetName(), host, gateway)
			}
		}
	}
}

// shared are the first host and gateway that two VirtualServices of a namespace both bind; empty: there is none.
func shared(a, b *unstructured.Unstructured, namespace string) (host, gateway string) {
	theirs, gateways := boundHosts(b, namespace), gatewaysOf(b, namespace)
	for _, host := range boundHosts(a, namespace) {
		for _, gateway := range gatewaysOf(a, namespace) {
			if slices.Contains(theirs, host) && slices.Contains(gateways, gateway) {
				return host, gateway
			}
		}
	}
	return "", ""
}
