package environment_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/environment"
)

// tlsSecret is a Secret's manifest with a certificate for one name.
func tlsSecret(t *testing.T, name, host string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	encode := func(kind string, raw []byte) string {
		return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}))
	}
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ntype: kubernetes.io/tls\ndata: {tls.crt: %s, tls.key: %s}\n",
		name, encode("CERTIFICATE", certificate), encode("PRIVATE KEY", private))
}

// TestGatewayTLS: a Gateway ends TLS with its Secret's certificate.
func TestGatewayTLS(t *testing.T) {
	n := deploy(t, "gateway-tls", environment.Options{Gateway: true})
	if err := plane.Kube.Apply(t.Context(), "istio-system", []byte(tlsSecret(t, "shop", "shop.example.com"))); err != nil {
		t.Fatal(err)
	}
	n.apply(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: secure}
spec:
  selector: {istio: ingressgateway}
  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [shop.example.com], tls: {mode: SIMPLE, credentialName: shop}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: secure}
spec:
  hosts: [shop.example.com]
  gateways: [secure]
  http: [{route: [{destination: {host: productpage, port: {number: 9080}}}]}]
`)
	transport := &http.Transport{
		Dial:            func(network, _ string) (net.Conn, error) { return net.Dial(network, n.IngressAddress(443)) }, //nolint:staticcheck // no context is needed
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},                                                         // a certificate of the moment
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	n.eventually("a page over TLS", func() bool {
		response, err := client.Get("https://shop.example.com/productpage")
		if err != nil {
			return false
		}
		defer response.Body.Close() //nolint:errcheck // its body is of no interest
		return response.StatusCode == http.StatusOK && response.TLS.PeerCertificates[0].DNSNames[0] == "shop.example.com"
	})
	n.kubectl("delete", "gateway,virtualservice", "secure")
}

// TestEgressGateway: a Deployment may be a gateway, through which traffic
// leaves for an external host.
func TestEgressGateway(t *testing.T) {
	n := deploy(t, "egress", environment.Options{Empty: true})
	host := "api." + n.Namespace + ".example" // other namespaces see the objects too
	n.apply(strings.ReplaceAll(deployment("partner", "httpbin", "v7", `}, annotations: {sandbox.sluice.dev/hosts: api.partner.com}`, "{containerPort: 80}")+
		deployment("egress", "egress", "v1", `, gateway: `+n.Namespace+`}, annotations: {inject.istio.io/templates: gateway}`, "{containerPort: 8080}")+`---
apiVersion: v1
kind: Service
metadata: {name: egress}
spec: {selector: {app: egress}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner}
spec: {hosts: [api.partner.com], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: egress}
spec:
  selector: {gateway: `+n.Namespace+`}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [api.partner.com]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: partner}
spec:
  hosts: [api.partner.com]
  gateways: [egress, mesh]
  http:
  - match: [{gateways: [mesh], port: 80}]
    route: [{destination: {host: egress.`+n.Namespace+`.svc.cluster.local, port: {number: 80}}}]
  - match: [{gateways: [egress], port: 80}]
    route: [{destination: {host: api.partner.com, port: {number: 80}}}]
`, "api.partner.com", host))
	n.kubectl("rollout", "status", "deployment", "--timeout=20s")
	n.eventually("requests that leave through the gateway", func() bool {
		status, _ := n.get("http://" + host + "/headers")
		return status == http.StatusOK && n.query(`reporter="source",source_workload="egress",destination_service="`+host+`",response_code="200"`) > 0
	})
}
