package mesh

import (
	"encoding/json"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apijson "k8s.io/apimachinery/pkg/util/json"
	"pgregory.net/rapid"

	v1 "sluice.dev/sluice/api/v1"
)

// The module that can import Istio's validation runs these tests with both flags, and validates what was rendered.
var (
	walkIn  = flag.String("walk.in", "", "a file with a JSON list of VirtualServices to walk through as well")
	walkOut = flag.String("walk.out", "", "a file to write a JSON list of renderings to")
)

// rendering is one object of a walk. Found counts the VirtualServices that were walked through from 0.
type rendering struct {
	Found  int            `json:"found"`
	Step   string         `json:"step"`
	Object map[string]any `json:"object"`
}

// corpus walks through VirtualServices and keeps what was rendered.
type corpus struct {
	renderings []rendering
	found      int
	// hosts that were driven, by list; steps that were written, and those whose match could not be joined.
	hosts            map[routeList]int
	steps, conflicts int
}

// corpusSteps are the traffics of a run, in order.
var corpusSteps = []string{
	"CANARY weight: 0, mirror: {percentage: 100}",
	"CANARY weight: 0, match: " + jason,
	"CANARY weight: 5, match: " + jason + `, fault: {match: [{headers: {x-chaos: {exact: "1"}}}], ` + delayed + "}",
	"CANARY weight: 50, mirror: {percentage: 10}",
	"CANARY weight: 100",
}

// TestCorpus walks through what Istio's own samples and tests hold, when it is given that, through what it draws, and through what
// Rollouts describe.
func TestCorpus(t *testing.T) {
	c := &corpus{hosts: map[routeList]int{}}
	if *walkIn != "" {
		for _, vs := range readCorpus(t) {
			c.walk(t, vs)
		}
	}
	given := c.found
	for seed := range 60 {
		list := routeLists[seed%len(routeLists)]
		c.walk(t, rapid.Custom(func(t *rapid.T) *unstructured.Unstructured { return genWith(t, list, "reviews") }).Example(seed))
	}
	for _, text := range []string{describing, describingTCP, describingTLS} {
		r := atRest(t, text)
		for _, vs := range r.Status.VirtualServices {
			c.walk(t, renderNamed(t, r, vs.Name, nil))
		}
	}
	t.Logf("%d VirtualServices given, %d drawn: hosts driven: %v, %d steps written, %d could not be joined", given, c.found-given, c.hosts, c.steps, c.conflicts)
	if c.hosts[httpList] < 20 || c.hosts[tcpList] < 20 || c.hosts[tlsList] < 20 || c.steps < 150 {
		t.Errorf("only %v hosts were driven, in %d steps", c.hosts, c.steps)
	}
	if *walkOut != "" {
		data, err := json.Marshal(c.renderings)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(*walkOut, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func readCorpus(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	data, err := os.ReadFile(*walkIn)
	if err != nil {
		t.Fatal(err)
	}
	var raw []any
	if err := apijson.Unmarshal(data, &raw); err != nil {
		t.Fatal(err)
	}
	var all []*unstructured.Unstructured
	for _, o := range raw {
		vs := &unstructured.Unstructured{Object: asObject(o)}
		if vs.GetNamespace() == "" {
			vs.SetNamespace("bookinfo")
		}
		all = append(all, vs)
	}
	return all
}

// walk drives each host to which a VirtualService routes, by default and by names, and puts a fault on it.
func (c *corpus) walk(t *testing.T, vs *unstructured.Unstructured) {
	t.Helper()
	c.keep("as found", vs)
	for _, list := range routeLists {
		for _, host := range routedHosts(list, vs) {
			r := speaking(list, &v1.Rollout{})
			r.Name, r.Namespace, r.Spec.Host = "sluice.walker", vs.GetNamespace(), host
			managed, explicit := managedBySpec(r, vs)
			for _, one := range []v1.ManagedVirtualService{managed, explicit} {
				if len(one.Routes) > 0 {
					c.hosts[list]++
					c.run(t, newWalk(t, r, one, vs))
				}
			}
			if list == httpList {
				c.fault(t, r, vs)
			}
		}
	}
	c.found++
}

// managedBySpec are the routes that are driven by default, for the first stable version for which there are any, and those that
// a spec can name.
func managedBySpec(r *v1.Rollout, vs *unstructured.Unstructured) (byDefault, explicit v1.ManagedVirtualService) {
	one := []*unstructured.Unstructured{vs}
	for _, candidate := range Survey(r, one, nil).VirtualServices {
		if len(candidate.Routes) > 0 {
			byDefault = sendingTo(candidate.Routes[0].Subset, candidate)
		}
	}
	named := r.DeepCopy()
	var selectors []v1.RouteSelector
	list := drivenList(r)
	for _, route := range list.routes(vs) {
		if list != httpList {
			selectors = append(selectors, portSelectors(r, route)...)
			continue
		}
		selector := v1.RouteSelector{Name: text(route, "name")}
		if data, err := json.Marshal(route["match"]); selector.Name == "" && err == nil {
			err = json.Unmarshal(data, &selector.Match)
			if err != nil || len(selector.Match) == 0 {
				continue
			}
		}
		if allTo(route, HostKey(r.Spec.Host, r.Namespace), r.Namespace) {
			selectors = append(selectors, selector)
		}
	}
	named.Spec.VirtualServices = []v1.VirtualService{{Name: vs.GetName(), Routes: selectors}}
	if surveyed := Survey(named, one, nil); len(selectors) > 0 && surveyed.Problem == nil {
		explicit = surveyed.VirtualServices[0]
	}
	return byDefault, explicit
}

// portSelectors picks a route by its port, where each of its blocks has the same.
func portSelectors(r *v1.Rollout, route object) []v1.RouteSelector {
	blocks := objects(route["match"])
	if len(blocks) == 0 || !allTo(route, HostKey(r.Spec.Host, r.Namespace), r.Namespace) {
		return nil
	}
	port, _ := number(blocks[0]["port"])
	selector := v1.RouteSelector{Port: int32(port)}
	if !picks(&selector, candidate{route: route, own: 1}) {
		return nil
	}
	return []v1.RouteSelector{selector}
}

// routedHosts are those to which any route of a list sends.
func routedHosts(list routeList, vs *unstructured.Unstructured) []string {
	var hosts []string
	for _, route := range list.routes(vs) {
		for _, d := range objects(route["route"]) {
			if host := text(child(d, "destination"), "host"); host != "" && !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

func (c *corpus) keep(step string, rendered *unstructured.Unstructured) {
	c.renderings = append(c.renderings, rendering{c.found, step, rendered.DeepCopy().Object})
}

// run goes through all steps, and to either end from there.
func (c *corpus) run(t *testing.T, w *walk) {
	t.Helper()
	w.note = c.keep
	for _, step := range corpusSteps {
		traffic := reviewsWith(t, step).Status.Traffic
		if drivenList(w.rollout) != httpList {
			traffic.Mirror, traffic.Match, traffic.Fault = nil, nil, nil
		}
		w.save(traffic)
		if w.step(step, traffic) {
			c.steps++
		} else {
			c.conflicts++
		}
	}
	there := *w
	there.end("canary")
	w.end("stable")
}

// fault puts another Rollout's fault on the host's routes, and takes it away.
func (c *corpus) fault(t *testing.T, r *v1.Rollout, vs *unstructured.Unstructured) {
	t.Helper()
	other := reviewsWith(t, "CANARY weight: 5, fault: {host: x, match: "+jason+", "+delayed+"}")
	other.Namespace, other.Status.Traffic.Fault.Host = r.Namespace, r.Spec.Host
	carrier := &v1.ManagedVirtualService{Name: vs.GetName()}
	with, problem := FaultVirtualService(other, carrier, vs)
	if problem != nil {
		c.conflicts++
		return
	}
	c.keep("a fault on "+r.Spec.Host, with)
	c.steps++
	if again, problem := FaultVirtualService(other, carrier, with); problem != nil || !cmp.Equal(with, again) {
		t.Errorf("rendering a fault twice changes something: %+v\n%s", problem, cmp.Diff(with, again))
	}
	other.Status.Traffic.Fault = nil
	without, problem := FaultVirtualService(other, carrier, with)
	if diff := cmp.Diff(vs.Object, without.Object); problem != nil || diff != "" {
		t.Errorf("after the fault on %s: %+v (-found +left):\n%s", r.Spec.Host, problem, diff)
	}
}
