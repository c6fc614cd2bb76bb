package sidecar_test

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

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3" // in listeners that tests write

	"sluice.dev/sluice/sandbox/sidecar"
)

const echoAddress = "10.0.0.5:9000"

// startEcho starts an app that answers each line with its version before it.
func (m *mesh) startEcho(version string) *sidecar.Proxy {
	m.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close() //nolint:errcheck // the test is over
				lines := bufio.NewScanner(conn)
				for lines.Scan() {
					_, _ = fmt.Fprintf(conn, "%s %s\n", version, lines.Text())
				}
			}()
		}
	}()
	return m.startProxy(sidecar.Options{
		Pod: "echo-" + version + "-0", Workload: "echo-" + version, Labels: map[string]string{"app": "echo", "version": version},
		AppPorts: []sidecar.AppPort{{Name: "tcp", Number: 9000, Application: l.Addr().String()}},
	})
}

func inboundOf(p *sidecar.Proxy, address string) string {
	host, _, _ := net.SplitHostPort(address)
	return fmt.Sprintf("%s:%d", host, p.NamedPorts()["tcp"])
}

// tcpListener is a listener of a service's address whose only filter is this
// tcp_proxy.
func (m *mesh) tcpListener(name, address string, port int, chains string) *listenerv3.Listener {
	m.t.Helper()
	return decode(m.t, &listenerv3.Listener{}, fmt.Sprintf("{name: %q, address: {socketAddress: {address: %s, portValue: %d}}, %s}", name, address, port, chains))
}

func tcpProxy(settings string) string {
	return `filters: [{name: envoy.filters.network.tcp_proxy, typedConfig:
  {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, statPrefix: x, ` + settings + `}}]`
}

// echo says a line over a connection of its own, and what came back; "" for a
// connection that was closed.
func (m *mesh) echo(address, line string) string {
	m.t.Helper()
	conn := m.dial(address)
	defer conn.Close() //nolint:errcheck // done
	return say(conn, line)
}

func (m *mesh) dial(address string) net.Conn {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), 5*time.Second)
	defer cancel()
	conn, err := m.client.DialTCP(ctx, address)
	if err != nil {
		m.t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

func say(conn net.Conn, line string) string {
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return ""
	}
	answer, _ := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(answer)
}

func (m *mesh) applyStreams(settings, cluster string, echoes map[string]string) {
	m.t.Helper()
	m.more = append(m.more[:0], m.tcpListener("10.0.0.5_9000", "10.0.0.5", 9000, "filterChains: [{"+tcpProxy(settings)+"}]"))
	hosts := map[string][]string{}
	for version, address := range echoes {
		hosts[version] = []string{address}
	}
	m.apply(config{routes: toCluster(v1, ""), cluster: cluster, hosts: hosts})
}

func weights(a, b int) string {
	return fmt.Sprintf("weightedClusters: {clusters: [{name: %q, weight: %d}, {name: %q, weight: %d}]}", v1, a, v3, b)
}

func TestTCPWeightsAndMetrics(t *testing.T) {
	m := newMesh(t)
	one, three := m.startEcho("v1"), m.startEcho("v3")
	echoes := map[string]string{"v1": inboundOf(one, one.Metrics()), "v3": inboundOf(three, three.Metrics())}
	m.applyStreams(weights(80, 20), "", echoes)
	counts := map[string]int{}
	for range 400 {
		counts[m.echo(echoAddress, "hello")]++
	}
	n := counts["v3 hello"]
	if n < 40 || n > 130 || counts["v1 hello"]+n != 400 { // more than 4 standard deviations
		t.Errorf("answers %v, want v3 for about 80 of 400", counts)
	}
	labels := []string{"destination_version=v3", "destination_workload=echo-v3", "source_workload=client", "request_protocol=tcp", "response_flags=-"}
	for reporter, p := range map[string]*sidecar.Proxy{"source": m.client, "destination": three} {
		labels := append([]string{"reporter=" + reporter}, labels...)
		m.counted(p, "istio_tcp_connections_opened_total", float64(n), labels...)
		m.counted(p, "istio_tcp_connections_closed_total", float64(n), labels...)
		m.counted(p, "istio_tcp_received_bytes_total", float64(n*len("hello\n")), labels...)
		m.counted(p, "istio_tcp_sent_bytes_total", float64(n*len("v3 hello\n")), labels...)
	}
	m.counted(m.client, "istio_tcp_connections_opened_total", float64(n), "destination_service=reviews.bookinfo.svc.cluster.local", "destination_version=v3")

	open := m.dial(echoAddress) // a connection stays where it is
	defer open.Close()          //nolint:errcheck // done
	was := say(open, "a")
	m.applyStreams(weights(0, 100), "", echoes)
	if got := m.echo(echoAddress, "x"); got != "v3 x" {
		t.Errorf("after the shift: %q", got)
	}
	if got := say(open, "a"); got != was {
		t.Errorf("an open connection said %q, and %q after the shift", was, got)
	}
}

func TestTCPConnectionLimit(t *testing.T) {
	m := newMesh(t)
	one := m.startEcho("v1")
	m.applyStreams("cluster: \""+v1+"\"", "{circuitBreakers: {thresholds: [{maxConnections: 1}]}}", map[string]string{"v1": inboundOf(one, one.Metrics())})
	first := m.dial(echoAddress)
	if got := say(first, "a"); got != "v1 a" {
		t.Fatalf("first connection: %q", got)
	}
	if got := m.echo(echoAddress, "b"); got != "" {
		t.Errorf("second connection: %q, want it closed", got)
	}
	m.counted(m.client, "istio_tcp_connections_closed_total", 1, "response_flags=UO", "destination_workload=unknown")
	m.counted(m.client, "envoy_cluster_upstream_cx_overflow", 1, "cluster_name="+v1)
	m.counted(m.client, "envoy_cluster_upstream_rq_pending_overflow", 0, "cluster_name="+v1)
	_ = first.Close()
	m.eventually("the place to be free again", func() bool { return m.echo(echoAddress, "c") == "v1 c" })
}

func TestTCPNobodyThere(t *testing.T) {
	m := newMesh(t)
	m.applyStreams("cluster: \""+v1+"\"", "", map[string]string{"v1": closedPort(t)})
	if got := m.echo(echoAddress, "a"); got != "" {
		t.Errorf("nobody listens: %q", got)
	}
	m.counted(m.client, "istio_tcp_connections_closed_total", 1, "response_flags=UF,URX", "destination_workload=reviews-v1")
	m.more = nil
	m.applyStreams("cluster: outbound|1||gone", "", nil)
	if got := m.echo(echoAddress, "a"); got != "" {
		t.Errorf("no cluster: %q", got)
	}
	m.counted(m.client, "istio_tcp_connections_closed_total", 1, "response_flags=NC")
}

// TestTCPHalfClose: what a client still waits for after it has ended its own
// half arrives.
func TestTCPHalfClose(t *testing.T) {
	m := newMesh(t)
	one := m.startEcho("v1")
	m.applyStreams("cluster: \""+v1+"\"", "", map[string]string{"v1": inboundOf(one, one.Metrics())})
	conn := m.dial(echoAddress)
	defer conn.Close() //nolint:errcheck // done
	if _, err := io.WriteString(conn, "a\nb\n"); err != nil {
		t.Fatal(err)
	}
	if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || string(answer) != "v1 a\nv1 b\n" {
		t.Errorf("after half of the connection was closed: %q %v", answer, err)
	}
}

// helloTo begins TLS with a server name and gives the version of the echo that
// answers it, in its own way; "" where the connection is closed.
func helloTo(conn net.Conn, name string) string {
	defer conn.Close() //nolint:errcheck // done
	recorded := &recordingConn{Conn: conn}
	_ = tls.Client(recorded, &tls.Config{ServerName: name}).HandshakeContext(context.Background()) // it fails: the echo speaks no TLS
	version, _, _ := strings.Cut(recorded.received.String(), " ")
	return version
}

// recordingConn ends the hello with a line's end, and keeps what comes back.
type recordingConn struct {
	net.Conn
	received strings.Builder
}

func (c *recordingConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	_, _ = c.Conn.Write([]byte("\n"))
	return n, err
}

func (c *recordingConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.received.Write(b[:n])
	return n, err
}
