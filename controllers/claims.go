package controllers

import (
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/types"
)

// claims are the VirtualServices that carry faults, as this process committed them: newer than any cache. They keep two
// Rollouts from beginning a fault on the same VirtualService at the same moment.
type claims struct {
	mu      sync.Mutex
	holders map[types.NamespacedName]types.NamespacedName // VirtualService -> Rollout
}

func newClaims() *claims {
	return &claims{holders: map[types.NamespacedName]types.NamespacedName{}}
}

// take claims a VirtualService for a Rollout, and names the other one that holds it when it is taken.
func (c *claims) take(target, rollout types.NamespacedName) (types.NamespacedName, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if holder, ok := c.holders[target]; ok && holder != rollout {
		return holder, false
	}
	c.holders[target] = rollout
	return rollout, true
}

// holder of a VirtualService, if it is another than the Rollout.
func (c *claims) holder(target, rollout types.NamespacedName) (types.NamespacedName, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	holder, ok := c.holders[target]
	return holder, ok && holder != rollout
}

// keep drops all claims of the Rollout but those on the named VirtualServices.
func (c *claims) keep(rollout types.NamespacedName, names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for target, holder := range c.holders {
		if holder == rollout && !slices.Contains(names, target.Name) {
			delete(c.holders, target)
		}
	}
}

func (c *claims) forget(rollout types.NamespacedName) { c.keep(rollout) }
