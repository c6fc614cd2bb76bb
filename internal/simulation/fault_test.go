package simulation

import (
	"testing"
	"testing/synctest"
	"time"

	v1 "sluice.dev/sluice/api/v1"
)

// inFault plays a run of v3 until its fault test of a form stands, and then what a test does with it.
func inFault(t *testing.T, s setting, step string, then func(*world)) {
	t.Helper()
	w := newWorld(1)
	s.spec = parseSpec("host: reviews\nversion: v1\ninitialVersion: v1\ngates: []\nsteps:\n- " + step)
	synctest.Test(t, func(*testing.T) {
		w.build(s)
		for _, version := range []string{"v1", "v3"} {
			w.deploy(version)
			w.setReady(version, true)
		}
		w.at(epoch.Add(minute), func() { w.push("v3") })
		w.run(epoch.Add(2 * minute))
		w.transcript.on = true
		r := w.rollout()
		if r == nil || r.Status.Step == nil || r.Status.Traffic.Fault == nil || !w.faultSomewhere() {
			t.Fatalf("no fault stands: %+v", r.Status)
		}
		then(w)
	})
	if w.violation != nil {
		t.Errorf("%v\n%s", w.violation, w.transcript.text.String())
	}
}

// faultSomewhere tells whether any VirtualService holds a fault of ours.
func (w *world) faultSomewhere() bool {
	for _, key := range w.store.names[kindVirtualService] {
		for _, r := range viewOf(w.store.live(key)) {
			if r.ours && r.fault {
				return true
			}
		}
	}
	return false
}

// TestFaultAfterAKill: the operator is killed in a fault step. What happens to the Rollout meanwhile, the first pass of the next
// operator takes the fault away, unless the Rollout still asks for it.
func TestFaultAfterAKill(t *testing.T) {
	const probe = `hold: 1h, probe: {url: "http://books.example.com/"}}`
	forms := map[string]string{
		"own host":          `{name: f, fault: {match: [{headers: {end-user: {exact: jason}}}], abort: {httpStatus: 503}}, ` + probe,
		"own host, all":     `{name: f, fault: {scope: Everyone, traffic: Unchanged, abort: {httpStatus: 503}}, ` + probe,
		"another host":      `{name: f, fault: {host: ratings, match: [{headers: {end-user: {exact: jason}}}], delay: {fixedDelay: 7s}}, ` + probe,
		"another host, all": `{name: f, fault: {host: ratings, scope: Everyone, traffic: Unchanged, delay: {percent: 100, fixedDelay: 2s}}, ` + probe,
	}
	for name, step := range forms {
		for _, ratings := range []bool{false, true} {
			s := setting{mesh: "simple", foundSubsets: []string{"v1"}, ratings: ratings}
			meanwhile := map[string]func(*world){
				"deleted":  func(w *world) { w.remove(rolloutKey) },
				"reverted": func(w *world) { w.push("v1") },
				"edited":   func(w *world) { w.editSpec(func(s *v1.RolloutSpec) { s.Steps[0].Fault, s.Steps[0].Probe = nil, nil }) },
				"nothing":  func(*world) {},
			}
			for what, happens := range meanwhile {
				t.Run(name+"/"+what, func(t *testing.T) {
					inFault(t, s, step, func(w *world) {
						w.process.dead = true
						happens(w)
						w.pass(time.Minute)
						if !w.faultSomewhere() {
							t.Error("the fault went while no operator ran")
						}
						w.start()
						w.pass(2 * time.Second) // less than one gate or hold takes
						if stands := w.faultSomewhere(); stands != (what == "nothing") {
							t.Errorf("after the restart the fault stands: %v", stands)
						}
						if what == "deleted" && !w.isGone(rolloutKey) {
							t.Error("the Rollout is still there")
						}
					})
				})
			}
		}
	}
}
