package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// The defaults of rollbackWindow and progressDeadline.
const (
	defaultReturnRevisions = 3
	defaultReturnWithin    = 168 * time.Hour
	defaultDeadline        = 30 * time.Minute
)

// idle decides while no run is in flight: healthy, rejected, or the start of a run.
func (d *draft) idle() {
	d.dropLeftovers()
	version := d.rollout.Spec.Version
	d.noteRelease()
	if version == d.status.Stable {
		d.status.Rejected = nil
	}
	d.forgetLeft()
	d.forgetRoutes()
	if released := d.letGo(); d.redescribe() || released || d.reselect() {
		d.in.Mesh.WriteProblem = nil // it was of what is driven no more
	}
	d.noteSkipped()
	switch p := firstProblem(d.in.HostProblem, d.in.Mesh.WriteProblem, d.subsetInUse(d.status.Stable)); {
	case p != nil && !d.returnsAnyway(version):
		d.stall(*p)
	case version == d.status.Stable:
		d.rest()
	case d.rejected():
		r := d.status.Rejected
		d.setPhase(v1.PhaseRolledBack, r.Reason, r.Message)
	case d.proven(version) && d.pinned(version) != nil:
		d.stall(*d.pinned(version))
	case d.proven(version):
		d.returnAtOnce(version) // neither suspension nor a window holds up a way back
	case d.in.Contended != "":
		d.wait(v1.ReasonContended, "%s", d.in.Contended)
	case d.rollout.Spec.Suspend:
		d.wait(v1.ReasonSuspended, "spec.suspend is set: %s stays on %s until it is cleared", d.rollout.Spec.Host, d.status.Stable)
	default:
		d.leave()
	}
}

// rest: nothing else is asked for than what serves.
func (d *draft) rest() {
	switch {
	case d.in.Mesh.SurveyProblem != nil:
		d.stall(*d.in.Mesh.SurveyProblem)
	case d.in.Contended != "":
		d.wait(v1.ReasonContended, "%s", d.in.Contended)
	default:
		d.serve()
	}
}

// serve is the state in which spec.version serves all traffic.
func (d *draft) serve() {
	seen := d.in.Versions[d.status.Stable]
	switch {
	case !seen.Found:
		d.stall(d.notFound(d.status.Stable))
	case seen.Ready == 0:
		d.setPhase(v1.PhaseProgressing, v1.ReasonAvailability, fmt.Sprintf("%s has no ready replica yet", d.status.Stable))
	case d.in.Written == nil && d.rollout.Status.Phase != v1.PhaseHealthy:
		d.awaitWrite(fmt.Sprintf("%s is to serve 100%% of %s: the mesh is being written", d.status.Stable, d.rollout.Spec.Host))
	default:
		d.setPhase(v1.PhaseHealthy, v1.ReasonServing, fmt.Sprintf("%s serves 100%% of %s", d.status.Stable, d.rollout.Spec.Host))
	}
}

// awaitWrite is Progressing until the mesh is as status says. What is being told already, say a revert, goes on being told.
func (d *draft) awaitWrite(message string) {
	reason := v1.ReasonStarting
	if d.status.Phase == v1.PhaseProgressing && d.status.Reason != v1.ReasonAvailability {
		reason, message = d.status.Reason, d.status.Message
	}
	d.setPhase(v1.PhaseProgressing, reason, message)
}

func (d *draft) notFound(version string) Problem {
	seen := d.in.Versions[version]
	switch {
	case seen.Foreign != nil:
		return *seen.Foreign
	case seen.Host != "":
		return Problem{v1.ReasonVersionNotFound, fmt.Sprintf(
			"no workload and no endpoint serves %s, the destination of version %s: deploy it or correct spec.version; the run starts by itself when it appears",
			seen.Host, version)}
	}
	return Problem{v1.ReasonVersionNotFound, fmt.Sprintf(
		"no workload and no endpoint of %s has the labels of version %s (%s): deploy it or correct spec.version; the run starts by itself when it appears%s",
		d.rollout.Spec.Host, version, formatLabels(seen.Labels), d.inPlaceHint(version))}
}

// inPlaceAdvice is what a person wants to know who changes one workload instead of adding another.
const inPlaceAdvice = "give each version a workload of its own, as docs/gitsync.md shows under \"One Deployment, a new one for each version\""

// inPlaceHint is for a version that is nowhere while stable's workload was changed: its image perhaps, without the labels.
func (d *draft) inPlaceHint(version string) string {
	stable := d.in.Versions[d.status.Stable]
	if version == d.status.Stable || stable.Revision == "" || d.status.StableRevision == "" || stable.Revision == d.status.StableRevision {
		return ""
	}
	return fmt.Sprintf(". The pod template of %s was changed instead: if that is to be %s, %s", d.status.Stable, version, inPlaceAdvice)
}

// rejected tells whether the asked-for version may not be tried: the rejection stands until version or revision changes.
func (d *draft) rejected() bool {
	r := d.status.Rejected
	if r == nil {
		return false
	}
	seen := d.in.Versions[r.Version]
	if r.Version != d.rollout.Spec.Version || (seen.Found && seen.Revision != "" && seen.Revision != r.Revision) {
		d.status.Rejected = nil
		return false
	}
	return true
}

// leave starts a run from stable to the asked-for version as soon as nothing forbids it.
func (d *draft) leave() {
	version := d.rollout.Spec.Version
	seen := d.in.Versions[version]
	switch p := firstProblem(d.in.Mesh.SurveyProblem, d.overlap(version), d.pinned(version), d.planProblem()); {
	case p != nil:
		d.stall(*p)
	case !seen.Found:
		d.stall(d.notFound(version))
	case d.in.Written == nil:
		// A run starts from a mesh that is as status says.
		d.awaitWrite(fmt.Sprintf("%s is asked for, the mesh is being brought to %s", version, d.status.Stable))
	case d.goes() != "":
		d.awaitWrite(fmt.Sprintf("%s is asked for, VirtualService %s, which spec.virtualServices names no more, is being deleted", version, d.goes()))
	default:
		d.startRun(version)
	}
}

func (d *draft) overlap(version string) *Problem {
	for _, v := range []string{version, d.status.Stable} {
		if other := d.in.Versions[v].Overlaps; other != "" {
			if workload := d.in.Versions[v].Workload; workload != "" && workload == d.in.Versions[other].Workload {
				return &Problem{v1.ReasonVersionsOverlap, fmt.Sprintf(
					"versions %s and %s are run by one workload, %s, which is updated in place and leaves nothing to step between: %s",
					v, other, workload, inPlaceAdvice)}
			}
			return &Problem{v1.ReasonVersionsOverlap, fmt.Sprintf(
				"versions %s and %s select the same pods: give them labels or a destination of their own in spec.versions", v, other)}
		}
	}
	switch a, b := d.target(version), d.status.Traffic.Stable; {
	case a.Host != "" && v1.HostKey(a.Host, d.rollout.Namespace) == v1.HostKey(b.Host, d.rollout.Namespace) && a.Port != b.Port && (a.Port == 0 || b.Port == 0):
		return &Problem{v1.ReasonVersionsOverlap, fmt.Sprintf(
			"versions %s and %s are ports of the destination %s, and one of them names no port: name the ports of both in spec.versions", version, d.status.Stable, b.Host)}
	case !a.Same(b, d.rollout.Namespace):
	case a.Host != "":
		return &Problem{v1.ReasonVersionsOverlap, fmt.Sprintf(
			"versions %s and %s share the destination %s: give them hosts of their own in spec.versions", version, d.status.Stable, b.Host)}
	default:
		return &Problem{v1.ReasonVersionsOverlap, fmt.Sprintf(
			"versions %s and %s share subset %s: give them subsets of their own in spec.versions", version, d.status.Stable, b.Subset)}
	}
	return nil
}

// planProblem is a step that can not stand.
func (d *draft) planProblem() *Problem {
	plan := resolvePlan(d.rollout)
	for i := range plan {
		if p := d.stageProblem(plan, i); p != nil {
			return p
		}
	}
	return nil
}

// stageProblem is why a stage can not stand: its fault's or mirror's host is not ours, its test tests nothing, or its match does
// not go with the routes'.
func (d *draft) stageProblem(plan []stage, i int) *Problem {
	s := &plan[i]
	p := firstProblem(d.faultProblem(s), d.mirrorProblem(s), s.sizeProblem(), s.regexProblem(), d.in.Mesh.StepProblems[i])
	if p == nil {
		return nil
	}
	return &Problem{p.Reason, fmt.Sprintf("step %s: %s", s.name, p.Message)}
}

// faultProblem is why the stage's fault can not be injected, or would be for nothing. A test without its fault would pass, and so
// would a fault that nobody watches.
func (d *draft) faultProblem(s *stage) *Problem {
	switch {
	case s.fault == nil:
		return nil
	case s.fault.Scope == v1.FaultScopeEveryone && !d.in.UnscopedFaults:
		return &Problem{v1.ReasonUnscopedFault, "fault.scope Everyone gives the fault to every request, and the operator does not allow that: " +
			"name the requests in fault.match, or start the operator with --allow-unscoped-faults"}
	case s.probe == nil && !s.traffic(v1.Target{}, v1.Target{}).Exposed():
		return &Problem{v1.ReasonInvalidSpec, "its fault tests nothing: no request reaches the canary and there is no probe; " +
			"add a probe, a match or a weight, or leave fault.traffic at Canary"}
	case s.fault.Host == "" && d.rollout.Spec.Protocol != "" && d.rollout.Spec.Protocol != v1.ProtocolHTTP:
		return &Problem{v1.ReasonInvalidSpec, fmt.Sprintf("its fault is on %s, whose routes of protocol %s can not carry one: name the host of an HTTP service in fault.host",
			d.rollout.Spec.Host, d.rollout.Spec.Protocol)}
	case s.fault.Host == "":
		return nil
	}
	if p := d.ownFaultProblem(s.fault); p != nil {
		return p
	}
	target := d.in.Mesh.Faults[s.fault.Host]
	if target.Problem == nil && target.VirtualService.Name == "" {
		return &Problem{v1.ReasonForeignHost, fmt.Sprintf("nothing can carry a fault on host %s: name a Service of this namespace", s.fault.Host)}
	}
	return target.Problem
}

// ownFaultProblem is why a fault on another host does not go with where the canary is.
func (d *draft) ownFaultProblem(fault *v1.FaultInjection) *Problem {
	version := d.rollout.Spec.Version
	if d.status.Run != nil {
		version = d.status.Run.To
	}
	switch seen := d.in.Versions[version]; {
	case seen.Host == "":
	case v1.HostKey(seen.Host, d.rollout.Namespace) == v1.HostKey(fault.Host, d.rollout.Namespace):
		return &Problem{v1.ReasonInvalidSpec, fmt.Sprintf(
			"fault.host %s is the destination of version %s, to which requests come by the routes of %s: leave fault.host out",
			fault.Host, version, d.rollout.Spec.Host)}
	case len(seen.Labels) == 0 && fault.Traffic != v1.FaultTrafficUnchanged:
		return &Problem{v1.ReasonInvalidSpec, fmt.Sprintf(
			"calls of version %s to %s can not be told from others', since what serves its destination %s has no labels here: use fault.traffic Unchanged",
			version, fault.Host, seen.Host)}
	}
	return nil
}

// mirrorProblem is why the stage's mirror to another host can not stand.
func (d *draft) mirrorProblem(s *stage) *Problem {
	if s.mirror == nil || s.mirror.Host == "" {
		return nil
	}
	problem, known := d.in.Mesh.Mirrors[s.mirror.Host]
	if !known {
		return &Problem{v1.ReasonForeignHost, fmt.Sprintf("nothing is known of mirror host %s: name a Service of this namespace", s.mirror.Host)}
	}
	return problem
}

// trafficLimit is what of status is for a step's traffic.
const trafficLimit = 5 * 1024

// sizeProblem: the stage's matches, which status keeps, are too much for it.
func (s *stage) sizeProblem() *Problem {
	if len(s.match) == 0 && s.fault == nil && (s.mirror == nil || len(s.mirror.Match) == 0) {
		return nil
	}
	size := len(v1.CanonicalJSON(s.traffic(v1.Target{}, v1.Target{})))
	if size <= trafficLimit {
		return nil
	}
	return &Problem{v1.ReasonInvalidSpec, fmt.Sprintf(
		"its traffic needs %d bytes of status, which has %d for it: match less, say by one regex instead of many values", size, trafficLimit)}
}

// subsetInUse: labels of a subset that carries traffic do not change.
func (d *draft) subsetInUse(version string) *Problem {
	seen, known := d.in.Versions[version]
	if !known || d.status.Traffic == nil {
		return nil
	}
	committed := d.status.Traffic.Stable
	if c := d.status.Traffic.Canary; c != nil && c.Version == version {
		committed = *c
	}
	now := d.target(version)
	if committed.Same(now, d.rollout.Namespace) && (committed.Host != "" || maps.Equal(committed.Labels, seen.Labels)) {
		return nil
	}
	return &Problem{v1.ReasonSubsetInUse, fmt.Sprintf(
		"version %s serves as %s and can not become %s: undo the edit, or describe what is new as a version of another name",
		version, describeTarget(committed), describeTarget(now))}
}

// describeTarget is a version's place in the mesh, in words.
func describeTarget(t v1.Target) string {
	switch {
	case t.Host != "" && t.Port != 0:
		return fmt.Sprintf("destination %s port %d", t.Host, t.Port)
	case t.Host != "":
		return "destination " + t.Host
	}
	return fmt.Sprintf("subset %s with labels %s", t.Subset, formatLabels(t.Labels))
}

// pinned: routes that are not driven send users to the version's subset, so that its labels do not change.
func (d *draft) pinned(version string) *Problem {
	seen := d.in.Versions[version]
	if seen.Host != "" || !slices.Contains(d.in.Mesh.PinnedSubsets, seen.Subset) {
		return nil
	}
	for _, found := range d.in.Mesh.Subsets {
		if found.Name == seen.Subset && !maps.Equal(found.Labels, seen.Labels) {
			return &Problem{v1.ReasonSubsetInUse, fmt.Sprintf(
				"routes that are not managed send to subset %s with labels %s, and version %s is to have %s: undo the edit, or give the version a subset of its own",
				seen.Subset, formatLabels(found.Labels), version, formatLabels(seen.Labels))}
		}
	}
	return nil
}

// noteRelease keeps the Unreleased condition: stable's pod template changed without a change of version.
func (d *draft) noteRelease() {
	seen := d.in.Versions[d.status.Stable]
	if seen.Revision == "" {
		return
	}
	if d.status.StableRevision == "" {
		d.status.StableRevision = seen.Revision
		for i := range d.status.Proven {
			if p := &d.status.Proven[i]; p.Version == d.status.Stable && p.Revision == "" {
				p.Revision = seen.Revision
			}
		}
	}
	d.setUnreleased(seen.Revision != d.status.StableRevision)
}

// proven tells whether the version may be returned to at once: the proof is of this revision, recent, and it is available.
func (d *draft) proven(version string) bool {
	seen := d.in.Versions[version]
	if !seen.Available {
		return false
	}
	revisions, within := int32(defaultReturnRevisions), defaultReturnWithin
	if w := d.rollout.Spec.RollbackWindow; w != nil {
		revisions, within = valueOr(w.Revisions, revisions), durationOr(w.Within, within)
	}
	reachable := slices.DeleteFunc(slices.Clone(d.status.Proven), func(p v1.Proof) bool { return p.Version == d.status.Stable })
	reachable = reachable[:min(len(reachable), int(revisions))]
	return slices.ContainsFunc(reachable, func(p v1.Proof) bool {
		return p.Version == version && p.Revision == seen.Revision && d.in.Now.Sub(p.At.Time) <= within
	})
}

// withdrawProof forgets that a version was proven; at most ten proofs are kept.
func withdrawProof(proofs []v1.Proof, version string) []v1.Proof {
	return slices.DeleteFunc(slices.Clone(proofs), func(p v1.Proof) bool { return p.Version == version })
}

// returnsAnyway: what is wrong with the routes, or with the version that is left, keeps no traffic there when a proven version is
// asked for; what then is still wrong is told. Only where the mesh can not be read nobody knows which subset that version has.
func (d *draft) returnsAnyway(version string) bool {
	if p := d.in.Mesh.SurveyProblem; p != nil && (p.Reason == v1.ReasonIstioNotInstalled || p.Reason == v1.ReasonForbidden) {
		return false
	}
	return d.in.HostProblem == nil && version != d.status.Stable && d.proven(version) && d.pinned(version) == nil
}

// returnAtOnce moves all traffic to a proven version, without steps. Leaving a version this way withdraws its proof.
func (d *draft) returnAtOnce(version string) {
	d.widen()
	left := d.status.Stable
	d.status.Proven = withdrawProof(d.status.Proven, left)
	d.status.Stable, d.status.Previous = version, left
	d.status.StableRevision = d.in.Versions[version].Revision
	d.status.Traffic = &v1.Traffic{Stable: d.target(version)}
	d.status.Rejected = nil
	d.rollback = true
	d.setUnreleased(false)
	d.status.History = slices.Insert(d.status.History, 0, v1.RunRecord{
		Number: d.nextNumber(), From: left, To: version, Verdict: v1.ReasonReturned,
		Revision: d.status.StableRevision, StartedAt: d.now(), FinishedAt: d.now(),
	})
	message := fmt.Sprintf("%s was proven before: returned from %s at once, 100%% on %s", version, left, version)
	d.setPhase(v1.PhaseProgressing, v1.ReasonReturned, message)
	d.event(false, v1.ReasonReturned, "%s", message)
}

// startRun fixes what the run's evidence is about and which objects it drives.
func (d *draft) startRun(version string) {
	if p := d.manage(); p != nil {
		d.stall(*p)
		return
	}
	seen := d.in.Versions[version]
	d.status.Rejected = nil
	d.status.Canary = version
	d.status.Run = &v1.Run{
		Number: d.nextNumber(), From: d.status.Stable, To: version,
		Revision: seen.Revision, StableRevision: d.in.Versions[d.status.Stable].Revision, StartedAt: d.now(),
		Plan: []string{d.sharedHash(version)},
	}
	d.event(false, "RunStarted", "run %d: %s → %s, %d steps", d.status.Run.Number, d.status.Stable, version, len(resolvePlan(d.rollout)))
	d.awaitCanary()
}

// nextNumber counts a run.
func (d *draft) nextNumber() int64 {
	d.status.Runs++
	return d.status.Runs
}

// dropLeftovers forgets the VirtualService that carried a fault, and the mirrors that were saved, once the mesh is known to be
// without the fault and without our mirror.
func (d *draft) dropLeftovers() {
	if d.in.Written == nil || d.status.Traffic == nil {
		return
	}
	if d.status.Traffic.Fault == nil {
		d.status.FaultVirtualService = nil
	}
	if t := d.status.Traffic; t.Mirror != nil && !t.MirrorsApart() {
		return
	}
	for i := range d.status.VirtualServices {
		for j := range d.status.VirtualServices[i].Routes {
			d.status.VirtualServices[i].Routes[j].SavedMirror = ""
		}
	}
}
