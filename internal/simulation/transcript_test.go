package simulation

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// transcript tells what happened so that people can read it. It is written only when somebody will.
type transcript struct {
	world *world
	on    bool
	text  strings.Builder
	last  map[string]string
}

func (t *transcript) line(who, format string, args ...any) {
	if !t.on {
		return
	}
	since := t.world.clock.now.Sub(epoch)
	fmt.Fprintf(&t.text, "%3d:%06.3f  %-10s  %s\n", int(since.Minutes()), since.Seconds()-60*float64(int(since.Minutes())), who, fmt.Sprintf(format, args...))
}

// observe tells of changes that people would want to read.
func (t *transcript) observe(c change) {
	if !t.on {
		return
	}
	var text string
	switch c.key.kind {
	case kindRollout:
		text = t.describeRollout(c)
	case kindVirtualService:
		text = describeVirtualService(c.after)
	case kindDestinationRule:
		text = "subsets " + strings.Join(slices.Sorted(maps.Keys(subsetsOf(c.after))), ", ")
		if c.after == nil {
			text = "deleted"
		}
	case kindDeployment:
		_, ready, image := t.world.readyAt(strings.TrimPrefix(c.key.name, "reviews-"), c.rv)
		text = fmt.Sprintf("image %s, ready %v", image, ready)
	default:
		return
	}
	if t.last == nil {
		t.last = map[string]string{}
	}
	if text != "" && t.last[c.key.String()] != text {
		t.last[c.key.String()] = text
		t.line(c.actor, "%s: %s", c.key, text)
	}
}

func (t *transcript) describeRollout(c change) string {
	if c.after == nil {
		return "gone"
	}
	r := t.world.rolloutAt(c.key, c.rv)
	s := r.Status
	words := []string{fmt.Sprintf("%s/%s", s.Phase, s.Reason)}
	if s.Phase == "" {
		words = []string{"new"}
	}
	if s.Step != nil {
		words = append(words, "step "+s.Step.Display)
		if s.Step.Applied != nil {
			words = append(words, "applied")
		}
	}
	if s.Traffic != nil {
		words = append(words, describeTraffic(s.Traffic))
	}
	if s.Rejected != nil {
		words = append(words, "rejected "+s.Rejected.Version)
	}
	if r.DeletionTimestamp != nil {
		words = append(words, "being deleted")
	}
	return strings.Join(words, ", ")
}

func describeTraffic(t *v1.Traffic) string {
	if t == nil {
		return "nothing"
	}
	if t.Canary == nil {
		return t.Stable.Version + " 100"
	}
	text := fmt.Sprintf("%s %d + %s %d", t.Stable.Version, 100-t.Weight, t.Canary.Version, t.Weight)
	if t.Mirror != nil {
		text += fmt.Sprintf(" mirror %d", t.Mirror.Percentage)
	}
	if len(t.Match) > 0 {
		text += " match"
	}
	if t.Fault != nil {
		text += " fault " + t.Fault.Host
	}
	return text
}

func describeVirtualService(vs *unstructured.Unstructured) string {
	if vs == nil {
		return "deleted"
	}
	var routes []string
	for _, r := range viewOf(vs) {
		name := r.name
		if name == "" {
			name = "(unnamed)"
		}
		var parts []string
		for _, subset := range slices.Sorted(maps.Keys(r.weights)) {
			parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s %d", subset, r.weights[subset])))
		}
		for _, subset := range slices.Sorted(maps.Keys(r.mirrors)) {
			parts = append(parts, fmt.Sprintf("mirror %s %v", subset, r.mirrors[subset]))
		}
		if r.fault {
			parts = append(parts, "fault")
		}
		routes = append(routes, name+" → "+strings.Join(parts, " + "))
	}
	return strings.Join(routes, " | ")
}
