package controllers

import (
	"strings"
	"testing"
)

// On the way forward nothing comes out of its order.
func TestARefusalHoldsUpWhatFollowsIt(t *testing.T) {
	at := func(name string, carries bool) change {
		return change{kind: kindVirtualService, name: name, carries: carries}
	}
	changes := []change{at("a", true), at("b", false), at("c", true), at("d", true)}
	for name, tc := range map[string]struct {
		refused string
		urgent  bool
		want    string
	}{
		"nothing was refused":        {"", false, "a b c d"},
		"traffic was refused":        {"c", false, "a b"},
		"what no traffic depends on": {"b", false, "a c d"},
		"on the way back":            {"c", true, "a b d"},
	} {
		t.Run(name, func(t *testing.T) {
			c := &convergence{urgent: tc.urgent, refused: map[objectRef]bool{{kindVirtualService.Kind, tc.refused}: true}}
			var got []string
			for _, ch := range c.writable(changes) {
				got = append(got, ch.name)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("writes %v, want %s", got, tc.want)
			}
		})
	}
}
