package controllers

import (
	"context"
	"fmt"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
	"sluice.dev/sluice/internal/pipeline"
)

// hostProblem is why the host can not be driven at all, nil when it can.
func (s *sight) hostProblem(rollout *v1.Rollout) *pipeline.Problem {
	if p := s.problem; p != nil {
		return p
	}
	if p := foreignHost("spec.host", rollout.Spec.Host, rollout.Namespace, s.exists()); p != nil {
		return p
	}
	if first := s.firstOnHost(rollout); first != "" {
		return &pipeline.Problem{Reason: v1.ReasonHostConflict, Message: fmt.Sprintf(
			"Rollout %s came first and drives %s or a version of it: delete one of the two, or give one another spec.host", first, rollout.Spec.Host)}
	}
	return nil
}

// firstOnHost names a Rollout that came first to the host or to one of the versions', if there is one: this one starts nothing then.
func (s *sight) firstOnHost(rollout *v1.Rollout) string {
	return s.cameBefore(rollout, (*v1.Rollout).HostKeys)
}

// keptFrom names a Rollout that came first to a host which traffic was committed to: this one writes no mesh then. A spec that was
// edited in mid-run, of whichever of the two, keeps no way back from being written.
func (s *sight) keptFrom(rollout *v1.Rollout) string {
	return s.cameBefore(rollout, committedKeys)
}

func (s *sight) cameBefore(rollout *v1.Rollout, keys func(*v1.Rollout) []string) string {
	for i := range s.rollouts {
		other := &s.rollouts[i]
		if other.Name != rollout.Name && (hasHost(keys(rollout), other) || hasHost(keys(other), rollout)) && cameFirst(other, rollout) {
			return other.Name
		}
	}
	return ""
}

// hasHost tells whether a Rollout's own host is among keys.
func hasHost(keys []string, r *v1.Rollout) bool {
	return slices.Contains(keys, mesh.HostKey(r.Spec.Host, r.Namespace))
}

// committedKeys are the keys of a Rollout's own host and of those that its committed traffic leads to.
func committedKeys(r *v1.Rollout) []string {
	keys := []string{mesh.HostKey(r.Spec.Host, r.Namespace)}
	for _, t := range committedTargets(r) {
		if t.Host != "" {
			keys = append(keys, mesh.HostKey(t.Host, r.Namespace))
		}
	}
	return keys
}

// cameFirst tells which of two Rollouts has a host: the one that drives it already, else the older one. Timestamps have whole
// seconds; of the same second the name decides.
func cameFirst(a, b *v1.Rollout) bool {
	if drives := drivesShared(a, b); drives != drivesShared(b, a) {
		return drives
	}
	if at, bt := a.CreationTimestamp, b.CreationTimestamp; !at.Equal(&bt) {
		return at.Before(&bt)
	}
	return a.Name < b.Name
}

// drivesHost tells whether a Rollout has begun to write its host's mesh.
func drivesHost(rollout *v1.Rollout) bool { return rollout.Status.Traffic != nil }

// drivesShared tells whether a Rollout writes what it has in common with another: its own host, which is that one's or its
// version's as well, or the other's, where its own traffic was committed to it.
func drivesShared(a, b *v1.Rollout) bool {
	return drivesHost(a) && (hasHost(b.HostKeys(), a) || hasHost(committedKeys(a), b))
}

// faultTargets looks up, for each fault.host of the steps, the VirtualService that would carry the fault. The key of the
// Rollout's own host, however it is spelled, is empty: there the managed VirtualServices carry it.
func (r *RolloutReconciler) faultTargets(ctx context.Context, rollout *v1.Rollout, s *sight) (map[string]pipeline.FaultTarget, error) {
	targets := map[string]pipeline.FaultTarget{}
	own := mesh.HostKey(rollout.Spec.Host, rollout.Namespace)
	for i := range rollout.Spec.Steps {
		fault := rollout.Spec.Steps[i].Fault
		if fault == nil {
			continue
		}
		if fault.Host == "" || mesh.HostKey(fault.Host, rollout.Namespace) == own {
			targets[""] = pipeline.FaultTarget{Busy: r.ownFaultHolder(rollout, s)}
			continue
		}
		if _, done := targets[fault.Host]; done {
			continue
		}
		target, err := r.faultTarget(ctx, rollout, s, fault.Host)
		if err != nil {
			return nil, err
		}
		targets[fault.Host] = target
	}
	return targets, nil
}

func (r *RolloutReconciler) faultTarget(ctx context.Context, rollout *v1.Rollout, s *sight, host string) (pipeline.FaultTarget, error) {
	if problem, err := r.checkHost(ctx, "fault.host", host, rollout.Namespace); err != nil || problem != nil {
		return pipeline.FaultTarget{Problem: problem}, err
	}
	carrier, problem := mesh.SurveyFault(rollout, host, s.virtualServices)
	target := pipeline.FaultTarget{VirtualService: carrier, Problem: fromMesh(problem)}
	target.Busy = r.faultHolder(rollout, s, append(s.carriersOf(rollout, host), carrier.Name, faultLease(host, rollout.Namespace))...)
	return target, nil
}

// mirrorHosts are the hosts that the steps mirror to instead of the canary.
func mirrorHosts(rollout *v1.Rollout) []string {
	var hosts []string
	own := mesh.HostKey(rollout.Spec.Host, rollout.Namespace)
	for i := range rollout.Spec.Steps {
		m := rollout.Spec.Steps[i].Mirror
		if m != nil && m.Host != "" && mesh.HostKey(m.Host, rollout.Namespace) != own && !slices.Contains(hosts, m.Host) {
			hosts = append(hosts, m.Host)
		}
	}
	return hosts
}

// mirrorTargets tells of each of them why it can not be mirrored to; nil: it can.
func (r *RolloutReconciler) mirrorTargets(ctx context.Context, rollout *v1.Rollout) (map[string]*pipeline.Problem, error) {
	targets := map[string]*pipeline.Problem{}
	for _, host := range mirrorHosts(rollout) {
		problem, err := r.checkHost(ctx, "mirror.host", host, rollout.Namespace)
		if err != nil {
			return nil, err
		}
		targets[host] = problem
	}
	return targets, nil
}

// ownFaultHolder names another Rollout whose fault stands on a VirtualService that this one drives.
func (r *RolloutReconciler) ownFaultHolder(rollout *v1.Rollout, s *sight) string {
	for _, vs := range rollout.Status.VirtualServices {
		if holder := r.faultHolder(rollout, s, vs.Name); holder != "" {
			return holder
		}
	}
	return ""
}

// carriersOf are the VirtualServices that the neighbours of a Rollout would make for a fault on a host: one that is not seen yet, or
// is about to go, is in the way of another one for the same host.
func (s *sight) carriersOf(rollout *v1.Rollout, host string) []string {
	var names []string
	for i := range s.rollouts {
		if other := &s.rollouts[i]; other.Name != rollout.Name {
			names = append(names, mesh.FaultCarrier(other.Name, host, rollout.Namespace))
		}
	}
	return names
}

// faultHolder names another Rollout that has a fault on any of what is named, by this process's commits, by the statuses, or by
// what was found there.
func (r *RolloutReconciler) faultHolder(rollout *v1.Rollout, s *sight, names ...string) string {
	for _, name := range names {
		target := keyOf(rollout.Namespace, name)
		if holder, ok := r.claims.holder(target, client.ObjectKeyFromObject(rollout)); ok {
			return holder.Name
		}
		found := find(s.virtualServices, name)
		for i := range s.rollouts {
			other := &s.rollouts[i]
			if other.Name == rollout.Name {
				continue
			}
			if slices.Contains(faultsOn(&other.Status, other.Namespace), name) || (found != nil && hasFault(found, other.Name)) {
				return other.Name
			}
		}
	}
	return ""
}

// faultsOn names what a status has a fault on: the Rollout's own VirtualServices, or that of another host and that host, for which
// two Rollouts at the same moment would make one each.
func faultsOn(status *v1.RolloutStatus, namespace string) []string {
	var names []string
	if carrier := carrierName(status); carrier != "" {
		names = append(names, carrier)
	}
	switch {
	case status.Traffic == nil || status.Traffic.Fault == nil:
	case status.Traffic.Fault.Host != "":
		names = append(names, faultLease(status.Traffic.Fault.Host, namespace))
	default:
		for _, vs := range status.VirtualServices {
			names = append(names, vs.Name)
		}
	}
	return names
}

// faultLease stands for a host among the names of VirtualServices, none of which has a slash.
func faultLease(host, namespace string) string { return hostToken(mesh.HostKey(host, namespace)) }

func fromMesh(p *mesh.Problem) *pipeline.Problem {
	if p == nil {
		return nil
	}
	return &pipeline.Problem{Reason: p.Reason, Message: p.Message}
}
