package simulation

import (
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	v1 "sluice.dev/sluice/api/v1"
)

// routeLists are the fields of a VirtualService that hold routes.
var routeLists = []string{"http", "tcp", "tls"}

// routesIn reads a list of routes without copying it.
func routesIn(o map[string]any, list string) []any {
	raw, _, _ := unstructured.NestedFieldNoCopy(o, "spec", list)
	routes, _ := raw.([]any)
	return routes
}

// l4Routes are found where the Rollout drives TCP or TLS. Routes there have no name in Istio: what people would call them by
// stands in a field that Sluice does not know.
const l4Routes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, labels: {team: books}, annotations: {note: keep me}}
spec:
  hosts: [reviews, reviews.example.com]
  gateways: [mesh, books]
  http:
  - name: left-web
    timeout: 3s
    route: [{destination: {host: reviews, subset: v9, port: {number: 80}}}]
  LIST:
  - note: pinned-beta
    match: [{port: 7000, sniHosts: [reviews]}]
    route: [{destination: {host: reviews, subset: v9}}]
  - note: assets
    match: [{port: 7001, sniHosts: [reviews]}]
    route: [{destination: {host: assets}}]
  - match: [{port: 9000, sniHosts: [reviews]}]
    vendor: {unknown: [1, 2.5, three]}
    route: [{destination: {host: reviews, subset: v1, port: {number: 9000}}, weight: 100, future: 1}]
  - match: [{port: 9000, sniHosts: [reviews.example.com]}, {port: 9000, sourceLabels: {app: old}, sniHosts: [reviews]}]
    route: [{destination: {host: reviews}}]
`

const l4EdgeRoutes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, labels: {team: edge}}
spec:
  hosts: ["*.books.example.com"]
  gateways: [books]
  LIST:
  - note: pinned-old
    match: [{port: 31401, sniHosts: [old.books.example.com]}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{port: 31400, sniHosts: [all.books.example.com]}]
    route: [{destination: {host: reviews.bookinfo.svc.cluster.local, port: {number: 9000}}}]
`

// l4Made is like the VirtualService that Sluice makes, but for its match.
const l4Made = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  LIST:
  - MATCHroute: [{destination: {host: reviews, subset: v1}}]
`

// made are the manifests of what Sluice makes: as it does, and with another match, by which its route is not known.
func (s *setting) made() []string {
	match := func(text string) string { return s.inList(strings.Replace(l4Made, "MATCH", text, 1)) }
	own := ""
	if s.spec.Protocol == v1.ProtocolTLS {
		own = "match: [{sniHosts: [reviews, reviews.bookinfo, reviews.bookinfo.svc, reviews.bookinfo.svc.cluster.local]}]\n    "
	}
	return []string{match(own), match("match: [{port: 1, sniHosts: [reviews]}]\n    ")}
}

var l4Steps = []string{
	`{name: first, weight: 1}`,
	`{name: fifth, weight: 20, hold: 15s}`,
	`{name: checked, hold: 10s, probe: {url: "http://books.example.com/", interval: 2s}}`,
	`{name: half, weight: 50, hold: 25s, gates: [{name: late, query: 'sum(x{version="{{ .Canary }}"}[{{ .Window }}])', max: "0.5"}]}`,
	`{name: full, weight: 100, hold: 10s}`,
}

var l4Gates = []string{
	``, // none
	`gates: [{name: lost, query: "connections_failed", max: "0.02"}]`,
	`gates: [{name: lost, query: "connections_failed", max: "0.02", samples: 1, interval: 7s}]`,
}

// connections tells whether the Rollout drives TCP or TLS.
func (s *setting) connections() bool {
	return s.spec.Protocol != "" && s.spec.Protocol != v1.ProtocolHTTP
}

// inList puts a backup's routes where the Rollout drives some.
func (s *setting) inList(text string) string {
	return strings.Replace(text, "LIST:", strings.ToLower(string(s.spec.Protocol))+":", 1)
}

// drawConnections makes of a setting one of TCP or TLS.
func (w *world) drawConnections(s *setting) {
	pick := func(options []string) string { return options[w.rng.IntN(len(options))] }
	protocol := pick([]string{"TCP", "TLS"})
	s.mesh = pick([]string{"none", "connections", "connections"})
	if s.mesh == "connections" {
		s.foundSubsets = []string{"v1", "v2", "v9"}
	}
	var steps []string
	for _, choice := range l4Steps {
		if w.rng.IntN(3) < 2 {
			steps = append(steps, "- "+choice)
		}
	}
	if len(steps) == 0 {
		steps = []string{"- " + l4Steps[1]}
	}
	text := "host: reviews\nversion: v1\ninitialVersion: v1\nprotocol: " + protocol + "\nsteps:\n" + strings.Join(steps, "\n") + "\n" +
		"gateDefaults: {window: 20s, interval: 5s, samples: 2, failures: 2}\n" + pick(l4Gates) + "\n" +
		pick([]string{"progressDeadline: {duration: 2m}\n", "progressDeadline: {duration: 45s, onNoEvidence: Rollback}\nsoak: {hold: 15s}\n"})
	if s.mesh == "connections" && !s.edge {
		text += pick([]string{"", "virtualServices: [{name: reviews, routes: [{port: 9000}]}, {}]\n"})
	}
	s.spec = parseSpec(text)
	s.spec.Breaker = w.drawBreaker()
}
