package environment_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sluice.dev/sluice/sandbox/bookinfo"
	"sluice.dev/sluice/sandbox/environment"
)

// deployment of one pod; the rest is YAML of its template's metadata and ports.
func deployment(name, app, version, metadata, ports string) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %s}
spec:
  selector: {matchLabels: {app: %[2]s, version: %[3]s}}
  template:
    metadata: {labels: {app: %[2]s, version: %[3]s%[4]s}
    spec: {containers: [{name: app, image: example.com/app:%[3]s, ports: [%[5]s]}]}
`, name, app, version, metadata, ports)
}

// TestExternalHost: a ServiceEntry's host is served by a Deployment that stands
// for it outside the mesh, and a VirtualService may fail it.
func TestExternalHost(t *testing.T) {
	n := deploy(t, "external", environment.Options{Empty: true})
	own := func(manifests string) string { // other namespaces see these objects too
		return strings.NewReplacer("partner.com", n.Namespace+".example", "wild.com", n.Namespace+".test").Replace(manifests)
	}
	n.apply(own(deployment("partner", "httpbin", "v7", `}, annotations: {sandbox.sluice.dev/hosts: "api.partner.com,www.wild.com"}`, "{containerPort: 80}") + `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner}
spec:
  hosts: [api.partner.com]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec:
  hosts: ["*.wild.com"]
  location: MESH_EXTERNAL
  resolution: NONE
  ports: [{number: 80, name: http, protocol: HTTP}]
`))
	n.kubectl("rollout", "status", "deployment", "--timeout=20s")
	answers := func(url string, want int) func() bool {
		return func() bool { status, _ := n.get(own(url)); return status == want }
	}
	n.eventually("the external host", answers("http://api.partner.com/headers", 200))
	n.eventually("a host of the wildcard", answers("http://www.wild.com/headers", 200))
	n.eventually("its requests in Prometheus", func() bool {
		return n.query(own(`reporter="source",destination_service="api.partner.com",source_workload="client",response_code="200"`)) > 0
	})
	n.apply(own(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: partner}
spec:
  hosts: [api.partner.com]
  http:
  - timeout: 3s
    fault: {abort: {httpStatus: 403, percentage: {value: 100}}}
    route: [{destination: {host: api.partner.com, port: {number: 80}}}]
`))
	n.eventually("403", answers("http://api.partner.com/headers", 403))
	n.apply(`
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default}
spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}, egress: [{hosts: ["./*", "istio-system/*"]}]}
`)
	n.eventually("nothing outside the registry", answers("http://elsewhere.partner.com/", 502))
}

func TestGRPCApp(t *testing.T) {
	n := deploy(t, "grpc", environment.Options{Empty: true})
	n.apply(`
apiVersion: v1
kind: Service
metadata: {name: greeter}
spec: {selector: {app: greeter}, ports: [{name: grpc, port: 7070}]}
` + deployment("greeter", "greeter", "v1", "}", "{name: grpc, containerPort: 7070}"))
	n.kubectl("rollout", "status", "deployment", "--timeout=20s")
	conn, err := grpc.NewClient("passthrough:///greeter:7070", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(n.DialTCP))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // done
	n.eventually("an answer", func() bool {
		answer := &wrapperspb.StringValue{}
		return conn.Invoke(t.Context(), bookinfo.EchoMethod, wrapperspb.String("hi"), answer) == nil && answer.GetValue() == "v1 hi"
	})
	n.measured(1, `reporter="destination",request_protocol="grpc",grpc_response_status="0",destination_service_name="greeter",destination_version="v1"`)
}

// TestLocality: traffic stays in the client's zone while somebody is there.
func TestLocality(t *testing.T) {
	n := deploy(t, "locality", environment.Options{Empty: true, Locality: "region1/zone1"})
	n.apply(`
apiVersion: v1
kind: Service
metadata: {name: httpbin}
spec: {selector: {app: httpbin}, ports: [{name: http, port: 8000}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: httpbin}
spec:
  host: httpbin
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN, localityLbSetting: {enabled: true, failover: [{from: region1, to: region2}]}}
    outlierDetection: {consecutive5xxErrors: 3, interval: 1s, baseEjectionTime: 1m}
` + deployment("near", "httpbin", "v1", ", istio-locality: region1.zone1}", "{containerPort: 8000}") +
		deployment("far", "httpbin", "v2", ", istio-locality: region2.zone1}", "{containerPort: 8000}"))
	n.kubectl("rollout", "status", "deployment", "--timeout=20s")
	only := func(version string) func() bool {
		return func() bool {
			for range 10 {
				if _, body := n.get("http://httpbin:8000/headers"); !strings.Contains(body, `"version":"`+version+`"`) {
					return false
				}
			}
			return true
		}
	}
	n.eventually("only who is near", only("v1"))
	if err := n.SetReady(t.Context(), "near", false); err != nil {
		t.Fatal(err)
	}
	n.eventually("who is far, when nobody is near", only("v2"))
}

func TestRecommendationChain(t *testing.T) {
	n := deploy(t, "chain", environment.Options{Empty: true})
	for app, version := range map[string]string{"customer": "v1", "preference": "v1", "recommendation": "v2"} {
		n.apply("apiVersion: v1\nkind: Service\nmetadata: {name: " + app + "}\nspec: {selector: {app: " + app + "}, ports: [{name: http, port: 8080}]}\n" +
			deployment(app, app, version, "}", "{name: http, containerPort: 8080}"))
	}
	n.kubectl("rollout", "status", "deployment", "--timeout=20s")
	n.eventually("the whole chain", func() bool {
		status, body := n.get("http://customer:8080/")
		return status == http.StatusOK && strings.HasPrefix(body, "customer => preference => recommendation v2 from 'recommendation-")
	})
	n.Misbehave("recommendation", bookinfo.Misbehaviour{ErrorRate: 1})
	if status, body := n.get("http://customer:8080/"); status != http.StatusServiceUnavailable || !strings.HasPrefix(body, "customer => 503 preference => 500 ") {
		t.Errorf("a broken chain: %d %s", status, body)
	}
}
