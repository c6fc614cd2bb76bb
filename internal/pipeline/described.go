package pipeline

import (
	"bytes"
	"fmt"
	"slices"

	v1 "sluice.dev/sluice/api/v1"
)

// describes tells whether the spec describes the VirtualService of a name, which Sluice makes.
func (d *draft) describes(name string) bool {
	_, described := managedByName(d.in.Mesh.Described, name)
	return described
}

// undescribed are the routes to the host that people added to a VirtualService that the spec describes: they are left alone.
func (d *draft) undescribed(found, driven v1.ManagedVirtualService) []string {
	described, _ := managedByName(d.in.Mesh.Described, found.Name)
	var skipped []string
	for _, route := range found.Routes {
		if !drivesRoute(described, route.Key) && !drivesRoute(driven, route.Key) {
			skipped = append(skipped, fmt.Sprintf("%s/%s: spec.virtualServices does not describe it", found.Name, route.Key))
		}
	}
	return skipped
}

// withDescribed adds to a managed set what the spec describes, and what leaves and is still driven. Routes that are listed and described no more stay listed until the
// mesh is known to be without them.
func (d *draft) withDescribed(managed []v1.ManagedVirtualService) []v1.ManagedVirtualService {
	for _, described := range d.in.Mesh.Described {
		before, _ := managedByName(d.status.VirtualServices, described.Name)
		now := described
		now.Routes = slices.Clone(described.Routes)
		for _, route := range before.Routes {
			if before.Template != "" && !drivesRoute(now, route.Key) {
				now.Routes = append(now.Routes, route)
			}
		}
		managed = append(managed, now)
	}
	for _, vs := range d.status.VirtualServices {
		if _, there := managedByName(managed, vs.Name); d.leaves(vs) && !there {
			managed = append(managed, vs)
		}
	}
	slices.SortFunc(managed, func(a, b v1.ManagedVirtualService) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return managed
}

// describedStands tells whether the VirtualServices that the spec describes are those that status has, as they are described.
func (d *draft) describedStands() bool {
	count := 0
	for _, vs := range d.status.VirtualServices {
		if vs.Template == "" || d.leaves(vs) {
			continue
		}
		if now, described := managedByName(d.in.Mesh.Described, vs.Name); !described || now.Template != vs.Template {
			return false
		}
		count++
	}
	return count == len(d.in.Mesh.Described)
}

// redescribe takes, at rest, what spec.virtualServices describes now, or what is driven in the place of all that leaves. One that it
// describes no more and still names is from then on like one that people made: managed as it is found.
func (d *draft) redescribe() bool {
	if d.in.Mesh.SurveyProblem != nil || (d.describedStands() && !d.unreplaced()) {
		return false
	}
	selected := d.selectRoutes().managed
	var managed []v1.ManagedVirtualService
	for _, vs := range d.status.VirtualServices {
		if (vs.Template == "" || d.leaves(vs)) && !d.describes(vs.Name) {
			managed = append(managed, vs)
		}
	}
	for _, vs := range selected {
		if _, driven := managedByName(managed, vs.Name); !driven {
			managed = append(managed, vs)
		}
	}
	d.status.VirtualServices = d.orMade(managed)
	d.in.Written = nil // what was known is of the mesh without these
	return true
}

// forgetRoutes drops, from described VirtualServices, the routes that are described no more, once the mesh is known to be without them.
func (d *draft) forgetRoutes() {
	if d.in.Written == nil {
		return
	}
	for i := range d.status.VirtualServices {
		vs := &d.status.VirtualServices[i]
		if now, described := managedByName(d.in.Mesh.Described, vs.Name); described && now.Template == vs.Template {
			vs.Routes = slices.Clone(now.Routes)
		}
	}
}
