package apitest

import "testing"

func TestGateRules(t *testing.T) {
	gate := func(fields string) string { return "gates: [{name: test, " + fields + "}]" }
	const errorRate, latency, query = "metric: errorRate, ", "metric: latency, ", "query: 'sum(up)', "
	at := func(name string) string { return "spec.gates[0]" + name }
	checkRules(t, rollouts, rollout, []rule{
		{name: "name", accepts: gate(errorRate + "max: 1%"), refuses: `gates: [{name: "p 99", metric: latency, max: 1s}]`, field: at(".name"), message: "lower-case letters"},
		{
			name: "names differ", accepts: `gates: [{name: a, metric: errorRate, max: 1%}, {name: b, metric: latency, max: 1s}]`,
			refuses: `gates: [{name: a, metric: errorRate, max: 1%}, {name: a, metric: latency, max: 1s}]`, field: "spec.gates", message: "each gate needs a name of its own",
		},
		{name: "no gates", accepts: `gates: []`, refuses: gate("max: '1'"), field: at(""), message: "exactly one of metric and query"},
		{name: "metric or query", accepts: gate(query + "max: '0.5'"), refuses: gate(errorRate + query + "max: '0.5'"), field: at(""), message: "exactly one of metric and query"},
		{name: "metric", refuses: gate("metric: errors, max: 1%"), field: at(".metric"), message: "Unsupported value"},
		{name: "a limit", accepts: gate("metric: successRate, min: 99.5%"), refuses: gate(errorRate), field: at(""), message: "a gate needs max or min"},
		{name: "max", accepts: gate(query + "max: '-0.5'"), refuses: gate(query + "max: lots"), field: at(".max"), message: "must be a number (0.5), a percentage (1%) or a duration (500ms)"},
		{name: "min", accepts: gate(query + "min: 1%"), refuses: gate(query + "min: '1e3'"), field: at(".min"), message: "must be a number"},
		{name: "max is text", refuses: gate(query + "max: 1"), field: at(".max"), message: "must be of type string"},
		{name: "errorRate's unit", accepts: gate(errorRate + "max: '0.01'"), refuses: gate(errorRate + "max: 10ms"), field: at(""), message: "is a percentage (1%) or a share (0.01)"},
		{name: "latency's unit", accepts: gate(latency + "max: '0.5'"), refuses: gate(latency + "max: 1%"), field: at(""), message: "is a duration (500ms) or a number of seconds"},
		{name: "quantile", accepts: gate(latency + "max: 500ms, quantile: '0.999'"), refuses: gate(latency + "max: 500ms, quantile: '99'"), field: at(".quantile"), message: "must be between 0 and 1"},
		{name: "quantile is above 0", accepts: gate(latency + "max: 1s, quantile: '.5'"), refuses: gate(latency + "max: 1s, quantile: '0.0'"), field: at(".quantile"), message: "must be between 0 and 1"},
		{name: "quantile of latency", refuses: gate(errorRate + "max: 1%, quantile: '0.9'"), field: at(""), message: "quantile goes with metric latency only"},
		{name: "minRequests", accepts: gate(errorRate + "max: 1%, minRequests: 0"), refuses: gate(query + "max: '1', minRequests: 5"), field: at(""), message: "minRequests goes with metric only"},
		{name: "compareTo", refuses: gate(latency + "max: 1s, compareTo: stable"), field: at(".compareTo"), message: "compareTo does not work yet"},
		{name: "maxRatio", refuses: gate(latency + "max: 1s, maxRatio: '1.2'"), field: at(".maxRatio"), message: "maxRatio does not work yet"},
		{name: "window", accepts: gate(errorRate + "max: 1%, window: 5m"), refuses: gate(errorRate + "max: 1%, window: 500ms"), field: at(".window"), message: "must be at least 1s"},
		{name: "noData", accepts: gate(errorRate + "max: 1%, noData: Fail"), refuses: gate(errorRate + "max: 1%, noData: Pass"), field: at(".noData"), message: "Unsupported value"},
		{
			name: "gateDefaults", accepts: `gateDefaults: {window: 1m, interval: 10s, samples: 3, failures: 2, minRequests: 20, noData: Hold}`,
			refuses: `gateDefaults: {samples: 0}`, field: "spec.gateDefaults.samples", message: "greater than or equal to 1",
		},
		{name: "interval", accepts: `gateDefaults: {interval: 1s}`, refuses: `gateDefaults: {interval: 0s}`, field: "spec.gateDefaults.interval", message: "must be at least 1s"},
		{name: "failures", accepts: `gateDefaults: {failures: 1}`, refuses: `gateDefaults: {failures: 0}`, field: "spec.gateDefaults.failures", message: "greater than or equal to 1"},
	})
}

func TestGatesOfStepsRules(t *testing.T) {
	const gates = "gates: [{name: errors, metric: errorRate, max: 1%}, {name: p99, metric: latency, max: 1s}]\n"
	checkRules(t, rollouts, rollout, []rule{
		{
			name: "useGates", accepts: gates + step("useGates: [p99]"),
			refuses: gates + step("useGates: [p50]"), field: "spec", message: "useGates must name gates of spec.gates",
		},
		{name: "useGates of the default gate", accepts: step("useGates: [errors]"), refuses: step("useGates: [p99]"), field: "spec", message: "useGates must name gates"},
		{name: "useGates of none", accepts: gates + step("useGates: []"), refuses: "gates: []\n" + step("useGates: [errors]"), field: "spec", message: "useGates must name gates"},
		{name: "useGates twice", refuses: gates + step("useGates: [p99, p99]"), field: "spec.steps[0].useGates[1]", message: "Duplicate value"},
		{
			name: "a step's gate", accepts: gates + step("gates: [{name: orders, query: up, min: '1'}]"),
			refuses: gates + step("gates: [{name: p99, query: up, min: '1'}]"), field: "spec", message: "a gate of a step needs another name",
		},
		{
			name: "the soak's gate", accepts: gates + "soak: {gates: [{name: orders, query: up, min: '1'}]}",
			refuses: gates + "soak: {gates: [{name: p99, query: up, min: '1'}]}", field: "spec", message: "a gate of the soak needs another name",
		},
		{
			name: "a step's gate beside the default one", accepts: step("gates: [{name: orders, query: up, min: '1'}]"),
			refuses: step("gates: [{name: errors, query: up, min: '1'}]"), field: "spec", message: "a gate of a step needs another name",
		},
		{
			name: "the soak's gate beside the default one", accepts: "soak: {gates: [{name: orders, query: up, min: '1'}]}",
			refuses: "soak: {gates: [{name: errors, query: up, min: '1'}]}", field: "spec", message: "a gate of the soak needs another name",
		},
	})
}
