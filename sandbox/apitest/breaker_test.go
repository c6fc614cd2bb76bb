package apitest

import "testing"

func TestBreakerRules(t *testing.T) {
	checkRules(t, rollouts, rollout, []rule{
		{name: "defaults", accepts: `breaker: {}`, refuses: `breaker: {signals: [Timeout]}`, field: "spec.breaker.signals[0]", message: "Unsupported value"},
		{name: "off", accepts: `breaker: {signals: []}`, refuses: `breaker: {signals: [Overflow, Overflow]}`, field: "spec.breaker.signals", message: "each signal once"},
		{name: "scope", accepts: `breaker: {scope: Canary}`, refuses: `breaker: {scope: Stable}`, field: "spec.breaker.scope", message: "Unsupported value"},
		{name: "window", accepts: `breaker: {window: 1s}`, refuses: `breaker: {window: 500ms}`, field: "spec.breaker.window", message: "must be at least 1s"},
		{name: "a long window", accepts: `breaker: {window: 1h}`, refuses: `breaker: {window: 61m}`, field: "spec.breaker", message: "window must be at most 1h"},
		{name: "maxTrips", accepts: `breaker: {maxTrips: 0}`, refuses: `breaker: {maxTrips: -1}`, field: "spec.breaker.maxTrips", message: "greater than or equal to 0"},
		{name: "action", accepts: `breaker: {action: Rollback}`, refuses: `breaker: {action: Pause}`, field: "spec.breaker.action", message: "Unsupported value"},
	})
}

func TestTrafficPolicyRules(t *testing.T) {
	host := func(policy string) string { return "destinationRule: {trafficPolicy: {" + policy + "}}" }
	version := func(policy string) string { return "versions: [{name: v3, trafficPolicy: {" + policy + "}}]" }
	const hosts, versions = "spec.destinationRule.trafficPolicy.", "spec.versions[0].trafficPolicy."
	checkRules(t, rollouts, rollout, []rule{
		{
			name: "pool of the host", accepts: host("connectionPool: {tcp: {maxConnections: 1, connectTimeout: 30ms}}"),
			refuses: host("connectionPool: {tcp: {connectTimeout: 0s}}"), field: hosts + "connectionPool.tcp.connectTimeout", message: "greater than 1ms",
		},
		{
			name: "pool of a version", accepts: version("connectionPool: {http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}"),
			refuses: version("connectionPool: {http: {http1MaxPendingRequests: many}}"), field: versions + "connectionPool.http.http1MaxPendingRequests", message: "must be of type integer",
		},
		{
			name: "durations that Istio does not check", accepts: host("connectionPool: {tcp: {idleTimeout: 1h}}"),
			refuses: host("connectionPool: {tcp: {idleTimeout: soon}}"), field: hosts + "connectionPool.tcp.idleTimeout", message: "must be a duration",
		},
		{
			name: "outlierDetection", accepts: version("outlierDetection: {consecutive5xxErrors: 1, interval: 1s, maxEjectionPercent: 100}"),
			refuses: version("outlierDetection: {consecutive5xxErrors: -1}"), field: versions + "outlierDetection.consecutive5xxErrors", message: "greater than or equal to 0",
		},
		{
			name: "one kind of balancing", accepts: host("loadBalancer: {simple: LEAST_REQUEST}"),
			refuses: host("loadBalancer: {simple: LUCKY}"), field: hosts + "loadBalancer.simple", message: "Unsupported value",
		},
	})
}
