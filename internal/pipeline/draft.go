package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
)

const (
	historyLimit = 10
	statusLimit  = 16 * 1024
)

// draft is a decision in the making.
type draft struct {
	in       Input
	rollout  *v1.Rollout
	status   v1.RolloutStatus
	events   []Event
	wakeAt   time.Time
	watch    *Watch
	rollback bool
}

func newDraft(in Input) *draft {
	d := &draft{in: in, rollout: in.Rollout, status: *in.Rollout.Status.DeepCopy()}
	d.status.Revision = in.Rollout.Annotations[v1.RevisionAnnotation]
	return d
}

// finish turns the draft into a decision.
func (d *draft) finish() Decision {
	d.status.Mode = mode(d.status.Traffic)
	d.status.Weight = shareOf(d.rollout.Spec.Version, d.status.Traffic)
	d.refreshSince()
	d.refreshSubsets()
	d.watchBreaker()
	d.setCondition(v1.ConditionContended, v1.ReasonContended, d.in.Contended)
	d.noteCommand()
	d.trim()
	out := Decision{
		Status: d.status, Events: d.events, Watch: d.watch, Rollback: d.rollback,
		Changed: !sameStatus(&d.status, &d.rollout.Status),
	}
	if !d.wakeAt.IsZero() {
		// At least a millisecond: 0 means "not by time".
		out.RequeueAfter = max(d.wakeAt.Sub(d.in.Now), time.Millisecond)
	}
	return out
}

// sameStatus compares what is cheap first: most decisions either change the phase, or change nothing at all.
func sameStatus(a, b *v1.RolloutStatus) bool {
	switch {
	case a.Phase != b.Phase, a.Reason != b.Reason, a.Message != b.Message, a.ObservedGeneration != b.ObservedGeneration:
		return false
	case reflect.DeepEqual(a, b):
		return true
	}
	return bytes.Equal(v1.CanonicalJSON(a), v1.CanonicalJSON(b))
}

// now is the decision's time as status keeps it.
func (d *draft) now() metav1.MicroTime {
	return metav1.MicroTime{Time: d.in.Now.UTC().Truncate(time.Microsecond)}
}

// wake asks for a decision at a time; the soonest wins.
func (d *draft) wake(at time.Time) {
	if d.wakeAt.IsZero() || at.Before(d.wakeAt) {
		d.wakeAt = at
	}
}

func (d *draft) event(warning bool, reason, format string, args ...any) {
	d.events = append(d.events, Event{Warning: warning, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// setPhase writes phase and conditions; a transition to Stalled or Waiting is an event of its own.
func (d *draft) setPhase(phase v1.Phase, reason, message string) {
	before := d.rollout.Status
	// Conditions keep whole seconds; the apiserver's form of the time is what status is compared with.
	d.status.SetPhase(phase, reason, message, d.rollout.Generation, metav1.Time{Time: d.in.Now.UTC().Truncate(time.Second)})
	announced := phase == v1.PhaseStalled || phase == v1.PhaseWaiting || phase == v1.PhaseDetached
	if announced && (before.Phase != phase || before.Reason != reason) {
		d.event(phase == v1.PhaseStalled || reason == v1.ReasonContended, reason, "%s", message)
	}
}

func (d *draft) stall(p Problem) {
	d.setPhase(v1.PhaseStalled, p.Reason, p.Message)
}

func (d *draft) wait(reason, format string, args ...any) {
	d.setPhase(v1.PhaseWaiting, reason, fmt.Sprintf(format, args...))
}

// shareOf is the part of the traffic that a version gets by weight, in percent; nil before anything is decided.
func shareOf(version string, t *v1.Traffic) *int32 {
	if t == nil {
		return nil
	}
	share := int32(0)
	if t.Canary != nil && t.Canary.Version == version {
		share = t.Weight
	} else if t.Stable.Version == version {
		share = 100 - t.Weight
	}
	return &share
}

func (d *draft) refreshSince() {
	before := d.rollout.Status
	switch {
	case d.status.Step != nil:
		since := d.status.Step.StartedAt
		d.status.Since = &since
	case d.status.Since == nil || before.Phase != d.status.Phase || before.Step != nil:
		since := d.now()
		d.status.Since = &since
	}
}

// target is a version as the mesh names it.
func (d *draft) target(version string) v1.Target {
	seen := d.in.Versions[version]
	return v1.Target{Version: version, Subset: seen.Subset, Labels: seen.Labels, Host: seen.Host, Port: seen.Port}
}

// refreshSubsets keeps the list of subsets that the rule must hold: those of the listed versions, stable, canary and previous.
// One that is no longer needed leaves, unless it was found there.
func (d *draft) refreshSubsets() {
	if d.status.Stable == "" {
		return
	}
	needed, policies := map[string]map[string]string{}, map[string]string{}
	for _, version := range d.neededVersions() {
		t := d.target(version)
		if t.Subset == "" {
			continue
		}
		needed[t.Subset] = t.Labels
		if policyOf(d.rollout, version) != nil {
			policies[t.Subset] = version
		}
	}
	if t := d.status.Traffic; t != nil {
		// What carries traffic keeps the labels that it was committed with.
		needed[t.Stable.Subset] = t.Stable.Labels
		if t.Canary != nil {
			needed[t.Canary.Subset] = t.Canary.Labels
		}
	}
	delete(needed, "") // a version with a host of its own has none
	var subsets []v1.Subset
	for _, s := range d.status.Subsets {
		labels, wanted := needed[s.Name]
		s.Policy = policies[s.Name]
		switch {
		case wanted:
			s.Labels, s.Leaving = labels, false
			delete(needed, s.Name)
		case !s.Added || !d.ruleHolds(s.Name):
			continue
		default:
			s.Leaving = true
		}
		subsets = append(subsets, s)
	}
	for name, labels := range needed {
		subsets = append(subsets, v1.Subset{Name: name, Labels: labels, Added: !d.ruleHolds(name), Policy: policies[name]})
	}
	slices.SortFunc(subsets, func(a, b v1.Subset) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	d.status.Subsets = subsets
}

func (d *draft) ruleHolds(subset string) bool {
	return slices.ContainsFunc(d.in.Mesh.Subsets, func(s v1.Subset) bool { return s.Name == subset })
}

// neededVersions are those whose subsets the rule holds, so that a way back never waits for one.
func (d *draft) neededVersions() []string {
	versions := []string{d.status.Stable}
	for _, v := range d.rollout.Spec.Versions {
		versions = append(versions, v.Name)
	}
	for _, v := range []string{d.status.Canary, d.status.Previous} {
		if v != "" {
			versions = append(versions, v)
		}
	}
	return versions
}

// trim keeps the status within its size: old runs go first, then what the gates of the oldest steps measured, then the rest of the
// history, then the end of the query that failed last.
func (d *draft) trim() {
	h := d.status.History
	d.status.History = h[:min(len(h), historyLimit)]
	// White space can only add to the size, so that most statuses need not be brought to their canonical form.
	if raw, err := json.Marshal(d.status); err == nil && len(raw) <= statusLimit {
		return
	}
	for len(v1.CanonicalJSON(d.status)) > statusLimit && d.dropOldest() {
	}
}

// dropOldest drops the least useful record; false when none is left.
func (d *draft) dropOldest() bool {
	if h := d.status.History; len(h) > 1 {
		d.status.History = h[:len(h)-1]
		return true
	}
	var steps [][]v1.StepRecord
	if d.status.Run != nil {
		steps = append(steps, d.status.Run.Steps)
	}
	if len(d.status.History) > 0 {
		steps = append(steps, d.status.History[0].Steps)
	}
	for _, list := range steps {
		for i := range list {
			if list[i].Gates != nil {
				list[i].Gates = nil
				return true
			}
		}
	}
	if d.status.History != nil {
		d.status.History = nil
		return true
	}
	return d.shortenQuery()
}

// shortenQuery cuts the query of the last failure, whose gate has it whole; false when it is short.
func (d *draft) shortenQuery() bool {
	const shown, cut = 256, "…"
	f := d.status.LastFailure
	if f == nil || len(f.Query) <= shown {
		return false
	}
	short := *f
	short.Query = strings.ToValidUTF8(f.Query[:shown-len(cut)], "") + cut
	d.status.LastFailure = &short
	return true
}

// setUnreleased keeps the condition only while it is true.
func (d *draft) setUnreleased(on bool) {
	message := ""
	if on {
		message = fmt.Sprintf("the pod template of %s changed without a change of spec.version: it was not gated", d.status.Stable)
	}
	d.setCondition(v1.ConditionUnreleased, v1.ReasonWorkloadChanged, message)
}

// noteCommand tells of a command, once: nothing is done for it.
func (d *draft) noteCommand() {
	const shown = 60
	message := ""
	if command := d.rollout.Annotations[v1.CommandAnnotation]; command != "" {
		message = fmt.Sprintf("annotation %s: %.*q has no effect, since commands to Rollouts are not supported; spec.version and spec.suspend steer a "+
			"Rollout, and annotation %s: %s leaves the mesh to a person", v1.CommandAnnotation, shown, command, v1.ReconcileAnnotation, v1.ReconcileDisabled)
	}
	before := meta.FindStatusCondition(d.status.Conditions, v1.ConditionCommandIgnored)
	if message != "" && (before == nil || before.Message != message) {
		d.event(true, v1.ConditionCommandIgnored, "%s", message)
	}
	d.setCondition(v1.ConditionCommandIgnored, v1.ReasonNotSupported, message)
}

// setCondition keeps a condition only while there is a message.
func (d *draft) setCondition(kind, reason, message string) {
	if message == "" {
		meta.RemoveStatusCondition(&d.status.Conditions, kind)
		return
	}
	meta.SetStatusCondition(&d.status.Conditions, metav1.Condition{
		Type: kind, Status: metav1.ConditionTrue, Reason: reason, Message: message,
		ObservedGeneration: d.rollout.Generation, LastTransitionTime: metav1.Time{Time: d.in.Now.UTC().Truncate(time.Second)},
	})
}
