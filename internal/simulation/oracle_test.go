package simulation

import (
	"encoding/json"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	v1 "sluice.dev/sluice/api/v1"
)

// oracle asserts the invariants. It reads the history of the API, what the running process's caches show, and the
// simulated truth; never the reconciler.
type oracle struct {
	world *world
	// decidedAt is the latest time at which the decision behind a write can have been made.
	decidedAt time.Time
	pass      passNotes
	// stepBegan is when the current step was decided.
	stepBegan time.Time
	// runImage is the image of the canary when its first step began.
	runImage string
	// proofs are the images with which versions were proven.
	proofs     map[string]string
	rejections []rejection
}

// passNotes are about the reconcile that runs.
type passNotes struct {
	began       int64       // the store's position
	backTo      *v1.Traffic // what a rollback committed
	mustGoBack  string
	backWrites  map[objectKey]int
	conflicting int
}

// rejection of a version as it was built then.
type rejection struct {
	version, image string
	rv             int64
}

func newOracle(w *world) *oracle { return &oracle{world: w, proofs: map[string]string{}} }

// visible is how far the running process has seen the history of a kind.
func (o *oracle) visible(kind string) int64 { return o.world.process.positions[kind] }

// visibleOf is how far it has seen the history of one object: its own writes and what it read live it knows before its cache does.
func (o *oracle) visibleOf(key objectKey) int64 {
	p := o.world.process
	return max(p.positions[key.kind], p.own[key], p.liveReads[key.kind])
}

// seen is what the process sees of a version's workload and of its pod, the Service's endpoint.
func (o *oracle) seen(version string) (available, ready bool, image string) {
	pod := o.world.store.at(podKey(version), o.visible(kindPod))
	serves := pod != nil && podReady(pod.object)
	if o.world.store.at(deploymentKey(version), o.visible(kindDeployment)) == nil {
		return serves, serves, ""
	}
	available, ready, image = o.world.readyAt(version, o.visible(kindDeployment))
	return available && serves, ready || serves, image
}

// observe is told of every write that lands.
func (o *oracle) observe(c change) {
	if c.actor != "operator" {
		return
	}
	switch {
	case c.key == rolloutKey && c.after == nil:
		// A detached Rollout's mesh is not written, and a deletion does not wait for ever for an API server that refuses.
		if !detached(o.world.rolloutAt(c.key, c.rv-1)) && !o.world.process.disturbed {
			o.released()
		}
	case c.key == rolloutKey:
		before, after := o.world.rolloutAt(c.key, c.rv-1), o.world.rolloutAt(c.key, c.rv)
		o.onStatus(before, after)
	case c.key.kind == kindRollout:
	case slices.Contains(routeKeys, c.key):
		o.onRoutes(c)
	case c.key.kind == kindVirtualService:
		o.onCarrier(c)
	case c.key == ruleKey:
		o.onRule(c)
	case c.key.name == otherKey.name && o.world.rollout() == nil: // the second Rollout took over
	default:
		o.world.violated(14, "the operator wrote %s, which is not its own", c.key)
	}
}

// afterEvent runs after everything that happens.
func (o *oracle) afterEvent() {
	if o.world.passes > 60_000 {
		o.world.violated(15, "%d reconciles: it does not come to rest", o.world.passes)
	}
}

func (o *oracle) event(reason string) { o.world.sometimes["event "+reason]++ }

func (o *oracle) passBegins(key types.NamespacedName) {
	o.pass = passNotes{began: o.world.store.rv, conflicting: o.world.sometimes["conflict"]}
	if key == rolloutRef {
		o.pass.mustGoBack = o.failing()
	}
}

// passEnds asserts what must be so when a reconcile that nothing disturbed has ended.
func (o *oracle) passEnds(key types.NamespacedName, err error) {
	w := o.world
	if key != rolloutRef || err != nil || w.process.disturbed || o.tampered() {
		return
	}
	r := w.rollout()
	if r == nil || detached(r) {
		return
	}
	o.checkRollback(r)
	fault := r.Status.Traffic != nil && r.Status.Traffic.Fault != nil
	cached := w.rolloutAt(rolloutKey, o.visible(kindRollout))
	clean := cached != nil && cached.ResourceVersion == r.ResourceVersion && w.sometimes["conflict"] == o.pass.conflicting && o.visible(kindVirtualService) >= o.pass.began
	if clean && !fault && w.store.rv == o.pass.began && len(w.faultCarriers(w.now)) > 0 {
		w.violated(16, "a reconcile found nothing to do and left a fault that status does not have")
	}
	if gate := o.pass.mustGoBack; gate != "" && clean && r.Status.Step != nil && r.Status.Reason != v1.ReasonStableUnavailable {
		if again := o.failing(); again == gate {
			w.violated(9, "%s and the run goes on: %s/%s", gate, r.Status.Phase, r.Status.Reason)
		}
	}
}

// checkRollback: the reconcile that commits a rollback has written it when it ends.
func (o *oracle) checkRollback(r *v1.Rollout) {
	w, back := o.world, o.pass.backTo
	if back == nil || r.Status.Traffic.Canary != nil {
		return
	}
	for _, key := range drivenKeys(&r.Status) {
		vs := w.store.live(key)
		written := vs == nil || managedRoutes(vs) == 0 || carries(vs, r.Status.Traffic) || carries(vs, back)
		if !written && !o.unknown(key, vs, place(back.Stable)) {
			w.violated(9, "the reconcile that rolled back ended with %s of %s", describeVirtualService(vs), key)
		}
		if n := o.pass.backWrites[key]; n > 1 {
			w.violated(9, "the reconcile that rolled back wrote %s %d times", key, n)
		}
	}
	if left := w.faultCarriers(o.visibleOf); len(left) > 0 && len(w.faultCarriers(w.now)) > 0 {
		w.violated(9, "the reconcile that rolled back left a fault on %s", left[0].GetName())
	}
}

// countWrite notes a write that a rollback's commit asks for; another decision in the same reconcile has writes of its own.
func (o *oracle) countWrite(key objectKey, t *v1.Traffic) {
	if back := o.pass.backTo; back == nil || t == nil || t.Canary != nil || t.Stable.Version != back.Stable.Version {
		return
	}
	if o.pass.backWrites == nil {
		o.pass.backWrites = map[objectKey]int{}
	}
	o.pass.backWrites[key]++
}

// unknown tells whether the way back has to wait for its subset: the routes were edited by hand and do not name it, and it
// came into the rule a moment ago, or so it seems to a process that began with an old cache; or does not see that edit yet.
func (o *oracle) unknown(key objectKey, vs *unstructured.Unstructured, subset string) bool {
	if last := o.world.store.histories[key]; last[len(last)-1].rv > o.visibleOf(key) {
		o.world.sometimes["rollback on an old cache"]++ // the hand edit is undone when the cache tells of it
		return true
	}
	if isElsewhere(subset) {
		return false
	}
	_, named := references(vs)[subset]
	since, held, touched := o.heldSince(subset)
	atStart := o.world.store.at(ruleKey, o.world.process.began[kindDestinationRule])
	if atStart == nil || subsetsOf(atStart.object)[subset] == nil {
		touched = true
	}
	return !named && (touched || !held || o.world.clock.now.Sub(since) < config.PropagationDelay)
}

// tampered tells whether somebody else wrote during the reconcile, so that what it left is not its doing alone.
func (o *oracle) tampered() bool {
	for _, history := range o.world.store.histories {
		for i := len(history) - 1; i >= 0 && history[i].rv > o.pass.began; i-- {
			if history[i].actor != "operator" {
				return true
			}
		}
	}
	return false
}

// failingGate names a gate of the current watch with enough Fails in a row, as far as the process can know it.
func (o *oracle) failingGate() string {
	w := o.world
	r := w.rolloutAt(rolloutKey, o.visibleOf(rolloutKey))
	known := w.process.analyst.watches[rolloutRef]
	live := w.rollout()
	if r == nil || known == nil || live == nil || r.ResourceVersion != live.ResourceVersion ||
		r.Generation != r.Status.ObservedGeneration || r.Status.Step == nil || detached(r) || r.DeletionTimestamp != nil {
		return ""
	}
	if _, ready, _ := o.seen(r.Status.Stable); !ready || !o.carriedSince(r.Status.Traffic).Before(known.since) {
		return ""
	}
	for _, gate := range known.watch.Gates {
		streak := 0
		for _, s := range known.samples[gate.Name] {
			if streak++; s.Verdict != "Fail" {
				streak = 0
			}
			if streak >= gate.Failures {
				return gate.Name
			}
		}
	}
	return ""
}

// onStatus asserts what a committed decision must obey.
func (o *oracle) onStatus(before, after *v1.Rollout) {
	w := o.world
	if raw, err := json.Marshal(after.Status); err != nil || len(raw) > 16*1024 {
		w.violated(12, "status has %d bytes, %v", len(raw), err)
	}
	a, b := &before.Status, &after.Status
	o.checkSteps(before, after)
	o.checkExposure(a, b)
	o.noteRejection(a, b)
	o.checkStable(before, after)
	o.checkTrip(before, after)
	o.checkContended(a, b)
	if a.Traffic != nil && a.Traffic.Canary != nil && b.Traffic.Canary == nil && !promoted(a, b) {
		o.pass.backTo = b.Traffic
		delete(o.proofs, a.Traffic.Canary.Version)
		w.sometimes["rollback"]++
		w.sometimes["rollback over "+string(w.setting.spec.Protocol)]++
		if len(b.History) > 0 {
			w.sometimes["return: "+b.History[0].Verdict]++
		}
	}
	w.sometimes["phase "+string(b.Phase)+"/"+b.Reason]++
}

func promoted(a, b *v1.RolloutStatus) bool {
	return a.Run != nil && b.Run == nil && b.Stable == a.Run.To && a.Stable != b.Stable
}

// checkSteps: no jump, and each step on is allowed by evidence.
func (o *oracle) checkSteps(before, after *v1.Rollout) {
	a, b := &before.Status, &after.Status
	same := a.Run != nil && b.Run != nil && a.Run.Number == b.Run.Number
	switch {
	case b.Step != nil && (!same || a.Step == nil):
		if b.Step.Index != 0 {
			o.world.violated(7, "run %d begins at step %s", b.Run.Number, b.Step.Display)
		}
		o.stepBegan = o.decidedAt
		_, _, o.runImage = o.seen(b.Run.To)
		o.checkStart(before, after, same)
		o.world.sometimes["run began"]++
	case same && a.Step != nil && b.Step != nil && b.Step.Index != a.Step.Index:
		if b.Step.Index != a.Step.Index+1 {
			o.world.violated(7, "from step %s to %s in one write", a.Step.Display, b.Step.Display)
		}
		o.checkAdvance(before)
		o.stepBegan = o.decidedAt
		o.world.sometimes["step ended"]++
	case promoted(a, b):
		if a.Step == nil || int(a.Step.Index)+1 != len(stagesOf(before)) {
			o.world.violated(7, "promoted out of step %+v of %d", a.Step, len(stagesOf(before)))
			return
		}
		o.checkAdvance(before)
		o.world.sometimes["promotion"]++
		o.world.sometimes["promotion over "+string(o.world.setting.spec.Protocol)]++
	}
}

// checkStart: a run begins only from a mesh that is as status says, for the version that is asked for and not rejected.
func (o *oracle) checkStart(before, after *v1.Rollout, same bool) {
	w, to := o.world, after.Status.Run.To
	if before.Spec.Suspend || detached(before) {
		w.violated(15, "a run began while suspended or detached")
	}
	if to != before.Spec.Version {
		w.violated(8, "a run to %s began although %s is asked for", to, before.Spec.Version)
	}
	if t := before.Status.Traffic; t != nil && !same {
		o.checkManagedSet(before, after)
	}
	_, _, image := o.seen(to)
	for _, r := range o.rejections {
		if r.version == to && r.image == image && !o.changedSince(r) {
			w.violated(8, "%s as %s was rejected and is tried again", to, image)
		}
	}
}

// checkManagedSet: a run begins on a mesh that is as status says, and drives everything that routes to the host by then.
func (o *oracle) checkManagedSet(before, after *v1.Rollout) {
	w := o.world
	for _, key := range drivenKeys(&before.Status) {
		if _, wanted := after.Manages(key.name); !wanted && w.store.live(key) == nil {
			continue // it left
		}
		if vs := w.store.at(key, o.visibleOf(key)); vs == nil || !carries(vs.object, before.Status.Traffic) {
			w.violated(16, "a run began on a mesh that is not as status says: %s", key)
		}
	}
	driven := drivenKeys(&after.Status)
	for _, key := range routeKeys {
		if _, wanted := after.Manages(key.name); !wanted {
			continue // it was described once, and what is described now leaves it to people
		}
		if vs := w.store.at(key, o.visibleOf(key)); vs != nil && manageable(vs.object, before.Status.Traffic) && !slices.Contains(driven, key) {
			w.violated(16, "a run began that does not drive %s", key)
		}
	}
	if len(driven) > 1 {
		w.sometimes["run over two VirtualServices"]++
	}
}

// manageable tells whether a route that is to be driven sends to stable, or names no subset.
func manageable(vs *unstructured.Unstructured, t *v1.Traffic) bool {
	return slices.ContainsFunc(viewOf(vs), func(r routeView) bool {
		return r.managed() && (r.weights[""] > 0 || r.weights[place(t.Stable)] > 0)
	})
}

// changedSince tells whether version or image was another one in between.
func (o *oracle) changedSince(r rejection) bool {
	for _, v := range o.world.store.histories[rolloutKey] {
		if v.rv >= r.rv && v.object != nil && o.world.rolloutAt(rolloutKey, v.rv).Spec.Version != r.version {
			return true
		}
	}
	for _, v := range o.world.store.histories[deploymentKey(r.version)] {
		if _, _, image := o.world.readyAt(r.version, v.rv); v.rv >= r.rv && image != r.image {
			return true
		}
	}
	return false
}

// checkExposure: more traffic only to a version that is available, and back only to one that is ready, or nothing is.
func (o *oracle) checkExposure(a, b *v1.RolloutStatus) {
	if b.Traffic == nil || b.Traffic.Canary == nil {
		if a.Traffic != nil && a.Traffic.ExposedToUsers() && !promoted(a, b) {
			_, stable, _ := o.seen(b.Traffic.Stable.Version)
			_, canary, _ := o.seen(a.Traffic.Canary.Version)
			if !stable && canary {
				o.world.violated(10, "all traffic goes to %s, which has no ready endpoint, from %s, which has", b.Traffic.Stable.Version, a.Traffic.Canary.Version)
			}
		}
		return
	}
	canary := b.Traffic.Canary.Version
	weight := int32(-1)
	if a.Traffic != nil && a.Traffic.Canary != nil && a.Traffic.Canary.Version == canary {
		weight = a.Traffic.Weight
	}
	if available, _, _ := o.seen(canary); b.Traffic.Weight > weight && !available {
		o.world.violated(5, "weight of %s rises from %d to %d and it is not available", canary, weight, b.Traffic.Weight)
	}
}

func (o *oracle) noteRejection(a, b *v1.RolloutStatus) {
	if b.Rejected == nil || (a.Rejected != nil && a.Rejected.At.Equal(&b.Rejected.At) && a.Rejected.Version == b.Rejected.Version) {
		return
	}
	_, _, image := o.seen(b.Rejected.Version)
	if a.Step != nil && o.runImage != "" { // empty: the run began before its workload was in the cache
		image = o.runImage // what was tried, even when its workload is gone by now
	}
	o.rejections = append(o.rejections, rejection{b.Rejected.Version, image, o.world.store.rv})
	o.world.sometimes["rejected: "+b.Rejected.Reason]++
}

// checkStable: what gets all traffic served before, or was gated.
func (o *oracle) checkStable(before, after *v1.Rollout) {
	a, b := &before.Status, &after.Status
	if a.Stable == b.Stable {
		return
	}
	available, _, image := o.seen(b.Stable)
	switch {
	case a.Stable == "":
		if b.Stable != "v1" {
			o.world.violated(12, "first push: %s was discovered as stable, v1 serves", b.Stable)
		}
		o.proofs[b.Stable] = image
	case promoted(a, b):
		o.proofs[b.Stable] = image
	default:
		o.world.sometimes["instant return"]++
		if proven, ok := o.proofs[b.Stable]; !ok || proven != image || !available {
			o.world.violated(12, "instant return to %s as %q, proven %q, available %v", b.Stable, image, proven, available)
		}
		delete(o.proofs, a.Stable)
	}
}

// released: the finalizer goes only when the mesh is clean.
func (o *oracle) released() {
	w := o.world
	w.sometimes["deleted"]++
	for _, key := range routeKeys {
		for _, r := range viewOf(w.store.live(key)) {
			if r.ours || (r.managed() && (len(r.weights) > 1 || len(r.mirrors) > 0)) {
				w.violated(16, "the Rollout is gone and left route %s", describeVirtualService(w.store.live(key)))
			}
		}
	}
	if left := w.faultCarriers(w.now); len(left) > 0 {
		w.violated(16, "the Rollout is gone and left a fault on %s", left[0].GetName())
	}
	if rule := w.store.live(ruleKey); rule != nil && !w.ruleDeleted() {
		o.checkPolicy("the host", w.foundPolicy(), nil, rule.Object["spec"])
	}
}

func detached(r *v1.Rollout) bool {
	return r.Annotations[v1.ReconcileAnnotation] == v1.ReconcileDisabled
}

// untouched asserts that nobody changed an object that a cache shares.
func (o *oracle) untouched() {
	for key, history := range o.world.store.histories {
		for _, v := range history {
			for kind, decoded := range v.decoded {
				fresh := version{object: v.object, decoded: nil}
				if !slices.Equal(encodeBytes(decoded), encodeBytes(fresh.decodeAs(kind))) {
					o.world.violated(14, "the cached %s was changed in place", key)
				}
			}
		}
	}
}
