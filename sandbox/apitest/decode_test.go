package apitest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"pgregory.net/rapid"
	strict "sigs.k8s.io/json"

	v1 "sluice.dev/sluice/api/v1"
)

// The objects that use every field that works.
const (
	wholeRollout = `
apiVersion: sluice.dev/v1
kind: Rollout
metadata: {name: whole}
spec:
  host: reviews
  port: {number: 9080}
  protocol: HTTP
  version: v3
  initialVersion: v1
  versions:
  - {name: v3, subset: v3, labels: {version: v3}, workload: {kind: Deployment, name: reviews-v3},
     trafficPolicy: {connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}}}
  - {name: v4, destination: {host: reviews-v4, port: {number: 9080}}, workload: {name: reviews-v4}}
  virtualServices:
  - {name: reviews, routes: [{name: primary}, {match: [{uri: {prefix: /reviews}}]}, {port: 31400}]}
  - name: edge
    gateways: [bookinfo-gateway]
    hosts: [bookinfo.example.com]
    exportTo: ["."]
    http:
    - name: api
      match: [{uri: {exact: /api}}]
      rewrite: {uri: /v1, authority: reviews, uriRegexRewrite: {match: a, rewrite: b}}
      headers: {request: {set: {a: b}, add: {c: d}, remove: [e]}, response: {remove: [server]}}
      timeout: 0.5s
      retries: {attempts: 2, perTryTimeout: 5s, retryOn: 5xx, retryRemoteLocalities: true, retryIgnorePreviousHosts: false, backoff: 1s}
      corsPolicy: {allowOrigins: [{exact: "https://a.example.com"}], allowMethods: [GET], allowHeaders: [x-a], exposeHeaders: [x-b], maxAge: 24h,
                   allowCredentials: true, unmatchedPreflights: FORWARD}
  destinationRule:
    name: reviews
    trafficPolicy:
      connectionPool:
        tcp: {maxConnections: 100, connectTimeout: 30ms, idleTimeout: 1h, maxConnectionDuration: 1m, tcpKeepalive: {probes: 9, time: 7200s, interval: 75s}}
        http: {http1MaxPendingRequests: 1, http2MaxRequests: 1000, maxRequestsPerConnection: 10, maxRetries: 3, idleTimeout: 1h,
               h2UpgradePolicy: DEFAULT, useClientProtocol: true, maxConcurrentStreams: 5, http2KeepAlive: {interval: 1s, timeout: 2s}}
      outlierDetection: {consecutive5xxErrors: 7, consecutiveGatewayErrors: 0, interval: 5m, baseEjectionTime: 15m, maxEjectionPercent: 100,
                         minHealthPercent: 0, splitExternalLocalOriginErrors: true, consecutiveLocalOriginFailures: 2}
      loadBalancer:
        consistentHash: {httpCookie: {name: user, path: /, ttl: 0s}, ringHash: {minimumRingSize: 1024}}
        localityLbSetting: {enabled: true, distribute: [{from: a/b/*, to: {a/b/*: 80, c/d/*: 20}}]}
        warmup: {duration: 100s, minimumPercent: 10.0, aggression: 1.5}
      tls: {mode: MUTUAL, clientCertificate: /etc/certs/a.pem, privateKey: /etc/certs/k.pem, caCertificates: /etc/certs/ca.pem,
            subjectAltNames: [a.example.com], sni: a.example.com, insecureSkipVerify: false}
      portLevelSettings: [{port: {number: 9080}, connectionPool: {tcp: {idleTimeout: 5s}}, loadBalancer: {simple: LEAST_REQUEST}}]
      tunnel: {protocol: CONNECT, targetHost: a.example.com, targetPort: 443}
      proxyProtocol: {version: V1}
      retryBudget: {percent: 20.0, minRetryConcurrency: 3, budgetInterval: 10s}
  steps:
  - {name: shadow, mirror: {percentage: 100, host: audit, match: [{method: {exact: GET}, headers: {end-user: {prefix: j}}, port: 9080}]}, hold: 2m, useGates: [p99]}
  - name: ratings-slow
    fault:
      host: ratings
      scope: Matched
      traffic: Canary
      match:
      - uri: {prefix: /ratings}
        method: {exact: GET}
        headers: {end-user: {regex: "j.*"}}
        withoutHeaders: {x-test: {}}
        queryParams: {q: {exact: a}}
        sourceLabels: {app: web}
        sourceNamespace: bookinfo
        gateways: [mesh]
        port: 9080
        name: blue
        ignoreUriCase: true
        authority: {exact: ratings}
        scheme: {exact: http}
        statPrefix: ratings
      delay: {percentage: {value: 100}, fixedDelay: 7s, percent: 100}
      abort: {percentage: {value: 0.5}, httpStatus: 503}
    probe: {url: "http://bookinfo.example.com/productpage", method: GET, headers: {end-user: jason}, interval: 1s,
            expectStatus: [200], maxLatency: 6s, minSuccess: "95%"}
    hold: 1m
  - {name: testers, match: [{headers: {end-user: {exact: jason}}}], gates: [{name: up, query: up, min: "1"}]}
  - {name: half, weight: 50, hold: 10m}
  gateDefaults: {window: 1m, interval: 10s, samples: 3, failures: 2, minRequests: 20, noData: Hold}
  gates:
  - {name: errors, metric: errorRate, max: "1%", window: 30s, interval: 5s, samples: 1, failures: 1, minRequests: 0, noData: Fail}
  - {name: p99, metric: latency, quantile: "0.99", max: 500ms}
  - {name: orders, query: "sum(up)", max: "0.5", min: "-1"}
  breaker: {signals: [Overflow, Ejection, RetryLimit], scope: Canary, window: 30s, maxTrips: 0, action: Rollback}
  progressDeadline: {duration: 30m, onNoEvidence: Hold}
  soak: {hold: 10m, gates: [{name: soaked, query: up, min: "1"}]}
  rollbackWindow: {revisions: 3, within: 168h}
  keepPrevious: 1h
  suspend: false
`
	wholeGitSync = `
apiVersion: sluice.dev/v1
kind: GitSync
metadata: {name: whole}
spec:
  url: https://git.example.com/team/bookinfo.git
  ref: {branch: main}
  path: deploy/prod
  interval: 1m
  secretRef: {name: git-credentials}
  serviceAccountName: bookinfo-deployer
  webhook: {provider: github, secretRef: {name: hook-secret}}
  prune: true
  suspend: false
`
)

func TestWholeObjectsAreAccepted(t *testing.T) {
	for _, whole := range []struct {
		resource schema.GroupVersionResource
		text     string
		into     any
	}{{rollouts, wholeRollout, &v1.Rollout{}}, {gitsyncs, wholeGitSync, &v1.GitSync{}}} {
		object := decode(t, whole.text)
		if err := dryRun(t, whole.resource, &unstructured.Unstructured{Object: object}); err != nil {
			t.Error(err)
		}
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		// The schema and the Go types have the same fields.
		if problems, err := strict.UnmarshalStrict(text, whole.into); err != nil || len(problems) > 0 {
			t.Errorf("%s: %v %v", whole.resource.Resource, err, problems)
		}
	}
}

// An object that the API server stores and Go can not decode would break the typed informer of all objects of its kind,
// for every tenant. So what passes the schema decodes, and what Go writes of it passes again and means the same.
func TestWhatIsStoredDecodes(t *testing.T) {
	checkStored[v1.Rollout](t, rollouts, wholeRollout)
	checkStored[v1.GitSync](t, gitsyncs, wholeGitSync)
}

func checkStored[T any](t *testing.T, resource schema.GroupVersionResource, whole string) {
	accepted := 0
	t.Run(resource.Resource, rapid.MakeCheck(func(rt *rapid.T) {
		for range 5 { // few are accepted
			object := decode(t, whole)
			object["spec"] = mutated(rt, object["spec"])
			if checkOne[T](t, rt, resource, object) {
				accepted++
			}
		}
	}))
	t.Logf("%s: %d changed objects were accepted", resource.Resource, accepted)
	if accepted == 0 {
		t.Error("nothing was tested")
	}
}

// checkOne tells whether the object was accepted, and fails the test if so and it does not survive Go.
func checkOne[T any](t *testing.T, rt *rapid.T, resource schema.GroupVersionResource, object map[string]any) bool {
	stored, err := dryRunLoosely(t, resource, object)
	if err != nil {
		return false
	}
	first, again := new(T), new(T)
	decodeInto(rt, stored, first)
	stored, err = dryRunLoosely(t, resource, encode(rt, first))
	if err != nil {
		rt.Fatalf("what Go writes is refused: %v", err)
	}
	decodeInto(rt, stored, again)
	if diff := cmp.Diff(encode(rt, first)["spec"], encode(rt, again)["spec"]); diff != "" {
		rt.Fatalf("-first +again:\n%s", diff)
	}
	return true
}

// dryRunLoosely returns the object as it would be stored; unknown fields are dropped, as kubectl's --validate=false does.
func dryRunLoosely(t *testing.T, resource schema.GroupVersionResource, object map[string]any) (map[string]any, error) {
	options := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationIgnore}
	stored, err := client.Resource(resource).Namespace(namespace).Create(t.Context(), &unstructured.Unstructured{Object: object}, options)
	if err != nil {
		return nil, err
	}
	return stored.Object, nil
}

func decodeInto(rt *rapid.T, object map[string]any, into any) {
	text, err := json.Marshal(object)
	if err != nil {
		rt.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		rt.Fatalf("the API server stores what Go can not decode: %v\n%s", err, text)
	}
}

func encode(rt *rapid.T, object any) map[string]any {
	text, err := json.Marshal(object)
	if err != nil {
		rt.Fatalf("what was decoded can not be encoded: %v", err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		rt.Fatal(err)
	}
	delete(fields, "status")
	meta := fields["metadata"].(map[string]any)
	fields["metadata"] = map[string]any{"name": meta["name"]}
	return fields
}

// mutated returns the value with one part of it replaced; each part, at any depth, is as likely as any other.
func mutated(rt *rapid.T, value any) any {
	left := rapid.IntRange(0, countParts(value)-1).Draw(rt, "part")
	return replaceAt(value, &left, func(part any) any {
		generator := replacement()
		switch part := part.(type) {
		case string:
			if _, err := fmt.Sscanf(part, "%d", new(int)); err == nil {
				generator = rapid.OneOf(durations(), generator)
			}
		case int64, float64:
			generator = rapid.OneOf(numbers(), generator)
		}
		return generator.Draw(rt, "value")
	})
}

func countParts(value any) int {
	count := 1
	switch value := value.(type) {
	case map[string]any:
		for _, field := range value {
			count += countParts(field)
		}
	case []any:
		for _, item := range value {
			count += countParts(item)
		}
	}
	return count
}

// replaceAt replaces the part before which left others stand.
func replaceAt(value any, left *int, replace func(any) any) any {
	*left--
	if *left == -1 {
		return replace(value)
	}
	switch value := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			value[key] = replaceAt(value[key], left, replace)
		}
	case []any:
		for i := range value {
			value[i] = replaceAt(value[i], left, replace)
		}
	}
	return value
}
