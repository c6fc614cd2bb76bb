package capabilities

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

const gatewayPage = "http://bookinfo.example.com/productpage"

// Test17Gateway: the paths of the page and no others are open at the gateway, and a run splits there as it does in the mesh.
func Test17Gateway(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "17-gateway", apps: []string{"bookinfo.yaml"}, gateway: true})
	const inMesh = "http://productpage:9080/productpage"
	s.gateway.waitServed(t, "v1", gatewayPage)
	s.waitServed(t, "v1", inMesh)
	for _, path := range []string{"/static/book.css", "/login", "/logout", "/api/v1/products/0"} {
		if a := s.atGateway(t, "http://bookinfo.example.com"+path); a.version != "v1" {
			t.Errorf("%s got %d of version %q, want productpage's answer", path, a.status, a.version)
		}
	}
	for _, other := range []string{"http://bookinfo.example.com/", "http://bookinfo.example.com/productpages", "http://other.example.com/productpage"} {
		if a := s.atGateway(t, other); a.status != http.StatusNotFound || a.version != "" {
			t.Errorf("%s got %d of version %q, want the gateway's 404", other, a.status, a.version)
		}
	}
	s.gateway.load(t, 40, gatewayPage)
	s.gateway.load(t, 20, gatewayPage, "end-user: jason")
	s.pushVersion(t, "rollout.yaml", "v2")
	s.stayIn(t, "productpage", "testers")
	for _, at := range []struct {
		visitor
		page string
	}{{s.gateway, gatewayPage}, {s.visitor, inMesh}} {
		at.waitServed(t, "v2", at.page, "end-user: jason")
		at.waitServed(t, "v1", at.page)
	}
	s.goOn(t, "productpage")
	s.stayIn(t, "productpage", "half")
	half := map[string]float64{"v1": 0.5, "v2": 0.5}
	s.gateway.waitSplit(t, half, gatewayPage)
	s.waitSplit(t, half, inMesh)
	s.goOn(t, "productpage")
	s.waitHealthy(t, "productpage", "v2")
	s.gateway.waitServed(t, "v2", gatewayPage)
	s.waitServed(t, "v2", inMesh)

	s.pushEdit(t, "rollout.yaml", "exact: /login", "exact: /signin") // at rest it is there at once
	s.eventually(t, "/signin instead of /login", func() (bool, string) {
		now, before := s.atGateway(t, "http://bookinfo.example.com/signin"), s.atGateway(t, "http://bookinfo.example.com/login")
		return now.version == "v2" && before.status == http.StatusNotFound, fmt.Sprintf("%d and %d", now.status, before.status)
	})
	checkOtherPorts(t, s)
}

// checkOtherPorts: what ports.yaml binds is there, at the TLS port by the name that clients ask for.
func checkOtherPorts(t *testing.T, s *stage) {
	t.Helper()
	s.eventually(t, "details at port 31400", func() (bool, string) {
		plain := visitor{client: http.DefaultClient}
		a, err := plain.try(t.Context(), "http://"+s.IngressAddress(31400)+"/details/0")
		return err == nil && a.status == http.StatusOK && strings.Contains(a.body, "paperback"), fmt.Sprint(a.status, err)
	})
	const secured = "https://httpbin.example.com/headers"
	at443 := s.atPort(443)
	s.eventually(t, "httpbin at port 443, by its name", func() (bool, string) {
		a, err := at443.asking("httpbin.example.com").try(t.Context(), secured)
		return err == nil && a.status == http.StatusOK && a.version == "v1" && strings.Contains(a.body, "httpbin.example.com"), fmt.Sprint(a.status, err)
	})
	if a, err := at443.asking("details.example.com").try(t.Context(), secured); err == nil {
		t.Errorf("who asks for another name at port 443 was answered %d by %s", a.status, a.version)
	}
	if a, err := (visitor{client: http.DefaultClient}).try(t.Context(), "http://"+s.IngressAddress(443)+"/headers"); err == nil {
		t.Errorf("who speaks no TLS at port 443 was answered %d by %s", a.status, a.version)
	}
}
