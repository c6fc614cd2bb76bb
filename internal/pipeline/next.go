package pipeline

import (
	"fmt"
	"strings"

	v1 "sluice.dev/sluice/api/v1"
)

// Next decides what follows from an input. The same input gives the same decision.
func Next(in Input) Decision {
	d := newDraft(in)
	switch {
	case in.Rollout.Annotations[v1.ReconcileAnnotation] == v1.ReconcileDisabled:
		d.detach()
	case d.status.Stable == "":
		d.discover()
	case d.status.Run == nil:
		d.idle()
	default:
		d.inFlight()
	}
	return d.finish()
}

// detach leaves the mesh to a person. What happens meanwhile proves nothing, so the step's clock starts afresh afterwards.
func (d *draft) detach() {
	if step := d.status.Step; step != nil {
		step.Interrupted = step.Applied != nil
	}
	d.setPhase(v1.PhaseDetached, v1.ReasonDetached,
		fmt.Sprintf("annotation %s is %q: the mesh is not written until it is removed", v1.ReconcileAnnotation, v1.ReconcileDisabled))
}

// discover finds the version that serves, once, before any write to the mesh.
func (d *draft) discover() {
	if p := firstProblem(d.in.HostProblem, d.in.Mesh.SurveyProblem); p != nil {
		d.stall(*p)
		return
	}
	stable, problem := d.discoverStable()
	if problem != nil {
		d.stall(*problem)
		return
	}
	d.status.Stable = stable
	d.status.StableRevision = d.in.Versions[stable].Revision
	d.status.Traffic = &v1.Traffic{Stable: d.target(stable)}
	d.status.Proven = []v1.Proof{{Version: stable, Revision: d.status.StableRevision, At: d.now()}}
	if p := d.manage(); p != nil {
		d.status = newDraft(d.in).status
		d.stall(*p)
		return
	}
	d.event(false, "StableDiscovered", "%s serves %s", stable, d.rollout.Spec.Host)
	d.in.Written = nil // what was known is of a mesh that nobody drove
	d.idle()
}

// discoverStable applies the rules of discovery in order: routes, initialVersion, endpoints.
func (d *draft) discoverStable() (string, *Problem) {
	target, named := d.routed()
	if version := d.versionAt(target); named && version != "" {
		return version, nil
	}
	if v := d.rollout.Spec.InitialVersion; v != "" {
		if d.in.Versions[v].Available {
			return v, nil
		}
		return "", &Problem{
			v1.ReasonInitialVersionUnknown,
			fmt.Sprintf("spec.initialVersion %s is not available: make it ready or name the version that serves", v),
		}
	}
	var saw string
	switch {
	case named:
		saw = fmt.Sprintf("routes name %s, which is mapped to no version", pinOf(target))
	case d.in.Mesh.SplitRoutes:
		saw = "routes split between versions"
	default:
		version, ready := d.unrouted()
		if version != "" {
			return version, nil
		}
		saw = "no route names a subset and " + ready
	}
	return "", &Problem{
		v1.ReasonInitialVersionUnknown,
		fmt.Sprintf("which version of %s serves today is not clear: %s; set spec.initialVersion", d.rollout.Spec.Host, saw),
	}
}

// unrouted is the version that serves where routes name nothing but the host, or what was seen of its endpoints.
func (d *draft) unrouted() (version, saw string) {
	serving := d.in.Serving
	if own := d.versionAt(v1.ManagedRoute{}); own != "" {
		return own, ""
	}
	switch {
	case len(serving) == 1:
		return serving[0], ""
	case d.in.Unready:
		return "", "none of the endpoints is known to be ready now"
	case len(serving) == 0 && len(d.in.Mesh.VirtualServices) == 0:
		return d.rollout.Spec.Version, ""
	case len(serving) == 0:
		return "", "there is no ready endpoint"
	}
	return "", "ready endpoints are of versions " + strings.Join(serving, ", ")
}

// routed is what every route to the host names, a subset or a host of a version's own; false when they differ, split or name
// nothing but the Rollout's host, unless that is a version.
func (d *draft) routed() (v1.ManagedRoute, bool) {
	all, first := v1.ManagedRoute{}, true
	for _, vs := range d.in.Mesh.VirtualServices {
		for _, route := range vs.Routes {
			target := v1.ManagedRoute{Subset: route.Subset, Host: route.Host, Port: route.Port}
			if !first && target != all {
				return v1.ManagedRoute{}, false
			}
			all, first = target, false
		}
	}
	names := all.Subset != "" || all.Host != "" || (!first && d.versionAt(all) != "")
	return all, names && !d.in.Mesh.SplitRoutes
}

// versionAt is the version that a route leads to. One that names nothing leads to a version whose destination is the Rollout's
// host; of several there, which ports tell apart, to the one without a port.
func (d *draft) versionAt(route v1.ManagedRoute) string {
	plain := route
	if route.Subset == "" && route.Host == "" {
		plain.Host = v1.HostKey(d.rollout.Spec.Host, d.rollout.Namespace)
	}
	var found []string
	for _, v := range d.rollout.Spec.Versions {
		t := d.target(v.Name)
		switch {
		case (t.Host == "" && t.Subset == "") || !plain.SendsTo(t, d.rollout.Namespace):
		case t.Host == "" || t.Port == plain.Port:
			return v.Name
		default:
			found = append(found, v.Name)
		}
	}
	if len(found) == 1 {
		return found[0]
	}
	for _, s := range d.in.Mesh.Subsets {
		if len(found) == 0 && s.Name == route.Subset && route.Host == "" {
			return s.Labels["version"]
		}
	}
	return ""
}

func firstProblem(problems ...*Problem) *Problem {
	for _, p := range problems {
		if p != nil {
			return p
		}
	}
	return nil
}
