package capabilities

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

const partner = "http://api.partner.com/headers"

// onPartner: versions of an external host are hosts of their own, each asked by its name; the route's timeout holds, and a tester is
// refused in the step that says so.
func onPartner(t *testing.T, s *stage, at string) {
	t.Helper()
	const tester = "x-user: tester"
	switch at {
	case "forbidden":
		s.eventually(t, "the tester is refused", func() (bool, string) {
			seen := s.visit(t, 5, partner, tester)
			return seen.statuses[http.StatusForbidden] == 5, seen.String()
		})
		s.waitServed(t, "v1", partner)
	case "half":
		s.asked(t, "api.partner.com", partner)
		s.asked(t, "api-v2.partner.com", partner)
	case promoted:
		s.waitServed(t, "v2", partner, tester)
		s.asked(t, "api-v2.partner.com", partner)
		s.timesOut(t, "http://api.partner.com/delay/5")
	case atRest:
		s.asked(t, "api.partner.com", partner)
		s.timesOut(t, "http://api.partner.com/delay/5")
	case returned:
		s.waitServed(t, "v1", partner, tester)
		s.asked(t, "api.partner.com", partner)
	}
}

// asked waits until some answer tells that its server was asked for a host.
func (s *stage) asked(t *testing.T, host, target string) {
	t.Helper()
	s.eventually(t, "a server is asked for "+host, func() (bool, string) {
		var got struct{ Headers map[string]string }
		for range 20 {
			a := s.get(t, target)
			if err := json.Unmarshal([]byte(a.body), &got); err != nil {
				return false, a.body
			}
			if strings.TrimSuffix(got.Headers["Host"], ":80") == host {
				return true, ""
			}
		}
		return false, got.Headers["Host"]
	})
}

// timesOut waits until the route gives up after 3 s.
func (s *stage) timesOut(t *testing.T, target string) {
	t.Helper()
	s.eventually(t, target+" times out", func() (bool, string) {
		a := s.get(t, target)
		return a.status == http.StatusGatewayTimeout && a.took >= 3*time.Second, fmt.Sprintf("%d after %s", a.status, a.took)
	})
}

// Test25Hosts: Services by their full names, a gateway's wildcard, versions with dots, and a host that only a ServiceEntry knows.
func Test25Hosts(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "25-hosts", apps: []string{"partner.yaml"}, gateway: true})
	const (
		inside, atEdge = "http://library:8000/get", "http://main.library.example.com/get"
		archive        = "http://archive.books.example/get"
		catalog        = "http://catalog:8000/get"
	)
	s.waitServed(t, "1.4.1", inside)
	s.gateway.waitServed(t, "1.4.1", atEdge)
	s.waitServed(t, "v1", archive)
	s.waitServed(t, "v1", catalog)
	for _, target := range []string{inside, archive, catalog} {
		s.load(t, 60, target)
	}
	s.pushVersion(t, "rollout.yaml", "1.4.2")
	s.stayIn(t, "library", "half")
	s.waitSplit(t, map[string]float64{"1.4.1": 0.5, "1.4.2": 0.5}, inside)
	s.gateway.waitSplit(t, map[string]float64{"1.4.1": 0.5, "1.4.2": 0.5}, atEdge)
	s.waitServed(t, "v1", archive)
	s.goOn(t, "library")
	s.waitHealthy(t, "library", "1.4.2")
	s.waitServed(t, "1.4.2", inside)
	s.gateway.waitServed(t, "1.4.2", atEdge)
	s.pushVersion(t, "archive.yaml", "v2")
	s.stayIn(t, "archive", "half")
	s.waitSplit(t, map[string]float64{"v1": 0.5, "v2": 0.5}, archive)
	s.goOn(t, "archive")
	s.waitHealthy(t, "archive", "v2")
	s.waitServed(t, "v2", archive)
	s.pushVersion(t, "catalog-rollout.yaml", "v2") // its first gate passes on what was mirrored
	s.stayIn(t, "catalog", "half")
	s.waitSplit(t, map[string]float64{"v1": 0.5, "v2": 0.5}, catalog)
	s.goOn(t, "catalog")
	s.waitHealthy(t, "catalog", "v2")
	s.waitServed(t, "v2", catalog)
	for _, name := range []string{"library", "library-edge"} {
		if spec := s.spec(t, "VirtualService", name); !strings.Contains(spec, `"library.`+s.Namespace+`.svc.cluster.local"`) || strings.Contains(spec, `"library"`) {
			t.Errorf("VirtualService %s spells its host anew:\n%s", name, spec)
		}
	}
}
