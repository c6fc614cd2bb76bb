package sidecar

import (
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

// overProvisioning is how far Envoy trusts a priority that has lost some of its
// hosts: at 1.4, all of the traffic stays until fewer than 5 of 7 are healthy.
const overProvisioning = 1.4

// pick chooses a host, avoiding those that were tried where it can; nil means
// that none is healthy. The key decides where the policy hashes; "" is none.
func (c *cluster) pick(now time.Time, tried []*host, key string) *host {
	c.mu.Lock()
	defer c.mu.Unlock()
	usable := c.usable(now)
	if len(usable) == 0 {
		return nil
	}
	fresh := slices.DeleteFunc(slices.Clone(usable), func(h *host) bool { return slices.Contains(tried, h) })
	if len(fresh) > 0 {
		usable = fresh
	}
	switch c.spec.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		c.next++
		return weightedAt(usable, uint32(c.next))
	case clusterv3.Cluster_LEAST_REQUEST:
		a, b := randomHost(usable), randomHost(usable)
		if b.active.Load() < a.active.Load() {
			return b
		}
		return a
	case clusterv3.Cluster_RING_HASH, clusterv3.Cluster_MAGLEV:
		if key != "" {
			return hashed(usable, key)
		}
	}
	return randomHost(usable)
}

// usable gives the healthy hosts of the priority and locality that are drawn.
// Below the panic threshold, which istiod turns off, all hosts of the first
// priority are used.
func (c *cluster) usable(now time.Time) []*host {
	var priorities [][]*host // healthy ones
	var sizes []int
	for _, h := range c.hosts {
		for len(priorities) <= int(h.locality.priority) {
			priorities, sizes = append(priorities, nil), append(sizes, 0)
		}
		sizes[h.locality.priority]++
		if h.healthy && !h.health.ejected(now) {
			priorities[h.locality.priority] = append(priorities[h.locality.priority], h)
		}
	}
	if len(sizes) == 0 {
		return nil
	}
	if all := c.inPanic(priorities[0], sizes[0]); all != nil {
		return all
	}
	return c.drawLocality(drawPriority(priorities, sizes))
}

// inPanic gives all hosts of the first priority where too few of them are
// healthy to tell, nil otherwise.
func (c *cluster) inPanic(healthy []*host, size int) []*host {
	threshold := 50.0
	if t := c.spec.GetCommonLbConfig().GetHealthyPanicThreshold(); t != nil {
		threshold = t.GetValue()
	}
	if size == 0 || size < len(c.hosts) || 100*float64(len(healthy))/float64(size) >= threshold {
		return nil
	}
	return slices.Clone(c.hosts)
}

// drawPriority spreads load over priorities as Envoy does: each takes as much
// as its healthy hosts can bear, and the next one the rest.
func drawPriority(healthy [][]*host, sizes []int) []*host {
	loads, rest := make([]float64, len(sizes)), 1.0
	for i, size := range sizes {
		if size > 0 {
			loads[i] = min(rest, overProvisioning*float64(len(healthy[i]))/float64(size))
			rest -= loads[i]
		}
	}
	n := rand.Float64() * (1 - rest)
	for i, load := range loads {
		if load > 0 && n < load {
			return healthy[i]
		}
		n -= load
	}
	i := slices.IndexFunc(healthy, func(hosts []*host) bool { return len(hosts) > 0 })
	if i < 0 {
		return nil
	}
	return healthy[i]
}

// drawLocality keeps the hosts of one locality, drawn by weight, where the
// cluster says that localities have weights.
func (c *cluster) drawLocality(hosts []*host) []*host {
	if c.spec.GetCommonLbConfig().GetLocalityWeightedLbConfig() == nil {
		return hosts
	}
	weights, total := map[locality]uint32{}, uint32(0)
	var order []locality
	for _, h := range hosts {
		if _, ok := weights[h.locality]; !ok {
			weights[h.locality] = h.locality.weight
			order, total = append(order, h.locality), total+h.locality.weight
		}
	}
	if total == 0 {
		return hosts
	}
	n := rand.Uint32N(total)
	for _, l := range order {
		if n < weights[l] {
			return slices.DeleteFunc(slices.Clone(hosts), func(h *host) bool { return h.locality != l })
		}
		n -= weights[l]
	}
	return hosts
}

func weightedAt(hosts []*host, n uint32) *host {
	total := uint32(0)
	for _, h := range hosts {
		total += h.weight
	}
	n %= total
	for _, h := range hosts {
		if n < h.weight {
			return h
		}
		n -= h.weight
	}
	return hosts[0]
}

func randomHost(hosts []*host) *host { return weightedAt(hosts, rand.Uint32()) }

// hashed gives the host that the key belongs to: the same one while it is
// there, and when it goes only its own keys move.
func hashed(hosts []*host, key string) *host {
	var best *host
	highest := uint64(0)
	for _, h := range hosts {
		sum := fnv.New64a()
		_, _ = sum.Write([]byte(h.address + "\x00" + key)) // it never fails
		if n := mix(sum.Sum64()); best == nil || n > highest {
			best, highest = h, n
		}
	}
	return best
}

// mix spreads a hash over all bits, which FNV alone does not for short input.
func mix(n uint64) uint64 {
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
