package controllers

import (
	"maps"
	"regexp"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/mesh"
	"sluice.dev/sluice/internal/pipeline"
)

// change is one object that is not as the committed status says.
type change struct {
	kind schema.GroupVersionKind
	name string
	// found is what the write is based on, nil to create; want is what to write, nil to delete.
	found, want *unstructured.Unstructured
	// carries tells whether the committed traffic depends on it.
	carries bool
}

// objectRef names an object of the Rollout's namespace.
type objectRef struct{ kind, name string }

func (ch *change) object() objectRef { return objectRef{ch.kind.Kind, ch.name} }

// plan is what the mesh lacks of the committed status.
type plan struct {
	// changes that may be written now, in this order.
	changes []change
	// suspended: this Rollout may not write the mesh, so that nothing tells how it is.
	suspended bool
	// carrying: the traffic is not as status says; it is after the changes, the wait and once the problem is solved.
	carrying bool
	// wait is the time until more may be written; 0: nothing waits.
	wait time.Duration
	// problem is why something can not be rendered.
	problem *pipeline.Problem
}

// planner makes a plan. It does no I/O.
type planner struct {
	plan
	rollout *v1.Rollout
	sight   *sight
	notes   *notes
	delay   time.Duration
	now     time.Time
	rule    *unstructured.Unstructured
	named   map[string]bool
}

// makePlan compares the mesh with the committed status.
func (c *convergence) makePlan(now time.Time) plan {
	traffic := c.rollout.Status.Traffic
	if traffic == nil {
		return plan{}
	}
	if detached(c.rollout) || c.sight.keptFrom(c.rollout) != "" {
		return plan{suspended: true}
	}
	if p := c.sight.meshProblem; p != nil {
		return plan{problem: p, carrying: true}
	}
	p := &planner{plan: plan{carrying: c.notes.unsure}, rollout: c.rollout, sight: c.sight, notes: c.notes, delay: c.Config.PropagationDelay, now: now}
	if ref := c.rollout.Status.DestinationRule; ref != nil {
		p.rule = find(c.sight.destinationRules, ref.Name)
	}
	if p.relabelsInUse() {
		p.rollout, p.carrying = withdrawn(c.rollout), true
		traffic = p.rollout.Status.Traffic
	}
	rule := p.planRule()
	routes := p.planRoutes()
	if allStable(traffic) && p.ruleHolds(traffic.Stable) {
		p.changes = slices.Concat(routes, rule) // the way back waits for nothing
	} else {
		p.changes = slices.Concat(rule, routes)
	}
	p.judgeContests()
	p.planLeaving()
	return p.plan
}

func detached(rollout *v1.Rollout) bool {
	return rollout.Annotations[v1.ReconcileAnnotation] == v1.ReconcileDisabled
}

// planRule brings subsets in before anything names them, and out after nothing does.
func (p *planner) planRule() []change {
	status := &p.rollout.Status
	if status.DestinationRule == nil {
		return nil
	}
	p.notes.observeSubsets(subsetsIn(p.rule), p.now)
	want, problem := mesh.DestinationRule(p.keepingLabels(), p.rule, p.released())
	if problem != nil {
		p.problem, p.carrying = fromMesh(problem), true
		return nil
	}
	if sameObject(p.rule, want) {
		return nil
	}
	serving := []string{status.Traffic.Stable.Subset}
	carries := !p.ruleHolds(status.Traffic.Stable)
	if canary := status.Traffic.Canary; canary != nil {
		serving = append(serving, canary.Subset)
		carries = carries || !p.ruleHolds(*canary)
	}
	carries = carries || !mesh.SamePolicies(p.rule, want, serving...)
	p.carrying = p.carrying || carries
	return []change{{kind: kindDestinationRule, name: status.DestinationRule.Name, found: p.rule, want: want, carries: carries}}
}

// keepingLabels is the Rollout, with the found labels for each subset that does not belong to its traffic and that routes
// still name: what may carry traffic is not relabelled before the routes have left it.
func (p *planner) keepingLabels() *v1.Rollout {
	traffic := p.rollout.Status.Traffic
	found := map[string]map[string]string{}
	for _, s := range subsetsIn(p.rule) {
		found[s.Name] = s.Labels
	}
	kept := *p.rollout
	kept.Status.Subsets = slices.Clone(p.rollout.Status.Subsets)
	for i := range kept.Status.Subsets {
		s := &kept.Status.Subsets[i]
		set, ok := found[s.Name]
		serves := s.Name == traffic.Stable.Subset || (traffic.Canary != nil && s.Name == traffic.Canary.Subset)
		if ok && !serves && !maps.Equal(set, s.Labels) && p.references()[s.Name] {
			s.Labels = set
		}
	}
	return &kept
}

// relabelsInUse: the canary's subset is there with other labels, and routes name it: somebody sent traffic to it by hand.
func (p *planner) relabelsInUse() bool {
	canary := p.rollout.Status.Traffic.Canary
	if canary == nil || canary.Subset == p.rollout.Status.Traffic.Stable.Subset {
		return false
	}
	return slices.ContainsFunc(subsetsIn(p.rule), func(s v1.Subset) bool {
		return s.Name == canary.Subset && !maps.Equal(s.Labels, canary.Labels) && p.references()[s.Name]
	})
}

// withdrawn is the Rollout with all traffic on stable: the routes leave the canary's subset before it is relabelled.
func withdrawn(rollout *v1.Rollout) *v1.Rollout {
	without := *rollout
	back := rollout.Status.Traffic.AllStable()
	without.Status.Traffic = &back
	return &without
}

// references are the host's subsets that any route of the namespace names.
func (p *planner) references() map[string]bool {
	if p.named == nil {
		p.named = mesh.References(p.sight.virtualServices, p.rollout.Namespace, p.rollout.Spec.Host)
	}
	return p.named
}

// released names the leaving subsets that no route has named for the propagation delay.
func (p *planner) released() []string {
	var names []string
	for _, subset := range p.rollout.Status.Subsets {
		if !subset.Leaving {
			p.notes.needed(subset.Name)
			continue
		}
		if !slices.ContainsFunc(subsetsIn(p.rule), func(s v1.Subset) bool { return s.Name == subset.Name }) {
			continue
		}
		rest, leaves := p.notes.untilReleased(subset.Name, p.references()[subset.Name], p.delay, p.now)
		switch {
		case leaves && rest == 0:
			names = append(names, subset.Name)
		case leaves:
			p.waitFor(rest)
		}
	}
	return names
}

func (p *planner) waitFor(d time.Duration) {
	if p.wait == 0 || d < p.wait {
		p.wait = d
	}
}

func (p *planner) ruleHolds(t v1.Target) bool {
	return t.Host != "" || slices.ContainsFunc(subsetsIn(p.rule), func(s v1.Subset) bool {
		return s.Name == t.Subset && maps.Equal(s.Labels, t.Labels)
	})
}

// planRoutes renders each VirtualService that is driven, carries a fault, or has kept a copy of ours. A fault that ends is
// taken away before the next step's traffic comes, and one that begins comes after it; on the way back to stable a fault goes
// right after the traffic.
func (p *planner) planRoutes() []change {
	var own, begins, ends []change
	status := &p.rollout.Status
	managed := map[string]bool{}
	for _, vs := range status.VirtualServices {
		managed[vs.Name] = true
		own = append(own, p.planRoute(vs.Name)...)
	}
	carrier, wanted := carrierName(status), status.Traffic.Fault != nil && status.Traffic.Fault.Host != ""
	switch {
	case carrier == "" || managed[carrier]:
	case !wanted:
		ends = p.planRoute(carrier)
	case p.problem == nil: // a problem keeps a fault from being written, never from being taken away
		begins = p.planRoute(carrier)
	}
	for _, vs := range p.sight.virtualServices {
		if name := vs.GetName(); !managed[name] && name != carrier && hasCopies(vs, p.rollout.Name) {
			ends = append(ends, p.planRoute(name)...)
		}
	}
	if status.Traffic.Canary != nil {
		return slices.Concat(ends, own, begins)
	}
	return slices.Concat(own, ends, begins)
}

// planLeaving deletes, at rest, the VirtualServices of Sluice's making that the spec names no more, the propagation delay after
// everything else was found in place: what serves instead is known to the mesh by then.
func (p *planner) planLeaving() {
	status := &p.rollout.Status
	busy := status.Run != nil || !allStable(status.Traffic) || len(p.changes) > 0 || p.carrying || p.wait > 0 || p.problem != nil
	for _, vs := range status.VirtualServices {
		found := find(p.sight.virtualServices, vs.Name)
		if found == nil || !mesh.Leaves(p.rollout, vs) {
			continue
		}
		owner, asked := p.notes.owners[vs.Name]
		stays := busy || !asked || owner != "" || mesh.Stays(p.rollout, vs, p.sight.virtualServices) != ""
		switch rest, goes := p.notes.untilReleased(kindVirtualService.Kind+"/"+vs.Name, stays, p.delay, p.now); {
		case goes && rest > 0:
			p.waitFor(rest)
		case goes:
			p.carrying = true
			p.changes = append(p.changes, change{kind: kindVirtualService, name: vs.Name, found: found, carries: true})
		}
	}
}

// planRoute renders one VirtualService, unless it names a subset that the mesh may not know yet.
func (p *planner) planRoute(name string) []change {
	found := find(p.sight.virtualServices, name)
	want, problem := p.render(name, found)
	if problem != nil {
		p.problem, p.carrying = fromMesh(problem), true
	}
	if sameObject(found, want) || (problem != nil && want == nil) {
		return nil
	}
	p.carrying = true
	if rest := p.untilNamed(found, want); rest > 0 {
		p.waitFor(rest)
		return nil
	}
	return []change{{kind: kindVirtualService, name: name, found: found, want: want, carries: true}}
}

// render gives a VirtualService as the committed status wants it; nil when it is to go.
func (p *planner) render(name string, found *unstructured.Unstructured) (*unstructured.Unstructured, *mesh.Problem) {
	status, want := &p.rollout.Status, found
	managed := slices.IndexFunc(status.VirtualServices, func(vs v1.ManagedVirtualService) bool { return vs.Name == name })
	if managed >= 0 {
		var problem *mesh.Problem
		if want, problem = mesh.VirtualService(p.rollout, status.VirtualServices[managed], found); problem != nil {
			return want, problem // the way back for the routes that are there, or what is left without a fault
		}
	}
	if carrierName(status) == name {
		rendered, problem := p.renderFault(p.rollout, status.FaultVirtualService, want)
		if problem != nil && managed >= 0 && found != nil {
			// The step comes whole or not at all, and what an earlier one left goes.
			rendered, _ = p.renderFault(withoutFault(p.rollout), status.FaultVirtualService, found)
		}
		return rendered, problem
	}
	if managed < 0 {
		// A step before, or a crash, left our copy on a VirtualService that status names no more.
		carrier := &v1.ManagedVirtualService{Name: name, Created: found != nil && mesh.MadeForFaultOf(p.rollout.Name, found)}
		return p.renderFault(withoutFault(p.rollout), carrier, want)
	}
	return want, nil
}

// withoutFault is a Rollout with its traffic but for the fault.
func withoutFault(rollout *v1.Rollout) *v1.Rollout {
	without := rollout.DeepCopy()
	without.Status.Traffic.Fault = nil
	return without
}

// renderFault does not complain of a VirtualService that vanished together with the fault that was to be taken from it.
func (p *planner) renderFault(rollout *v1.Rollout, carrier *v1.ManagedVirtualService, found *unstructured.Unstructured) (*unstructured.Unstructured, *mesh.Problem) {
	wanted := rollout.Status.Traffic.Fault != nil && rollout.Status.Traffic.Fault.Host != ""
	want, problem := mesh.FaultVirtualService(rollout, carrier, found)
	if problem != nil && !wanted {
		return found, nil
	}
	return want, problem
}

// untilNamed is how long a VirtualService waits until the mesh knows every subset that it newly names.
func (p *planner) untilNamed(found, want *unstructured.Unstructured) time.Duration {
	if want == nil {
		return 0
	}
	host, namespace := p.rollout.Spec.Host, p.rollout.Namespace
	before := map[string]bool{}
	if found != nil {
		before = mesh.References([]*unstructured.Unstructured{found}, namespace, host)
	}
	rest := time.Duration(0)
	after := mesh.References([]*unstructured.Unstructured{want}, namespace, host)
	wayBack := found != nil && allStable(p.rollout.Status.Traffic)
	for _, subset := range p.rollout.Status.Subsets {
		if after[subset.Name] && !before[subset.Name] {
			rest = max(rest, p.notes.untilKnown(subset.Name, subset.Labels, wayBack, p.delay, p.now))
		}
	}
	return rest
}

// subsetsIn reads name and labels of a DestinationRule's subsets.
func subsetsIn(rule *unstructured.Unstructured) []v1.Subset {
	if rule == nil {
		return nil
	}
	raw, _, err := unstructured.NestedSlice(rule.Object, "spec", "subsets")
	if err != nil {
		return nil
	}
	var subsets []v1.Subset
	for _, entry := range raw {
		fields, ok := entry.(map[string]any)
		if !ok {
			continue
		}
		name, _, nameErr := unstructured.NestedString(fields, "name")
		set, _, labelErr := unstructured.NestedStringMap(fields, "labels")
		if nameErr == nil && labelErr == nil {
			subsets = append(subsets, v1.Subset{Name: name, Labels: set})
		}
	}
	return subsets
}

var copyName = regexp.MustCompile(`^sluice-(fault|match|mirror)-(.+)-\d+$`)

// copyOwner names the Rollout that a route was inserted for, and what for; empty: it was not inserted.
func copyOwner(route string) (rollout, kind string) {
	if match := copyName.FindStringSubmatch(route); match != nil {
		return match[2], match[1]
	}
	return "", ""
}

// hasCopies tells whether a VirtualService holds routes that were inserted for a Rollout.
func hasCopies(vs *unstructured.Unstructured, rollout string) bool {
	return slices.ContainsFunc(routeNames(vs), func(name string) bool {
		owner, _ := copyOwner(name)
		return owner == rollout
	})
}

// hasFault tells whether one of them is a fault's.
func hasFault(vs *unstructured.Unstructured, rollout string) bool {
	return slices.ContainsFunc(routeNames(vs), func(name string) bool {
		owner, kind := copyOwner(name)
		return owner == rollout && kind == "fault"
	})
}

// routeNames lists the names of a VirtualService's HTTP routes, without copying it.
func routeNames(vs *unstructured.Unstructured) []string {
	raw, _, err := unstructured.NestedFieldNoCopy(vs.Object, "spec", "http")
	routes, ok := raw.([]any)
	if err != nil || !ok {
		return nil
	}
	var names []string
	for _, entry := range routes {
		route, ok := entry.(map[string]any)
		if !ok {
			continue
		}
		if name, ok := route["name"].(string); ok {
			names = append(names, name)
		}
	}
	return names
}
