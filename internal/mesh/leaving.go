package mesh

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// Leaves tells whether a driven VirtualService is one of Sluice's making that spec.virtualServices names no more. It is driven on
// while it is there, and goes at rest.
func Leaves(r *v1.Rollout, managed v1.ManagedVirtualService) bool {
	_, named := r.Manages(managed.Name)
	return managed.Created && !named
}

// Stays says why a VirtualService that leaves has to stay; empty: it may be deleted. Without one for sidecars the Service's own
// balancing would take requests to every version, and what people or other Rollouts put into it would go with it.
func Stays(r *v1.Rollout, managed v1.ManagedVirtualService, all []*unstructured.Unstructured) string {
	vs := vsNamed(all, managed.Name)
	switch {
	case vs == nil:
		return ""
	case !isOurs(vs):
		return "it does not bear Sluice's label any more"
	case r.Annotations[v1.DeletionPolicyAnnotation] == v1.DeletionPolicyOrphan:
		return fmt.Sprintf("annotation %s is %s", v1.DeletionPolicyAnnotation, v1.DeletionPolicyOrphan)
	case addedRoute(r, managed, vs) != "":
		return fmt.Sprintf("its route %s is not of this Rollout's making", addedRoute(r, managed, vs))
	case servesMesh(r, vs) && !slices.ContainsFunc(staying(r, all), func(other *unstructured.Unstructured) bool { return servesMesh(r, other) }):
		return fmt.Sprintf("nothing else that is driven routes %s for sidecars, which would send to every version alike", r.Spec.Host)
	}
	return ""
}

// vsNamed is the VirtualService of a name, nil when there is none.
func vsNamed(all []*unstructured.Unstructured, name string) *unstructured.Unstructured {
	at := slices.IndexFunc(all, func(vs *unstructured.Unstructured) bool { return vs.GetName() == name })
	if at < 0 {
		return nil
	}
	return all[at]
}

// addedRoute is the key of a route that somebody else put into a VirtualService; empty: there is none.
func addedRoute(r *v1.Rollout, managed v1.ManagedVirtualService, vs *unstructured.Unstructured) string {
	for _, list := range routeLists {
		for _, route := range list.routes(vs) {
			_, owner := inserted(route)
			if key := routeKey(route); owner != r.Name && (list != drivenList(r) || !drivesRoute(r, managed, key)) {
				return key
			}
		}
	}
	return ""
}

// servesMesh tells whether sidecars obey a VirtualService for the Rollout's host.
func servesMesh(r *v1.Rollout, vs *unstructured.Unstructured) bool {
	return carriesMesh(vs, r.Namespace) && slices.Contains(boundHosts(vs, r.Namespace), HostKey(r.Spec.Host, r.Namespace))
}

// staying are the driven VirtualServices that are there and do not leave.
func staying(r *v1.Rollout, all []*unstructured.Unstructured) []*unstructured.Unstructured {
	var there []*unstructured.Unstructured
	for _, managed := range r.Status.VirtualServices {
		if vs := vsNamed(all, managed.Name); vs != nil && !Leaves(r, managed) {
			there = append(there, vs)
		}
	}
	return there
}

// leaves tells whether the VirtualService of a name is one that leaves.
func (s *surveyor) leaves(name string) bool {
	managed := managedOf(s.rollout, name)
	return managed != nil && Leaves(s.rollout, *managed)
}

// noteLeaving notes what leaves, and of what is adopted the routes that spec.virtualServices names no more.
func (s *surveyor) noteLeaving(all []*unstructured.Unstructured) {
	for _, managed := range s.rollout.Status.VirtualServices {
		switch vs := vsNamed(all, managed.Name); {
		case !Leaves(s.rollout, managed):
		case vs == nil:
			s.found.Left = append(s.found.Left, managed.Name)
		default:
			if s.found.Leaving == nil {
				s.found.Leaving = map[string]string{}
			}
			s.found.Leaving[managed.Name] = Stays(s.rollout, managed, all)
		}
	}
}

// noteDropped notes a route that is driven and that the spec does not name any more.
func (s *surveyor) noteDropped(c candidate, wanted bool) {
	managed := managedOf(s.rollout, c.vs)
	if managed == nil || managed.Created || c.hidden || (wanted && (!c.explicit || c.chosen)) || !drivesRoute(s.rollout, *managed, c.key) {
		return
	}
	s.found.Dropped = append(s.found.Dropped, c.vs+"/"+c.key)
}
