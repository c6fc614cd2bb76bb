package apitest

import (
	"fmt"
	"testing"
)

// step returns a patch whose only step has the given fields.
func step(fields string) string {
	return "steps: [{name: test, " + fields + "}]"
}

// fault returns a patch whose only step has a fault with the given fields.
func fault(fields string) string {
	return step("fault: {" + fields + "}")
}

// numbered formats the numbers below count.
func numbered(count int, format string) []string {
	all := make([]string, count)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return all
}

const jason = "match: [{headers: {end-user: {exact: jason}}}]"

func TestStepRules(t *testing.T) {
	const conditions = "each match block needs a condition"
	checkRules(t, rollouts, rollout, []rule{
		{name: "name is needed", refuses: `steps: [{weight: 1}]`, field: "spec.steps[0].name", message: "Required value"},
		{name: "name", accepts: `steps: [{name: 50-percent}]`, refuses: `steps: [{name: Half way}]`, field: "spec.steps[0].name", message: "lower-case letters"},
		{name: "names differ", refuses: `steps: [{name: a}, {name: b}, {name: a}]`, field: "spec.steps", message: "each step needs a name of its own"},
		{
			name: "weight rises", accepts: `steps: [{name: a, weight: 10}, {name: b}, {name: c, weight: 10}, {name: d, weight: 100}]`,
			refuses: `steps: [{name: a, weight: 10}, {name: b}, {name: c, weight: 9}]`, field: "spec.steps", message: "weight must not fall",
		},
		{name: "weight", accepts: step("weight: 0"), refuses: step("weight: 101"), field: "spec.steps[0].weight", message: "less than or equal to 100"},
		{name: "weight is not negative", refuses: step("weight: -1"), field: "spec.steps[0].weight", message: "greater than or equal to 0"},
		{name: "weight is an integer", refuses: step("weight: 0.5"), field: "spec.steps[0].weight", message: "must be of type int32"},
		{
			name: "mirror", accepts: step("mirror: {percentage: 1}"), refuses: step("mirror: {percentage: 0}"),
			field: "spec.steps[0].mirror.percentage", message: "greater than or equal to 1",
		},
		{name: "mirror with its default", accepts: step("mirror: {}"), refuses: step("mirror: {percentage: 12.5}"), field: "spec.steps[0].mirror.percentage", message: "must be of type int32"},
		{name: "hold", accepts: step("hold: 1h30m"), refuses: step("hold: 90"), field: "spec.steps[0].hold", message: "must be of type string"},
		{name: "hold is a duration", accepts: step("hold: 0s"), refuses: step("hold: 1d"), field: "spec.steps[0].hold", message: "must be a duration"},
		{name: "hold is not negative", accepts: step("hold: 1.5h"), refuses: step("hold: -1m"), field: "spec.steps[0].hold", message: "must be a duration"},
		{name: "match", accepts: step(jason), refuses: step("match: []"), field: "spec.steps[0].match", message: "at least 1 items"},
		{name: "match by URI", accepts: step("match: [{uri: {prefix: /a}}]"), refuses: step("match: [{}]"), field: "spec.steps[0].match", message: conditions},
		{name: "match by method", accepts: step("match: [{method: {exact: GET}}]"), refuses: step("match: [{uri: {}}]"), field: "spec.steps[0].match", message: conditions},
		{name: "match by port", accepts: step("match: [{port: 9080}]"), refuses: step(`match: [{uri: {prefix: ""}}]`), field: "spec.steps[0].match", message: conditions},
		{
			name: "match by a header's presence", accepts: step("match: [{headers: {x-beta: {}}}]"),
			refuses: step("match: [{headers: {}}]"), field: "spec.steps[0].match", message: conditions,
		},
		{
			name: "match by labels", accepts: step("match: [{sourceLabels: {app: web}, gateways: [mesh]}]"),
			refuses: step("match: [{gateways: [mesh], name: all, ignoreUriCase: true}]"), field: "spec.steps[0].match", message: conditions,
		},
		{
			name: "each match block", refuses: step("match: [{uri: {prefix: /a}}, {scheme: {}}]"),
			field: "spec.steps[0].match", message: conditions,
		},
		{
			name: "one of exact, prefix and regex", refuses: step("match: [{uri: {prefix: /a, exact: /b}}]"),
			field: "spec.steps[0].match[0].uri", message: "must have at most 1 item",
		},
		{name: "job", refuses: step("job: {template: {spec: {}}}"), field: "spec.steps[0].job", message: "job does not work yet"},
		{name: "call", refuses: step("call: {url: 'http://x'}"), field: "spec.steps[0].call", message: "call does not work yet"},
		{name: "approval", refuses: step("approval: {}"), field: "spec.steps[0].approval", message: "approval does not work yet"},
		{
			name: "mirror's host", accepts: step("mirror: {host: audit.bookinfo.svc.cluster.local}"),
			refuses: step("mirror: {host: 'http://audit'}"), field: "spec.steps[0].mirror.host", message: "must be a host, short (audit) or full",
		},
		{
			name: "mirror's match", accepts: step("mirror: {match: [{method: {exact: GET}}]}"),
			refuses: step("mirror: {match: []}"), field: "spec.steps[0].mirror.match", message: "at least 1 items",
		},
		{name: "mirror's match has a condition", refuses: step("mirror: {match: [{name: all}]}"), field: "spec.steps[0].mirror.match", message: conditions},
	})
}

func TestFaultRules(t *testing.T) {
	const delay, abort = "delay: {fixedDelay: 7s}", "abort: {httpStatus: 503}"
	at := func(name string) string { return "spec.steps[0].fault" + name }
	checkRules(t, rollouts, rollout, []rule{
		{name: "delay", accepts: fault(jason + ", " + delay), refuses: fault(jason), field: at(""), message: "a fault needs delay or abort"},
		{name: "abort", accepts: fault(jason + ", " + abort), refuses: fault(jason + ", abort: {}"), field: at(".abort"), message: "abort needs httpStatus"},
		{name: "both", accepts: fault(jason + ", " + abort + ", " + delay), refuses: fault(abort), field: at(""), message: "a fault needs match"},
		{name: "match has a condition", refuses: fault(abort + ", match: [{}]"), field: at(".match"), message: "needs a condition"},
		{name: "host", accepts: fault("host: ratings, " + jason + ", " + delay), refuses: fault("host: 'a b', " + jason + ", " + delay), field: at(".host"), message: "must be a host"},
		{name: "delay needs a time", refuses: fault(jason + ", delay: {percentage: {value: 1}}"), field: at(".delay"), message: "delay needs fixedDelay"},
		{
			name: "delay is a duration", accepts: fault(jason + ", delay: {fixedDelay: 1h2m3.5s}"),
			refuses: fault(jason + ", delay: {fixedDelay: 1us}"), field: at(".delay.fixedDelay"), message: "must be a valid duration greater than 1ms",
		},
		{
			name: "percentage", accepts: fault(jason + ", delay: {fixedDelay: 7s, percentage: {value: 0.1}}"),
			refuses: fault(jason + ", delay: {fixedDelay: 7s, percentage: {value: 100.5}}"), field: at(".delay"), message: "percentage.value must be from 0 to 100",
		},
		{
			name: "abort's percentage", accepts: fault(jason + ", abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}"),
			refuses: fault(jason + ", abort: {httpStatus: 503, percentage: {value: -1}}"), field: at(".abort"), message: "percentage.value must be from 0 to 100",
		},
		{name: "httpStatus", refuses: fault(jason + ", abort: {httpStatus: 42}"), field: at(".abort"), message: "httpStatus must be from 200 to 599"},
		{name: "scope is known", accepts: fault("scope: Matched, " + jason + ", " + abort), refuses: fault("scope: All, " + jason + ", " + abort), field: at(".scope"), message: "Unsupported value"},
		{
			name: "scope Everyone", accepts: fault("scope: Everyone, traffic: Unchanged, " + abort),
			refuses: fault("scope: Everyone, traffic: Unchanged, " + jason + ", " + abort), field: at(""), message: "scope Everyone goes with traffic Unchanged and without match",
		},
		{name: "scope Everyone leaves the traffic", refuses: fault("scope: Everyone, " + abort), field: at(""), message: "scope Everyone goes with traffic Unchanged"},
		{name: "scope Matched needs match", refuses: fault("scope: Matched, traffic: Unchanged, " + abort), field: at(""), message: "a fault needs match"},
		{
			name: "traffic is known", accepts: fault("traffic: Canary, " + jason + ", " + abort),
			refuses: fault("traffic: Stable, " + jason + ", " + abort), field: at(".traffic"), message: "Unsupported value",
		},
		{
			name: "the deprecated percent", accepts: fault("traffic: Unchanged, " + jason + ", delay: {fixedDelay: 2s, percent: 100}"),
			refuses: fault(jason + ", delay: {fixedDelay: 2s, percent: 101}"), field: at(".delay"), message: "percent must be from 0 to 100",
		},
	})
}

func TestProbeRules(t *testing.T) {
	probe := func(fields string) string { return step("probe: {" + fields + "}") }
	const url = "url: 'http://bookinfo.example.com/productpage'"
	at := func(name string) string { return "spec.steps[0].probe" + name }
	checkRules(t, rollouts, rollout, []rule{
		{name: "url is needed", accepts: probe(url), refuses: probe(""), field: at(".url"), message: "Required value"},
		{name: "url", accepts: probe("url: 'https://127.0.0.1:8443/a?b=c'"), refuses: probe("url: 'ftp://x/'"), field: at(".url"), message: "must be a http or https URL"},
		{name: "url has a host", refuses: probe("url: 'http:///x'"), field: at(".url"), message: "must be a http or https URL"},
		{name: "method", accepts: probe("method: HEAD, " + url), refuses: probe("method: TRACE, " + url), field: at(".method"), message: "Unsupported value"},
		{name: "interval", accepts: probe("interval: 100ms, " + url), refuses: probe("interval: 1ms, " + url), field: at(".interval"), message: "must be at least 100ms"},
		{name: "maxLatency", accepts: probe("maxLatency: 6s, " + url), refuses: probe("maxLatency: 0s, " + url), field: at(".maxLatency"), message: "must be at least 1ms"},
		{name: "expectStatus", accepts: probe("expectStatus: [200, 302], " + url), refuses: probe("expectStatus: [20], " + url), field: at(".expectStatus[0]"), message: "greater than or equal to 100"},
		{name: "some status", refuses: probe("expectStatus: [], " + url), field: at(".expectStatus"), message: "at least 1 items"},
		{name: "minSuccess", accepts: probe("minSuccess: 99.9%, " + url), refuses: probe("minSuccess: '0.95', " + url), field: at(".minSuccess"), message: "must be a percentage such as 95%"},
		{name: "minSuccess is a share", accepts: probe("minSuccess: 100%, " + url), refuses: probe("minSuccess: 101%, " + url), field: at(".minSuccess"), message: "must be a percentage"},
		{name: "headers", accepts: probe("headers: {end-user: jason}, " + url), refuses: probe("headers: {end-user: 1}, " + url), field: at(".headers.end-user"), message: "must be of type string"},
	})
}
