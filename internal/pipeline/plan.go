package pipeline

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	istio "istio.io/api/networking/v1alpha3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
)

const soakName = "soak"

// stage is a step with everything inherited and defaulted.
type stage struct {
	name   string
	weight int32
	mirror *v1.MirrorTraffic
	match  v1.HTTPMatches
	fault  *v1.FaultInjection
	probe  *v1.Probe
	hold   time.Duration
	gates  []GateWatch
	soak   bool
}

// resolvePlan turns the spec into stages: weights inherited, the soak appended when it is asked for or no step reaches 100.
func resolvePlan(r *v1.Rollout) []stage {
	steps := slices.Clone(r.Spec.Steps)
	reaches := slices.ContainsFunc(steps, func(s v1.Step) bool { return s.Weight != nil && *s.Weight == 100 })
	soak := r.Spec.Soak != nil || !reaches
	if soak {
		full := int32(100)
		last := v1.Step{Name: soakName, Weight: &full}
		if s := r.Spec.Soak; s != nil {
			last.Hold, last.Gates = s.Hold, s.Gates
		}
		steps = append(steps, last)
	}
	stages := make([]stage, 0, len(steps))
	weight := int32(0)
	for i := range steps {
		if steps[i].Weight != nil {
			weight = *steps[i].Weight
		}
		stages = append(stages, resolveStage(r, &steps[i], weight, soak && i == len(steps)-1))
	}
	return stages
}

func resolveStage(r *v1.Rollout, step *v1.Step, weight int32, soak bool) stage {
	s := stage{
		name: step.Name, weight: weight, match: step.Match, probe: step.Probe,
		hold: durationOr(step.Hold, 0), soak: soak,
	}
	if m := step.Mirror; m != nil {
		s.mirror = &v1.MirrorTraffic{Percentage: valueOr(m.Percentage, 100), Host: mirrorHost(r, m.Host), Match: m.Match}
	}
	if f := step.Fault; f != nil {
		s.fault = &v1.FaultInjection{Host: otherHost(r, f.Host), Match: f.Match, Delay: f.Delay, Abort: f.Abort}
		if f.Scope == v1.FaultScopeEveryone {
			s.fault.Scope = f.Scope
		}
		switch {
		case f.Traffic == v1.FaultTrafficUnchanged:
			s.fault.Traffic = f.Traffic
		case s.fault.Host != "":
			s.match = slices.Concat(step.Match, f.Match)
		}
	}
	s.gates = resolveGates(r, step, &s)
	return s
}

// otherHost is empty for the Rollout's own host, however it is spelled.
func otherHost(r *v1.Rollout, host string) string {
	if host == "" || v1.HostKey(host, r.Namespace) == v1.HostKey(r.Spec.Host, r.Namespace) {
		return ""
	}
	return host
}

// mirrorHost is empty where copies go to the canary: on the Rollout's own host, or on that of the version itself.
func mirrorHost(r *v1.Rollout, host string) string {
	other := otherHost(r, host)
	for i := range r.Spec.Versions {
		v := &r.Spec.Versions[i]
		if v.Name == r.Spec.Version && v.Destination != nil && v1.HostKey(v.Destination.Host, r.Namespace) == v1.HostKey(other, r.Namespace) {
			return ""
		}
	}
	return other
}

// traffic is what the mesh must be while the stage lasts.
func (s *stage) traffic(stable, canary v1.Target) *v1.Traffic {
	return &v1.Traffic{Stable: stable, Canary: &canary, Weight: s.weight, Mirror: s.mirror, Match: s.match, Fault: s.fault}
}

// TrafficAhead is what the steps ask of the mesh that come next and may not be able to have it, by their places in the plan: in a
// step the one after it, else all that have a match, be it a mirror's, or a fault.
func TrafficAhead(r *v1.Rollout, canary v1.Target) map[int]*v1.Traffic {
	plan, first := resolvePlan(r), 0
	if step := r.Status.Step; step != nil {
		first = min(int(step.Index)+1, len(plan))
		plan = plan[:min(first+1, len(plan))]
	}
	ahead := map[int]*v1.Traffic{}
	for i := first; i < len(plan); i++ {
		if s := &plan[i]; len(s.match) > 0 || s.fault != nil || (s.mirror != nil && len(s.mirror.Match) > 0) {
			ahead[i] = s.traffic(r.Status.Traffic.Stable, canary)
		}
	}
	return ahead
}

// timed tells whether the stage's clock matters, so that its start must be committed.
func (s *stage) timed() bool {
	return s.hold > 0 || s.probe != nil || slices.ContainsFunc(s.gates, func(g GateWatch) bool { return g.Window > 0 || g.Samples > 1 })
}

// mode says in words what the traffic holds besides its weight.
func mode(t *v1.Traffic) string {
	var words []string
	if t == nil {
		return ""
	}
	if t.Mirror != nil {
		words = append(words, fmt.Sprintf("mirror %d", t.Mirror.Percentage))
		if t.Mirror.Host != "" {
			words[0] += " to " + t.Mirror.Host
		}
	}
	if t.Fault != nil {
		words = append(words, "fault")
	}
	if len(t.Match) > 0 {
		words = append(words, "match")
	}
	return strings.Join(words, ", ")
}

// sharedHash is of what all steps share: the canary as the mesh names it, and its policy.
func (d *draft) sharedHash(canary string) string {
	if policy := policyOf(d.rollout, canary); policy != nil {
		return hash(map[string]any{"target": d.target(canary), "trafficPolicy": policy})
	}
	return hash(d.target(canary))
}

// policyOf is the trafficPolicy that the spec gives a version, or nil.
func policyOf(r *v1.Rollout, version string) *istio.TrafficPolicy {
	for i := range r.Spec.Versions {
		if r.Spec.Versions[i].Name == version {
			return r.Spec.Versions[i].TrafficPolicy
		}
	}
	return nil
}

// planHashes are the hash of what all steps share, and then of each stage's resolved traffic.
func planHashes(shared string, stages []stage) []string {
	hashes := []string{shared}
	for i := range stages {
		s := &stages[i]
		hashes = append(hashes, hash(map[string]any{"weight": s.weight, "mirror": s.mirror, "match": s.match, "fault": s.fault}))
	}
	return hashes
}

// hash of a value's canonical JSON, eight hex digits. Istio's messages marshal with varying white space, hence the second pass.
func hash(value any) string {
	sum := sha256.Sum256(v1.CanonicalJSON(value))
	return hex.EncodeToString(sum[:4])
}

func valueOr[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}

func durationOr(d *metav1.Duration, fallback time.Duration) time.Duration {
	if d == nil {
		return fallback
	}
	return d.Duration
}
