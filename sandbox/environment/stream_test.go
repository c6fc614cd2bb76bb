package environment_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/environment"
)

// tcpEcho is the sample's app: a Service whose targetPorts are numbers, as most
// people write them, and two versions.
const tcpEcho = `
apiVersion: v1
kind: Service
metadata: {name: tcp-echo, labels: {app: tcp-echo}}
spec:
  selector: {app: tcp-echo}
  ports: [{name: tcp, port: 9000}, {name: tcp-other, port: 9001}, {name: tls, port: 9443, targetPort: tls}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: tcp-echo}
spec: {host: tcp-echo, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
`

func tcpEchoVersion(version string) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: tcp-echo-%[1]s}
spec:
  selector: {matchLabels: {app: tcp-echo, version: %[1]s}}
  template:
    metadata: {labels: {app: tcp-echo, version: %[1]s}}
    spec:
      containers:
      - {name: tcp-echo, image: docker.io/istio/tcp-echo-server:1.3, ports: [{containerPort: 9000}, {containerPort: 9001}, {name: tls, containerPort: 9443}]}
`, version)
}

// say sends a line over a connection and gives the answer; "" for none.
func say(conn net.Conn, line string) string {
	defer conn.Close()                                     //nolint:errcheck // done
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // of a connection that is there
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return ""
	}
	answer, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(answer)
}

func (n *namespace) dial(address string) net.Conn {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 5*time.Second)
	defer cancel()
	conn, err := n.DialTCP(ctx, address)
	if err != nil {
		n.t.Fatal(err)
	}
	return conn
}

func (n *namespace) deployTCPEcho() {
	n.t.Helper()
	n.apply(tcpEcho + tcpEchoVersion("v1") + tcpEchoVersion("v2"))
	n.kubectl("rollout", "status", "deployment", "--timeout=20s")
}

func tcpRoutes(gateway string, one, two int) string {
	return fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp-echo}
spec:
  hosts: [%s]
  tcp:
  - match: [{port: %s}]
    route:
    - {destination: {host: tcp-echo, port: {number: 9000}, subset: v1}, weight: %d}
    - {destination: {host: tcp-echo, port: {number: 9000}, subset: v2}, weight: %d}
`, map[bool]string{true: "tcp-echo", false: "\"*\"]\n  gateways: [" + gateway}[gateway == ""],
		map[bool]string{true: "9000", false: "31400"}[gateway == ""], one, two)
}

func TestTCPShift(t *testing.T) {
	n := deploy(t, "tcp", environment.Options{Empty: true})
	n.deployTCPEcho()
	n.apply(tcpRoutes("", 100, 0))
	only := func(want string) func() bool {
		return func() bool {
			for range 10 {
				if say(n.dial("tcp-echo:9000"), "world") != want {
					return false
				}
			}
			return true
		}
	}
	n.eventually("only v1", only("one world"))
	n.apply(tcpRoutes("", 80, 20))
	n.eventually("some of v2", func() bool { return say(n.dial("tcp-echo:9000"), "world") == "two world" })
	counts := map[string]int{}
	for range 200 {
		counts[say(n.dial("tcp-echo."+n.Namespace+".svc.cluster.local:9000"), "world")]++
	}
	if two := counts["two world"]; two < 15 || two > 70 || counts["one world"]+two != 200 {
		t.Errorf("80/20 gave %v", counts)
	}
	n.eventually("connections in Prometheus, by version, from both sides", func() bool {
		return n.queryMetric("istio_tcp_connections_opened_total", `reporter="source",destination_version="v2",destination_service_name="tcp-echo"`) >= float64(counts["two world"]) &&
			n.queryMetric("istio_tcp_connections_closed_total", `reporter="destination",destination_version="v2",destination_service_name="tcp-echo",source_workload="client"`) >= float64(counts["two world"])
	})
	if got := say(n.dial("tcp-echo:9001"), "other"); got != "one other" && got != "two other" {
		t.Errorf("the other port: %q", got)
	}
	n.apply(tcpRoutes("", 0, 100))
	n.eventually("only v2", only("two world"))
}

func TestTCPGateway(t *testing.T) {
	n := deploy(t, "tcp-gateway", environment.Options{Empty: true, Gateway: true})
	n.deployTCPEcho()
	n.apply(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: tcp-echo}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 31400, name: tcp, protocol: TCP}, hosts: ["*"]}]
` + tcpRoutes("tcp-echo", 0, 100))
	n.eventually("v2 through the gateway", func() bool {
		conn, err := net.Dial("tcp", n.IngressAddress(31400))
		return err == nil && say(conn, "world") == "two world"
	})
	n.kubectl("delete", "gateway,virtualservice", "tcp-echo")
}

func TestTLSByServerName(t *testing.T) {
	n := deploy(t, "tls", environment.Options{Empty: true})
	n.deployTCPEcho()
	n.apply(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp-echo}
spec:
  hosts: [tcp-echo]
  tls:
  - {match: [{port: 9443, sniHosts: [tcp-echo]}], route: [{destination: {host: tcp-echo, port: {number: 9443}, subset: v2}}]}
`)
	n.eventually("v2 by server name", func() bool {
		conn := tls.Client(n.dial("tcp-echo:9443"), &tls.Config{ServerName: "tcp-echo", InsecureSkipVerify: true})
		return say(conn, "world") == "two world"
	})
}
