package apitest

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
)

const tcpRollout = `
apiVersion: sluice.dev/v1
kind: Rollout
metadata: {name: tcp-echo}
spec:
  host: tcp-echo
  port: {number: 9000}
  protocol: TCP
  version: v2
  steps:
  - {name: fifth, weight: 20, hold: 2m}
`

// TestProtocolRules: what connections do not have is refused, with the reason, and what works is accepted.
func TestProtocolRules(t *testing.T) {
	const (
		fault = "fault: {host: ratings, traffic: Unchanged, " + jason + ", abort: {httpStatus: 503}}"
		probe = "probe: {url: 'http://echo.example.com/healthz'}"
		query = "query: 'sum(up)', max: '1'"
	)
	gate := func(fields string) string { return "gates: [{name: lost, " + fields + "}]" }
	routes := func(list string) string { return "virtualServices: [{name: echo, routes: " + list + "}]" }
	rules := []rule{
		{name: "TLS", accepts: `protocol: TLS`, refuses: `protocol: tcp`, field: "spec.protocol", message: "Unsupported value"},
		{name: "mirror", refuses: step("mirror: {percentage: 100}"), field: "spec", message: "protocol TCP and TLS have no mirror: a mirror copies requests"},
		{name: "match", refuses: step(jason), field: "spec", message: "protocol TCP and TLS have no match: a connection has no headers or paths"},
		{
			name: "a fault of another service", accepts: step(fault + ", " + probe),
			refuses: step("fault: {" + jason + ", abort: {httpStatus: 503}}"), field: "spec", message: "protocol TCP and TLS have no fault of their own",
		},
		{
			name: "a fault for the canary's users", refuses: step("fault: {host: ratings, " + jason + ", abort: {httpStatus: 503}}"),
			field: "spec", message: "needs the host of an HTTP service and traffic: Unchanged",
		},
		{
			name: "a fault on itself by name", refuses: step("fault: {host: tcp-echo, traffic: Unchanged, " + jason + ", abort: {httpStatus: 503}}"),
			field: "spec", message: "protocol TCP and TLS have no fault of their own",
		},
		{name: "probe", accepts: step(probe + ", weight: 10"), refuses: step("probe: {url: 'tcp://echo:9000'}"), field: "spec.steps[0].probe.url", message: "http or https URL"},
		{name: "gates", accepts: gate(query), refuses: gate("metric: errorRate, max: 1%"), field: "spec", message: "no errorRate, successRate or latency: those are of requests"},
		{name: "latency", accepts: `gates: []`, refuses: gate("metric: latency, max: 1s"), field: "spec", message: "give the gate a query"},
		{name: "a step's gates", accepts: step(gate(query)), refuses: step(gate("metric: successRate, min: 99%")), field: "spec", message: "no errorRate, successRate or latency"},
		{
			name: "the soak's gates", accepts: "soak: {hold: 1m, " + gate(query) + "}",
			refuses: "soak: {hold: 1m, " + gate("metric: errorRate, max: 1%") + "}", field: "spec", message: "no errorRate, successRate or latency",
		},
		{
			name: "no gate named errors", accepts: step("gates: [{name: errors, " + query + "}]"),
			refuses: step("useGates: [errors]"), field: "spec", message: "one for HTTP, named errors, and none for TCP and TLS",
		},
		{name: "useGates", accepts: "gates: [{name: lost, " + query + "}]\n" + step("useGates: [lost]"), refuses: step("useGates: [lost]"), field: "spec", message: "useGates must name gates"},
		{
			name: "routes by port", accepts: routes("[{port: 31400}, {port: 31401}]"), refuses: routes("[{port: 31400}, {name: primary}]"),
			field: "spec", message: "pick them by port, such as routes: [{port: 31400}]",
		},
		{name: "routes by match", refuses: routes("[{match: [{uri: {prefix: /}}]}]"), field: "spec", message: "have neither names nor HTTP matches"},
		{name: "breaker", accepts: `breaker: {signals: [Overflow, Ejection]}`, refuses: `breaker: {signals: [Reset]}`, field: "spec.breaker.signals[0]", message: "Unsupported value"},
		{
			name: "routes of what is made", accepts: `virtualServices: [{gateways: [edge], hosts: ["*"], tcp: [{match: [{port: 31400}]}]}]`,
			refuses: `virtualServices: [{http: [{match: [{uri: {prefix: /}}]}]}]`, field: "spec", message: "http for HTTP, tcp for TCP, tls for TLS",
		},
	}
	checkRules(t, rollouts, tcpRollout, rules)
}

func TestProtocolIsImmutable(t *testing.T) {
	stored := patched(t, rollout, `{}`)
	stored.SetName("immutable-protocol")
	store(t, namespace, rollouts, stored)
	resource := client.Resource(rollouts).Namespace(namespace)
	patch := func(spec string) (*unstructured.Unstructured, error) {
		return resource.Patch(t.Context(), stored.GetName(), types.MergePatchType, []byte(`{"spec":`+spec+`}`), metav1.PatchOptions{})
	}
	if _, err := patch(`{"protocol":"HTTP"}`); err != nil {
		t.Errorf("the default, now in words, was refused: %v", err)
	}
	if _, err := patch(`{"protocol":null}`); err != nil {
		t.Errorf("the default, left out, was refused: %v", err)
	}
	_, err := patch(`{"protocol":"TCP","steps":[]}`)
	if err == nil {
		t.Fatal("another protocol was accepted")
	}
	checkCause(t, err, "spec", "protocol is immutable: make another Rollout for another protocol")
}
