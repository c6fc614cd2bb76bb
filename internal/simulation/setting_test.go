package simulation

import (
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
)

// versions that the simulated team has; the last one needs a sanitised subset.
var versions = []string{"v1", "v2", "v3", "1.4.2"}

// setting is what a seed starts from.
type setting struct {
	// mesh: none, simple, rich, chosen or connections; what VirtualService of the host is found.
	mesh string
	// edge: a second one for a gateway is found; late: it comes when somebody brings it.
	edge, late bool
	// foundSubsets of the DestinationRule; nil: there is no rule.
	foundSubsets []string
	// ratings: a VirtualService of ratings is found.
	ratings bool
	spec    v1.RolloutSpec
	// described: the spec never stops to describe them.
	described bool
	// elsewhere: some versions have Services of their own.
	elsewhere bool
}

const simpleRoutes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, labels: {team: books}}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: reviews, subset: v1}}]
`

const richRoutes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, labels: {team: books}, annotations: {note: keep me}}
spec:
  hosts: [reviews, reviews.example.com]
  gateways: [mesh, books]
  exportTo: ["."]
  http:
  - name: assets
    match: [{uri: {prefix: /static}}]
    route: [{destination: {host: assets, port: {number: 80}}}]
    vendor: {unknown: [1, 2.5, three]}
  - name: pinned-beta
    match: [{headers: {x-beta: {exact: "1"}}}]
    route: [{destination: {host: reviews, subset: v9}}]
  - name: primary
    match: [{uri: {prefix: /reviews}}, {uri: {prefix: /api}, method: {exact: GET}}]
    timeout: 5s
    retries: {attempts: 2, perTryTimeout: 1s}
    mirror: {host: audit, port: {number: 80}}
    mirrorPercentage: {value: 10}
    route: [{destination: {host: reviews, subset: v1, port: {number: 9080}}, headers: {response: {add: {x-served: books}}}, weight: 100}]
  - route: [{destination: {host: reviews, subset: v1}}]
    corsPolicy: {allowOrigins: [{exact: https://example.com}]}
    fancy: true
`

// chosenRoutes are found where the spec names the routes to manage.
const chosenRoutes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, annotations: {note: keep me}}
spec:
  hosts: [reviews]
  http:
  - name: left-split
    match: [{headers: {x-old: {exact: "1"}}}]
    route: [{destination: {host: reviews, subset: v1}, weight: 30}, {destination: {host: reviews, subset: v2}, weight: 70}]
  - name: left-alone
    match: [{uri: {prefix: /left}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{uri: {prefix: /api}, port: 8080}]
    route: [{destination: {host: reviews, subset: v1}}]
  - name: primary
    route: [{destination: {host: reviews, subset: v1}, weight: 100}]
`

const edgeRoutes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, labels: {team: edge}}
spec:
  hosts: [books.example.com]
  gateways: [books]
  http:
  - match: [{uri: {exact: /productpage}}]
    route: [{destination: {host: productpage}}]
  - name: pinned-old
    match: [{headers: {x-old: {exact: "1"}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - name: api.reviews
    match: [{uri: {prefix: /reviews}}]
    rewrite: {uri: /}
    route: [{destination: {host: reviews.bookinfo.svc.cluster.local}, headers: {request: {set: {x-from: edge}}}}]
`

const ratingsRoutes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings, labels: {team: stars}}
spec:
  hosts: [ratings]
  http:
  - name: all
    timeout: 9s
    route: [{destination: {host: ratings}}]
`

const baseSpec = `
host: reviews
version: v1
initialVersion: v1
steps:
- {name: shadow, mirror: {percentage: 100}, hold: 30s}
- name: ratings-slow
  hold: 20s
  fault:
    host: ratings
    match: [{headers: {end-user: {exact: jason}}}]
    delay: {percentage: {value: 100}, fixedDelay: 7s}
  probe: {url: "http://books.example.com/productpage", headers: {end-user: jason}, interval: 2s}
- {name: half, weight: 50, hold: 30s}
- {name: full, weight: 100, hold: 30s}
gateDefaults: {window: 20s, interval: 10s, samples: 2, failures: 2, minRequests: 5}
gates: [{name: errors, metric: errorRate, max: "1%"}]
progressDeadline: {duration: 3m}
`

func parseSpec(text string) v1.RolloutSpec {
	var spec v1.RolloutSpec
	if err := yaml.UnmarshalStrict([]byte(text), &spec); err != nil {
		panic(fmt.Sprintf("simulation: %v in\n%s", err, text))
	}
	return spec
}

// The steps that seeds are made of, in an order in which any of them may be left out.
var stepChoices = []string{
	`{name: shadow, mirror: {percentage: 100}, hold: 15s}`,
	`{name: peek, mirror: {percentage: 20}}`,
	`{name: shadow-get, mirror: {percentage: 50, match: [{method: {exact: GET}}]}, hold: 5s}`,
	`{name: shadow-elsewhere, mirror: {host: shadow, percentage: 30}, hold: 5s}`,
	`{name: ratings-slow, hold: 10s, fault: {host: ratings, match: [{headers: {end-user: {exact: jason}}}], delay: {percentage: {value: 100}, fixedDelay: 7s}}, probe: {url: "http://books.example.com/", interval: 2s}}`,
	`{name: own-abort, hold: 8s, fault: {match: [{headers: {end-user: {exact: jason}}}], abort: {percentage: {value: 50}, httpStatus: 503}}, probe: {url: "http://books.example.com/"}}`,
	`{name: own-slow-all, hold: 6s, fault: {scope: Everyone, traffic: Unchanged, delay: {percent: 100, fixedDelay: 2s}}, match: [{headers: {x-tester: {exact: "1"}}}], probe: {url: "http://books.example.com/"}}`,
	`{name: ratings-abort-all, hold: 6s, fault: {host: ratings, scope: Everyone, traffic: Unchanged, abort: {percentage: {value: 0.1}, httpStatus: 400}}, probe: {url: "http://books.example.com/"}}`,
	`{name: testers, match: [{headers: {end-user: {exact: jason}}}], hold: 10s}`,
	`{name: ten, weight: 10}`,
	`{name: rest, hold: 20s, useGates: []}`,
	`{name: half-testers, weight: 50, match: [{headers: {end-user: {exact: jason}}}], hold: 10s}`,
	`{name: half, weight: 50, hold: 25s, gates: [{name: late, query: 'sum(x{version="{{ .Canary }}"}[{{ .Window }}])', max: "0.5"}]}`,
	`{name: full, weight: 100, hold: 10s}`,
}

var gateChoices = []string{
	``, // the default gate
	`gates: []`,
	`gates: [{name: errors, metric: errorRate, max: "1%"}]`,
	`gates: [{name: errors, metric: errorRate, max: "1%", noData: Fail}, {name: ok, metric: successRate, min: "98%", window: 30s}]`,
	`gates: [{name: p99, metric: latency, max: 500ms, interval: 7s}, {name: orders, query: "orders_failed", max: "0.02", samples: 1}]`,
}

// drawSetting makes the seed's setting.
func (w *world) drawSetting() setting {
	pick := func(options []string) string { return options[w.rng.IntN(len(options))] }
	s := setting{mesh: pick([]string{"none", "simple", "rich", "chosen"}), ratings: w.rng.IntN(2) == 0, edge: w.rng.IntN(2) == 0}
	s.late = s.edge && w.rng.IntN(3) == 0
	switch w.rng.IntN(3) {
	case 0:
		s.foundSubsets = []string{"v1", "v2", "v3"}
	case 1:
		s.foundSubsets = []string{"v1"}
	}
	switch {
	case s.mesh == "rich":
		s.foundSubsets = []string{"v1", "v2", "v9"}
	case s.mesh == "chosen":
		s.foundSubsets = []string{"v1", "v2"}
	case s.mesh == "simple" && s.foundSubsets == nil:
		s.foundSubsets = []string{"v1"}
	}
	var steps []string
	for _, choice := range stepChoices {
		if w.rng.IntN(5) < 2 {
			steps = append(steps, "- "+choice)
		}
	}
	if len(steps) == 0 {
		steps = []string{"- " + stepChoices[0]}
	}
	text := "host: reviews\nversion: v1\ninitialVersion: v1\nsteps:\n" + strings.Join(steps, "\n") + "\n" +
		"gateDefaults: {window: 20s, interval: 5s, samples: 2, failures: 2, minRequests: 5}\n" + pick(gateChoices) + "\n" +
		pick([]string{"progressDeadline: {duration: 2m}", "progressDeadline: {duration: 45s, onNoEvidence: Rollback}"}) + "\n"
	if w.rng.IntN(3) == 0 {
		text += "soak: {hold: 15s}\n"
	}
	s.spec = parseSpec(text + s.selection(pick))
	s.spec.Breaker = w.drawBreaker()
	w.drawElsewhere(&s)
	if w.seed%5 == 4 {
		w.drawConnections(&s)
	}
	return s
}

// selection is what the spec names of the VirtualServices.
func (s *setting) selection(pick func([]string) string) string {
	const chosen = `{name: primary}, {match: [{port: 8080, uri: {prefix: /api}}]}`
	both := s.edge && !s.late && s.mesh != "none"
	switch {
	case s.mesh == "chosen" && both:
		return pick([]string{
			"virtualServices: [{name: edge, routes: [{name: api.reviews}]}, {name: reviews, routes: [" + chosen + "]}]\n",
			"virtualServices: [{routes: [{name: api.reviews}, " + chosen + "]}]\n",
			"virtualServices: [{name: edge}, {routes: [" + chosen + "]}]\n",
		})
	case s.mesh == "chosen":
		return "virtualServices: [{name: reviews, routes: [{name: primary}, {port: 8080}]}, {}]\n"
	case both:
		return pick([]string{"", "virtualServices: [{name: edge}, {name: reviews}]\n"})
	}
	return ""
}

// build creates the cluster, the mesh and, a moment later, the Rollout.
func (w *world) build(s setting) {
	w.setting = s
	w.addServices()
	w.addElsewhere(&s)
	for _, version := range versions {
		if version == "v1" || w.rng.IntN(4) > 0 || !w.faults.jitter {
			w.deploy(version)
			w.setReady(version, true)
			w.prometheus.setErrors(version, 0.002)
		}
	}
	switch s.mesh {
	case "simple":
		w.add("people", simpleRoutes)
	case "rich":
		w.add("people", richRoutes)
	case "chosen":
		w.add("people", chosenRoutes)
	case "connections":
		w.add("people", s.inList(l4Routes))
	}
	if s.edge && !s.late {
		w.add("people", s.edgeBackup())
	}
	if s.ratings {
		w.add("people", ratingsRoutes)
	}
	if len(s.foundSubsets) > 0 {
		var subsets []string
		for _, name := range s.foundSubsets {
			subsets = append(subsets, fmt.Sprintf("{name: %s, labels: {version: %s}}", name, name))
		}
		w.add("people", "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: reviews, labels: {team: books}}, spec: {host: reviews, "+
			"trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}, future: [1], subsets: ["+strings.Join(subsets, ", ")+"]}}")
	}
	w.after(10*time.Second, func() {
		w.start()
		w.addRollout("reviews", s.spec)
	})
}

func (w *world) addRollout(name string, spec v1.RolloutSpec) {
	r := &v1.Rollout{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1.GroupVersion.String(), Kind: kindRollout},
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, Spec: spec,
	}
	text, err := yaml.Marshal(r)
	if err != nil {
		panic(err)
	}
	w.add("people", string(text))
}

// edgeBackup is the one of the gateway. What comes late must not pin a version that may be stable by then: it would be managed.
func (s *setting) edgeBackup() string {
	routes := edgeRoutes
	if s.connections() {
		routes = s.inList(l4EdgeRoutes)
	}
	if s.late {
		return strings.ReplaceAll(routes, "subset: v2", "subset: v9")
	}
	return routes
}

// backup is the VirtualService that people would put back from their backup.
func (s *setting) backup() string {
	switch s.mesh {
	case "simple":
		return simpleRoutes
	case "rich":
		return richRoutes
	case "chosen":
		return chosenRoutes
	case "connections":
		return s.inList(l4Routes)
	}
	return ""
}
