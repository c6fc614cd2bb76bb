package simulation

import (
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// teams have a Rollout each, and test with stars, which may have one of its own.
var teams = []string{"carts", "details", "orders"}

const leaseSpec = `
host: %s
version: v1
initialVersion: v1
gates: []
steps:
- {name: slow, hold: 6s, fault: {host: stars, %s, delay: {percentage: {value: 100}, fixedDelay: 7s}}, probe: {url: "http://books.example.com/", interval: 2s}}
- {name: half, weight: 50, hold: 5s}
- {name: gone, hold: 4s, fault: {host: stars, %s, abort: {httpStatus: 503}}, probe: {url: "http://books.example.com/", interval: 2s}}
`

const starsSpec = `
host: stars
version: v1
initialVersion: v1
gates: []
steps:
- {name: shadow, mirror: {percentage: 30, match: [{method: {exact: GET}}]}, hold: 5s}
- {name: testers, match: [{headers: {end-user: {exact: jason}}}], hold: 5s}
- {name: own, hold: 5s, fault: {match: [{headers: {end-user: {exact: jason}}}], abort: {httpStatus: 503}}, probe: {url: "http://books.example.com/", interval: 2s}}
- {name: half, weight: 50, hold: 10s}
`

const starsRoutes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: of-stars, labels: {team: stars}}
spec:
  hosts: [stars]
  http:
  - name: old
    match: [{uri: {prefix: /old}}]
    timeout: 3s
    route: [{destination: {host: stars}}]
  - name: all
    route: [{destination: {host: stars}, headers: {request: {set: {x-a: b}}}}]
`

// sharedRoutes lead to the teams' hosts and to stars by one VirtualService, of which each Rollout drives a route.
const sharedRoutes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: all-of-them}
spec:
  hosts: [carts, details, orders, stars]
  gateways: [mesh, books]
  http:
  - {name: to-stars, match: [{uri: {prefix: /stars}}], route: [{destination: {host: stars}, weight: 100}]}
  - {name: to-carts, match: [{uri: {prefix: /carts}}, {uri: {exact: /cart}}], route: [{destination: {host: carts}}]}
  - {name: to-details, match: [{uri: {prefix: /details}}], route: [{destination: {host: details}}]}
  - {match: [{uri: {prefix: /orders}}], route: [{destination: {host: orders}}]}
`

// leases asserts, after each write, that one Rollout at a time has a fault on stars, that what carries it is one VirtualService, and
// that whoever gets the fault goes where all others go.
type leases struct {
	world *world
	// owners that had a fault at any time.
	owners map[string]bool
	specs  map[string]v1.RolloutSpec
	// gaveUp: a Rollout went while the API server refused to put the mesh back.
	gaveUp bool
}

var faultCopy = regexp.MustCompile(`^sluice-fault-(.+)-\d+$`)

func (l *leases) observe(c change) {
	if c.key.kind != kindVirtualService || c.actor != "operator" {
		return
	}
	w, now, made := l.world, map[string]bool{}, 0
	for _, key := range w.store.names[kindVirtualService] {
		vs := w.store.live(key)
		if vs == nil {
			continue
		}
		if strings.HasSuffix(key.name, "-fault-stars") {
			made++
		}
		for owner := range l.faults(vs) {
			l.owners[owner] = true
			if w.isGone(objectKey{kindRollout, namespace, owner}) {
				l.gaveUp = true
				continue
			}
			now[owner] = true
		}
	}
	if len(now) > 1 {
		w.violated(16, "faults of %v stand on stars at once", slices.Sorted(maps.Keys(now)))
	}
	if made > 1 {
		w.violated(12, "%d VirtualServices were made for stars, and sidecars obey one of them", made)
	}
	for owner := range l.faults(c.after) {
		r := w.rolloutAt(objectKey{kindRollout, namespace, owner}, w.store.rv)
		if !l.faults(c.before)[owner] && (r == nil || r.Status.Traffic == nil || r.Status.Traffic.Fault == nil) {
			w.violated(16, "a fault of %s was written that its status does not have", owner)
		}
	}
}

// faults are the owners of a VirtualService's fault copies, and each leads where the route does that it stands before; but for those
// of the one who drives that route, which lead to its canary.
func (l *leases) faults(vs *unstructured.Unstructured) map[string]bool {
	owners := map[string]bool{}
	views := viewOf(vs)
	for i, view := range views {
		match := faultCopy.FindStringSubmatch(view.name)
		if match == nil {
			continue
		}
		owners[match[1]] = true
		at := i + slices.IndexFunc(views[i:], func(v routeView) bool { return !v.ours })
		if match[1] != "stars" && (at < i || !reflect.DeepEqual(view.raw["route"], views[at].raw["route"])) {
			l.world.violated(9, "%s leads to %v, its route to %v", view.name, view.raw["route"], views[max(at, 0)].raw["route"])
		}
	}
	return owners
}

// TestFaultLeases: three Rollouts test with one dependency, whose VirtualService is found, made for the fault, or driven by a Rollout of
// its own, while processes die, caches lag and answers are lost.
func TestFaultLeases(t *testing.T) {
	first, seeds := uint64(0), uint64(40)
	if raceDetector {
		seeds = 10
	}
	if text := os.Getenv("SLUICE_SEEDS"); text != "" {
		if n, err := strconv.ParseUint(text, 10, 64); err == nil {
			seeds = max(n/2, 1)
		}
	}
	verbose := os.Getenv("SLUICE_SEED") != ""
	if n, err := strconv.ParseUint(os.Getenv("SLUICE_SEED"), 10, 64); err == nil {
		first, seeds = n, n+1
	}
	turns := 0
	for seed := first; seed < seeds; seed++ {
		w := newWorld(seed)
		w.transcript.on = verbose
		l := &leases{world: w, owners: map[string]bool{}, specs: map[string]v1.RolloutSpec{}}
		w.store.observers = []func(change){l.observe, w.transcript.observe, w.notify}
		synctest.Test(t, func(*testing.T) { l.play() })
		if verbose {
			t.Log("\n" + w.transcript.text.String())
		}
		if w.violation != nil {
			t.Errorf("seed %d: %v\nreplay: SLUICE_SEED=%d go test ./internal/simulation -run TestFaultLeases -v", seed, w.violation, seed)
		}
		turns += len(l.owners)
	}
	if least := int(seeds - first); !verbose && turns < 2*least {
		t.Errorf("%d Rollouts had a fault in %d seeds: too few took turns", turns, least)
	}
}

func (l *leases) play() {
	w := l.world
	for _, host := range append([]string{"stars"}, teams...) {
		w.add("cluster", fmt.Sprintf(`{apiVersion: v1, kind: Service, metadata: {name: %s}, spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}}`, host))
	}
	for _, version := range []string{"v1", "v3"} {
		w.deploy(version)
		w.setReady(version, true)
	}
	form, shared := w.rng.IntN(3), w.rng.IntN(4) == 0
	switch {
	case shared:
		w.add("people", sharedRoutes)
	case form == 1 || (form == 2 && w.rng.IntN(2) == 0):
		w.add("people", starsRoutes)
	}
	whom := []string{"match: [{headers: {end-user: {exact: jason}}}]", "scope: Everyone, traffic: Unchanged"}
	for _, host := range teams {
		l.specs[host] = parseSpec(fmt.Sprintf(leaseSpec, host, whom[w.rng.IntN(2)], whom[w.rng.IntN(2)]))
	}
	if form == 2 {
		l.specs["stars"] = parseSpec(starsSpec)
	}
	late := w.rng.IntN(2) == 0
	for _, host := range slices.Sorted(maps.Keys(l.specs)) {
		if host == "stars" && late { // it makes its VirtualService while faults are made ones
			w.at(epoch.Add(30*time.Second+time.Duration(w.rng.IntN(60))*time.Millisecond), func() { l.again(host) })
			continue
		}
		w.addRollout(host, l.specs[host])
	}
	w.start()
	w.run(epoch.Add(30 * time.Second))
	l.push(slices.Concat(teams, []string{"stars"})...)
	w.faults.jitter = true
	w.faults.lags = map[string]time.Duration{kindVirtualService: time.Duration(w.rng.IntN(6000)) * time.Millisecond}
	for at := 40 * time.Second; at < 6*time.Minute; at += time.Duration(5+w.rng.IntN(30)) * time.Second {
		w.at(epoch.Add(at), l.drawDeed)
	}
	w.run(epoch.Add(6 * time.Minute))
	if w.violation == nil {
		l.settle()
	}
}

// push asks for another version than before.
func (l *leases) push(hosts ...string) {
	w := l.world
	for _, host := range hosts {
		w.store.edit("people", objectKey{kindRollout, namespace, host}, func(o map[string]any) {
			version := "v3"
			if now, _, _ := unstructured.NestedString(o, "spec", "version"); now == version {
				version = "v1"
			}
			w.transcript.line("git", "push %s to %s", version, host)
			_ = unstructured.SetNestedField(o, version, "spec", "version")
		})
	}
}

func (l *leases) drawDeed() {
	w := l.world
	one := append([]string{"stars"}, teams...)[w.rng.IntN(len(teams)+1)]
	switch w.rng.IntN(11) {
	case 0, 1:
		l.push(one)
	case 2:
		l.push(teams...)
	case 3:
		w.prometheus.probes.set(w.clock.now, false)
	case 4, 5:
		w.prometheus.probes.set(w.clock.now, true)
	case 6:
		if p := w.process; p != nil {
			w.crash(p, "between reconciles")
		}
	case 7:
		key := objectKey{kindRollout, namespace, one}
		if r := w.store.live(key); r != nil && r.GetDeletionTimestamp() == nil {
			w.transcript.line("people", "delete %s", key)
			w.remove(key)
			w.after(time.Duration(5+w.rng.IntN(60))*time.Second, func() { l.again(one) })
		}
	case 8:
		w.removeByHand(objectKey{kindVirtualService, namespace, one + "-fault-stars"})
	default:
		w.drawFaults()
	}
}

// again brings a Rollout that was deleted.
func (l *leases) again(host string) {
	if spec, known := l.specs[host]; known && l.world.isGone(objectKey{kindRollout, namespace, host}) {
		l.world.addRollout(host, spec)
	}
}

// settle: when nothing goes wrong any more each Rollout comes to its end, and no fault and nothing that was made for one is left.
func (l *leases) settle() {
	w := l.world
	w.faults.calm()
	w.prometheus.probes.set(w.clock.now, true)
	w.start()
	w.run(w.clock.now.Add(30 * time.Minute))
	for host := range l.specs {
		l.again(host)
	}
	w.run(w.clock.now.Add(10 * time.Minute))
	for _, host := range append([]string{"stars"}, teams...) {
		r := w.rolloutAt(objectKey{kindRollout, namespace, host}, w.store.rv)
		if r == nil || r.Status.Reason == v1.ReasonRouteNotFound { // a deletion that gave up left its routes split
			continue
		}
		if r.Status.Phase != v1.PhaseHealthy && r.Status.Phase != v1.PhaseRolledBack {
			w.violated(15, "%s ends %s/%s: %s", host, r.Status.Phase, r.Status.Reason, r.Status.Message)
		}
	}
	for _, key := range w.store.names[kindVirtualService] {
		for _, view := range viewOf(w.store.live(key)) {
			if view.ours && !l.gaveUp {
				w.violated(16, "%s is left on %s", view.name, key)
			}
		}
		for _, host := range teams {
			if w.store.live(key) != nil && key.name == host+"-fault-stars" {
				w.violated(16, "%s, made for a fault, is left", key)
			}
		}
	}
}
