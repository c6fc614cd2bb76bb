package controllers

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

const (
	// contendedAfter undoings of what was written, within contendedWithin, somebody else is taken to do it in a loop.
	contendedAfter  = 3
	contendedWithin = 10 * time.Minute
	// contendedEvery is the time between two writes of such an object; after a rollback, the state of which is fought for, it is
	// rolledBackEvery.
	contendedEvery  = 30 * time.Second
	rolledBackEvery = time.Second
	// contendedRest is the least time that a write has to stand until the quarrel is over.
	contendedRest = 90 * time.Second
)

// admissionWriter stands for whoever changes our writes before they are stored.
const admissionWriter = "an admission webhook or policy"

// contest is what this process knows of an object that others write as well.
type contest struct {
	// right is the hash of the committed status that the object was last as wanted for, and version its resourceVersion then.
	right, version string
	// rest is the hash of that object without what was inserted for the Rollout.
	rest string
	// wrote is the time of our last write, and stored the resourceVersion that it got; altered: what was stored is not what was sent.
	wrote   time.Time
	stored  string
	altered bool
	// undone are the times at which our writes were found undone and written again, and writer who did it last.
	undone []time.Time
	writer string
}

func (n *notes) contest(of objectRef) *contest {
	if n.contests == nil {
		n.contests = map[objectRef]*contest{}
	}
	if n.contests[of] == nil {
		n.contests[of] = &contest{}
	}
	return n.contests[of]
}

// purpose identifies what is committed about the mesh.
func purpose(rollout *v1.Rollout) string {
	s := &rollout.Status
	return hashOf([]any{rollout.Generation, s.Traffic, s.Subsets, s.VirtualServices, s.DestinationRule, s.FaultVirtualService})
}

// loop tells whether the object is being written by somebody else in a loop: often lately, and not at rest since.
func (c *contest) loop(now time.Time) bool { return c.loopEnds().After(now) }

// loopEnds is when the quarrel is over if nobody writes any more: the writes have stood for thrice the longest pause of the loop.
func (c *contest) loopEnds() time.Time {
	if len(c.undone) < contendedAfter {
		return time.Time{}
	}
	last := c.undone[len(c.undone)-1]
	rest := contendedRest
	for i := 1; i < len(c.undone); i++ {
		rest = max(rest, 3*c.undone[i].Sub(c.undone[i-1]))
	}
	return last.Add(min(rest, contendedWithin))
}

// foreign tells whether a change would undo what somebody else wrote: the object was as the same status wants it, or was so
// written, and is not any more. Copies that follow a route which somebody edited undo nothing.
func (c *contest) foreign(ch *change, rollout, purpose string) bool {
	switch {
	case c.right != purpose:
		return false
	case ch.found == nil:
		return true
	case ch.found.GetResourceVersion() == c.stored:
		return c.altered
	}
	return ch.found.GetResourceVersion() != c.version && !c.follows(ch, rollout)
}

// follows tells whether a change does no more than to bring inserted copies in line with what somebody changed around them.
func (c *contest) follows(ch *change, rollout string) bool {
	if ch.want == nil || c.rest == "" {
		return false
	}
	rest := restOf(ch.found, rollout)
	return rest != c.rest && rest == restOf(ch.want, rollout)
}

// restOf is the hash of an object's spec without the routes that were inserted for a Rollout.
func restOf(obj *unstructured.Unstructured, rollout string) string {
	spec, _, err := unstructured.NestedMap(obj.Object, "spec")
	if err != nil {
		return ""
	}
	if routes, ok := spec["http"].([]any); ok {
		spec["http"] = slices.DeleteFunc(routes, func(entry any) bool {
			route, ok := entry.(map[string]any)
			if !ok {
				return false
			}
			name, ok := route["name"].(string)
			owner, _ := copyOwner(name)
			return ok && owner == rollout
		})
	}
	return hashOf(spec)
}

// judgeContests notes which objects are as they should be, marks the changes that undo what others wrote, and withholds those that
// quarrel with a loop until their time has come.
func (p *planner) judgeContests() {
	want := purpose(p.rollout)
	changing := map[objectRef]bool{}
	pause := contendedEvery
	if wentBack(&p.rollout.Status, p.now) {
		pause = rolledBackEvery
	}
	p.changes = slices.DeleteFunc(p.changes, func(ch change) bool {
		changing[ch.object()] = true
		c := p.notes.contest(ch.object())
		if !c.foreign(&ch, p.rollout.Name, want) || !c.loop(p.now) {
			return false
		}
		rest := pause - p.now.Sub(c.wrote)
		if rest > 0 {
			p.waitFor(rest)
		}
		return rest > 0
	})
	p.noteRight(kindVirtualService.Kind, p.sight.virtualServices, changing, want)
	p.noteRight(kindDestinationRule.Kind, p.sight.destinationRules, changing, want)
}

// wentBack tells whether the state that is fought for is one to which traffic was taken back, by a rollback or lately by whoever
// asked for the old version again: the canary that it was taken from is not to have users for half a minute.
func wentBack(status *v1.RolloutStatus, now time.Time) bool {
	switch {
	case !allStable(status.Traffic):
		return false
	case status.Rejected != nil:
		return true
	case len(status.History) == 0 || status.History[0].Verdict == v1.ReasonPromoted:
		return false
	}
	return now.Sub(status.History[0].FinishedAt.Time) < contendedWithin
}

// noteRight notes the driven objects of a kind that need no change.
func (p *planner) noteRight(kind string, found []*unstructured.Unstructured, changing map[objectRef]bool, want string) {
	driven := drivenNames(kindVirtualService, &p.rollout.Status)
	if kind == kindDestinationRule.Kind {
		driven = drivenNames(kindDestinationRule, &p.rollout.Status)
	}
	for _, obj := range found {
		of := objectRef{kind, obj.GetName()}
		if p.problem != nil || p.wait > 0 || changing[of] || !slices.Contains(driven, obj.GetName()) {
			continue
		}
		c := p.notes.contest(of)
		if version := obj.GetResourceVersion(); c.version != version || c.rest == "" {
			c.version, c.rest = version, restOf(obj, p.rollout.Name)
		}
		c.right = want
	}
}

// noteContest tells of a write that undid another writer's.
func (c *convergence) noteContest(ch *change, sent *unstructured.Unstructured, writer string) {
	contest, now := c.notes.contest(ch.object()), c.Clock.Now()
	contest.wrote = now
	if ch.want != nil {
		contest.stored = ch.want.GetResourceVersion()
		contest.altered = sent != nil && !sameTree(sent.Object["spec"], ch.want.Object["spec"])
	}
	if contest.altered {
		contest.right = purpose(c.rollout) // it is as near to it as it gets
	}
	if writer == "" {
		return
	}
	before := contest.loop(now)
	contest.writer = writer
	contest.undone = append(slices.DeleteFunc(contest.undone, func(at time.Time) bool { return now.Sub(at) >= contendedWithin }), now)
	if !before && !contest.loop(now) {
		c.emit(pipeline.Event{Warning: true, Reason: v1.ReasonRestored, Message: fmt.Sprintf(
			"%s %s was changed by %s and is again as this Rollout's status says; to steer by hand set the annotation %s: %s",
			ch.kind.Kind, ch.name, writer, v1.ReconcileAnnotation, v1.ReconcileDisabled)})
	}
}

// otherWriter names who changed what a change would undo; empty when nobody did.
func (c *convergence) otherWriter(ctx context.Context, ch *change) string {
	contest := c.notes.contest(ch.object())
	switch {
	case !contest.foreign(ch, c.key.Name, purpose(c.rollout)):
		return ""
	case ch.found == nil:
		return "whoever deleted it"
	case ch.found.GetResourceVersion() == contest.stored:
		return admissionWriter
	}
	// The cache keeps no managers.
	live, err := c.liveObject(ctx, ch.kind, keyOf(c.key.Namespace, ch.name))
	if err != nil || live == nil {
		return "another writer"
	}
	return lastManager(live.GetManagedFields())
}

// lastManager is the field manager that wrote an object's spec last, other than Sluice.
func lastManager(fields []metav1.ManagedFieldsEntry) string {
	if name := specManager(fields); name != "" {
		return "field manager " + name
	}
	return "another writer"
}

// specManager is its name; empty: nobody but Sluice has any of the spec's fields.
func specManager(fields []metav1.ManagedFieldsEntry) string {
	var last *metav1.ManagedFieldsEntry
	for i := range fields {
		f := &fields[i]
		ours := f.Manager == string(FieldOwner) || f.Subresource != ""
		if ours || f.FieldsV1 == nil || !strings.Contains(string(f.FieldsV1.GetRawBytes()), `"f:spec"`) {
			continue
		}
		if last == nil || last.Time == nil || (f.Time != nil && !f.Time.Before(last.Time)) {
			last = f
		}
	}
	if last == nil {
		return ""
	}
	return last.Manager
}

// contended tells who writes in a loop what this Rollout writes, on which object, and what to do about it; empty: nobody does.
func (n *notes) contended(now time.Time) string {
	var names []objectRef
	for of, c := range n.contests {
		if c.loop(now) {
			names = append(names, of)
		}
	}
	if len(names) == 0 {
		return ""
	}
	slices.SortFunc(names, func(a, b objectRef) int { return strings.Compare(a.kind+a.name, b.kind+b.name) })
	of := names[0]
	writer := n.contests[of].writer
	return fmt.Sprintf("%s %s: %s undoes what Sluice writes, again and again; %s", of.kind, of.name, writer, remedy(of, writer))
}

// contendedUntil is when a quarrel ends by itself, zero: there is none.
func (n *notes) contendedUntil(now time.Time) time.Time {
	var first time.Time
	for _, c := range n.contests {
		if ends := c.loopEnds(); ends.After(now) && (first.IsZero() || ends.Before(first)) {
			first = ends
		}
	}
	return first
}

// remedy is what makes a writer leave an object's routes to Sluice.
func remedy(of objectRef, writer string) string {
	switch manager := strings.TrimPrefix(writer, "field manager "); {
	case manager == "kustomize-controller" || manager == "helm-controller" || strings.HasPrefix(manager, "flux"):
		return fmt.Sprintf("annotate that %s in Git with kustomize.toolkit.fluxcd.io/ssa: IfNotPresent", of.kind)
	case strings.HasPrefix(manager, "argocd"):
		return fmt.Sprintf("add to the Application's spec.ignoreDifferences {group: networking.istio.io, kind: %s, name: %s, managedFieldsManagers: [%s]} "+
			"and to its syncOptions RespectIgnoreDifferences=true", of.kind, of.name, FieldOwner)
	case writer == admissionWriter:
		return "exempt the object from it (see kubectl get mutatingwebhookconfigurations)"
	case strings.HasPrefix(manager, "kubectl"):
		return fmt.Sprintf("stop what runs kubectl, or set the annotation %s: %s on the Rollout to steer by hand", v1.ReconcileAnnotation, v1.ReconcileDisabled)
	}
	return fmt.Sprintf("make it leave the routes to this host alone, or let it create the %s only when there is none", of.kind)
}
