package simulation

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// atHalf plays a run of v3 until half of the users are on it, and then what a test does with it.
func atHalf(t *testing.T, then func(*world)) *world {
	t.Helper()
	w := newWorld(1)
	synctest.Test(t, func(*testing.T) {
		w.build(setting{mesh: "simple", foundSubsets: []string{"v1"}, spec: parseSpec(baseSpec)})
		w.at(epoch.Add(minute), func() { w.push("v3") })
		w.run(epoch.Add(half))
		w.transcript.on = true
		then(w)
	})
	if w.violation != nil {
		t.Errorf("%v\n%s", w.violation, w.transcript.text.String())
	}
	return w
}

// pass lets time go by.
func (w *world) pass(d time.Duration) { w.run(w.clock.now.Add(d)) }

// remove deletes a Rollout as people do.
func (w *world) remove(key objectKey) { _ = w.store.remove("people", key, nil) }

// told tells how often an event said something.
func (w *world) told(words string) int {
	n := 0
	for line := range strings.Lines(w.transcript.text.String()) {
		if strings.Contains(line, "  event ") && strings.Contains(line, words) {
			n++
		}
	}
	return n
}

// routes says where a VirtualService leads.
func (w *world) routes(key objectKey) string { return describeVirtualService(w.store.live(key)) }

func (w *world) isGone(key objectKey) bool { return w.store.live(key) == nil }

const (
	toBoth   = "v1 50 + v3 50"
	toStable = "v1 100"
	toCanary = "v3 100"
)

func TestDeletionWaitsForAStableVersionThatIsDead(t *testing.T) {
	atHalf(t, func(w *world) {
		w.setReady("v1", false)
		w.remove(rolloutKey)
		w.pass(45 * time.Second)
		if got := w.routes(mainKey); w.isGone(rolloutKey) || !strings.Contains(got, toBoth) {
			t.Errorf("gone: %v; routes are %s, want %s still", w.isGone(rolloutKey), got, toBoth)
		}
		if n := w.told("v1 has no ready endpoint and v3 has"); n != 1 {
			t.Errorf("%d events told why the deletion waits, want one\n%s", n, w.transcript.text.String())
		}
		w.setReady("v1", true)
		w.pass(time.Second)
		if got := w.routes(mainKey); !w.isGone(rolloutKey) || !strings.Contains(got, toStable) {
			t.Errorf("gone: %v; routes are %s, want %s", w.isGone(rolloutKey), got, toStable)
		}
	})
}

func TestDeletionLeavesTheCanaryAloneWhenStableStaysDead(t *testing.T) {
	atHalf(t, func(w *world) {
		w.setReady("v1", false)
		w.remove(rolloutKey)
		w.pass(75 * time.Second)
		if got := w.routes(mainKey); !w.isGone(rolloutKey) || !strings.Contains(got, toCanary) {
			t.Errorf("gone: %v; routes are %s, want %s", w.isGone(rolloutKey), got, toCanary)
		}
		if w.told("all traffic on v3") != 1 {
			t.Errorf("no event told who keeps the traffic\n%s", w.transcript.text.String())
		}
	})
}

func TestDeletionDoesNotWaitOtherwise(t *testing.T) {
	for name, ready := range map[string]map[string]bool{
		"both are ready":   {"v1": true, "v3": true},
		"neither is ready": {"v1": false, "v3": false},
		"stable is ready":  {"v1": true, "v3": false},
	} {
		t.Run(name, func(t *testing.T) {
			atHalf(t, func(w *world) {
				for version, is := range ready {
					w.setReady(version, is)
				}
				w.remove(rolloutKey)
				w.pass(time.Second)
				if got := w.routes(mainKey); !w.isGone(rolloutKey) || !strings.Contains(got, toStable) {
					t.Errorf("gone: %v; routes are %s, want %s", w.isGone(rolloutKey), got, toStable)
				}
			})
		})
	}
}

// A second Rollout of the host, restored from a backup with its status, goes without touching what the first one drives.
func TestDeletionOfTheSecondRolloutLeavesTheMeshAlone(t *testing.T) {
	atHalf(t, func(w *world) {
		w.addRollout(otherKey.name, w.setting.spec)
		w.pass(time.Second)
		w.store.edit("people", otherKey, func(o map[string]any) {
			o["status"] = toJSON(w.rollout())["status"]
		})
		before := w.store.live(mainKey).GetResourceVersion()
		w.remove(otherKey)
		w.pass(time.Second)
		if !w.isGone(otherKey) || w.isGone(rolloutKey) {
			t.Errorf("gone: reviews-too %v, reviews %v; want the first alone", w.isGone(otherKey), w.isGone(rolloutKey))
		}
		if got := w.store.live(mainKey); got.GetResourceVersion() != before {
			t.Errorf("the VirtualService was written: %s", describeVirtualService(got))
		}
	})
}

// A rollback that is refused for one VirtualService goes on at once with the others, through a conflict.
func TestARefusalHoldsUpNoOtherWriteOfARollback(t *testing.T) {
	atHalf(t, func(w *world) {
		edge, third := objectKey{kindVirtualService, namespace, "edge"}, objectKey{kindVirtualService, namespace, "third"}
		w.driveToo(edge, third)
		w.faults.refusingObjects = map[objectKey]bool{edge: true}
		conflicts := w.sometimes["conflict on "+kindVirtualService]
		w.faults.interlude, w.interleaved = 1, func() {
			if w.rollout().Status.Canary == "" {
				w.faults.interlude = 0 // right before the first write of the mesh
				w.editForeign()
			}
		}
		w.push("v1")
		w.pass(time.Second)
		for key, want := range map[objectKey]string{mainKey: toStable, third: toStable, edge: toBoth} {
			if got := w.routes(key); !strings.Contains(got, want) {
				t.Errorf("%s is %s, want %s", key, got, want)
			}
		}
		if w.sometimes["conflict on "+kindVirtualService] == conflicts {
			t.Error("no write met a conflict")
		}
		refusals := w.sometimes["write refused: "+kindVirtualService]
		w.pass(15 * time.Second)
		if n := w.sometimes["write refused: "+kindVirtualService] - refusals; n < 1 || n > 2 {
			t.Errorf("the refused write was tried %d times again in 15s, want once each 10s", n)
		}
		w.faults.refusingObjects = nil
		w.pass(11 * time.Second)
		if got := w.routes(edge); !strings.Contains(got, toStable) {
			t.Errorf("%s is %s once it may be written, want %s", edge, got, toStable)
		}
	})
}

// driveToo gives the Rollout more VirtualServices, just like the one that it has.
func (w *world) driveToo(keys ...objectKey) {
	for _, key := range keys {
		again := w.store.live(mainKey).DeepCopy()
		again.SetName(key.name)
		again.SetUID("")
		again.SetResourceVersion("")
		if _, err := w.store.create("people", again); err != nil {
			panic(err)
		}
		w.store.edit("people", rolloutKey, func(o map[string]any) {
			managed, _, _ := unstructured.NestedSlice(o, "status", "virtualServices")
			one := toJSON(managed[0])
			one["name"] = key.name
			_ = unstructured.SetNestedSlice(o, append(managed, one), "status", "virtualServices")
		})
	}
}
