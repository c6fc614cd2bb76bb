package capabilities

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"sluice.dev/sluice/sandbox/sidecar"
)

// dump is istiod's configuration for a proxy, decoded.
type dump struct{ content any }

// named gives, as JSON, every object of the dump with this name.
func (d dump) named(name string) (found []string) {
	d.walk(d.content, func(object map[string]any) {
		if object["name"] == name {
			encoded, _ := json.Marshal(object) // was just decoded
			found = append(found, string(encoded))
		}
	})
	return found
}

// clusters are the names of all clusters, sorted.
func (d dump) clusters() (names []string) {
	d.walk(d.content, func(object map[string]any) {
		kind, _ := object["@type"].(string)
		if name, ok := object["name"].(string); ok && strings.HasSuffix(kind, "cluster.v3.Cluster") {
			names = append(names, name)
		}
	})
	slices.Sort(names)
	return names
}

func (d dump) walk(value any, visit func(map[string]any)) {
	switch value := value.(type) {
	case map[string]any:
		visit(value)
		for _, below := range value {
			d.walk(below, visit)
		}
	case []any:
		for _, below := range value {
			d.walk(below, visit)
		}
	}
}

// waitConfig waits until what istiod has for a proxy is as wanted; wrong says what is not.
func (s *stage) waitConfig(t *testing.T, proxy, what string, wrong func(dump) string) {
	t.Helper()
	s.eventually(t, fmt.Sprintf("istiod has for %s: %s", proxy, what), func() (bool, string) {
		var d dump
		if err := json.Unmarshal([]byte(s.configOf(t, proxy)), &d.content); err != nil {
			return false, err.Error()
		}
		problem := wrong(d)
		return problem == "", problem
	})
}

// lacks says which of the texts stand in no object of that name.
func (d dump) lacks(name string, texts ...string) string {
	found := strings.Join(d.named(name), "\n")
	if found == "" {
		return "nothing is called " + name
	}
	for _, text := range texts {
		if !strings.Contains(found, text) {
			return fmt.Sprintf("%s lacks %s: %.2000s", name, text, found)
		}
	}
	return ""
}

// proxiesOf are how istiod names the pods of an app.
func (s *stage) proxiesOf(t *testing.T, app string) (proxies []string) {
	t.Helper()
	var list networking.WorkloadEntryList
	if err := s.cluster.Client.List(t.Context(), &list, client.InNamespace(s.Namespace), client.MatchingLabels{"app": app}); err != nil {
		t.Fatal(err)
	}
	for _, entry := range list.Items {
		proxies = append(proxies, entry.Name+"."+entry.Namespace)
	}
	if len(proxies) == 0 {
		t.Fatalf("app %s has no pod", app)
	}
	return proxies
}

// release takes reviews from v1 to v3 under load, checks what istiod has before, at half and after it, and that no request failed.
func (s *stage) release(t *testing.T, check func(t *testing.T), headers ...string) {
	t.Helper()
	s.waitServed(t, "v1", reviewsURL, headers...)
	users := s.load(t, 80, reviewsURL, headers...)
	check(t)
	s.pushVersion(t, "rollout.yaml", "v3")
	s.stayIn(t, "reviews", "half")
	check(t)
	s.waitSplit(t, map[string]float64{"v1": 0.5, "v3": 0.5}, reviewsURL, headers...)
	s.goOn(t, "reviews")
	s.waitHealthy(t, "reviews", "v3")
	s.waitServed(t, "v3", reviewsURL, headers...)
	check(t)
	if seen := users.Stop(); seen.Failed > 0 || seen.Total == 0 {
		t.Errorf("%d of %d requests failed: %v", seen.Failed, seen.Total, seen.LastError)
	}
}

// Test21EgressAndScope: the calls of the one host outside lead to the egress gateway and from there out, nothing unknown is let out,
// and the proxies know no other namespace, while a run adds subsets.
func Test21EgressAndScope(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "21-egress", apps: []string{"bookinfo.yaml"}, configuration: true})
	gateway, err := sidecar.Start(t.Context(), sidecar.Options{
		Discovery: s.cluster.DiscoveryAddress, Kind: sidecar.Router, Pod: "egressgateway-0", Namespace: s.Namespace, Workload: "egressgateway",
		Labels: map[string]string{"istio": "egressgateway"}, Address: s.cluster.NewPodAddress(), Ports: []uint32{80},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gateway.Close)
	ours := "." + s.Namespace + ".svc.cluster.local"
	s.release(t, func(t *testing.T) {
		t.Helper()
		s.waitConfig(t, s.ClientProxyID(), "the way to the gateway, and no way past it", func(d dump) string {
			for _, name := range d.clusters() {
				if host := name[strings.LastIndex(name, "|")+1:]; strings.HasSuffix(host, ".svc.cluster.local") && !strings.HasSuffix(host, ours) && !strings.HasSuffix(host, ".istio-system.svc.cluster.local") {
					return "it knows " + name
				}
			}
			if !slices.Contains(d.clusters(), "outbound|9080|v1|reviews"+ours) && !slices.Contains(d.clusters(), "outbound|9080|v3|reviews"+ours) {
				return fmt.Sprintf("it knows no version of reviews: %v", d.clusters())
			}
			if problem := d.lacks("news.example.com:80", "outbound|80||egressgateway"+ours); problem != "" {
				return problem
			}
			return d.lacks("block_all", `"status":502`)
		})
		s.waitConfig(t, "egressgateway-0."+s.Namespace, "the way out", func(d dump) string {
			return d.lacks("news.example.com:80", "outbound|80||news.example.com")
		})
	})
}

// Test22Authorization: the pods of both versions get the filters that check tokens, roles and sources.
func Test22Authorization(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "22-authorization", apps: []string{"bookinfo.yaml"}, configuration: true})
	bearer := func(name string) string {
		return "Authorization: Bearer " + strings.TrimSpace(s.read(t, "22-authorization/"+name))
	}
	for who, header := range map[string]string{"a visitor": bearer("visitor.jwt"), "someone without a token": "X-None: none"} {
		s.eventually(t, "a refusal of "+who, func() (bool, string) {
			a := s.get(t, reviewsURL, header)
			return a.status == http.StatusForbidden, fmt.Sprint(a.status)
		})
	}
	s.release(t, func(t *testing.T) {
		t.Helper()
		for _, proxy := range s.proxiesOf(t, "reviews") {
			s.waitConfig(t, proxy, "tokens, roles and the deny-list", func(d dump) string {
				if problem := d.lacks("envoy.filters.http.jwt_authn", "https://login.example.com"); problem != "" {
					return problem
				}
				return d.lacks("envoy.filters.http.rbac", "policy[reviews-customers]", "customer", "policy[reviews-blocked]", "203.0.113.0", `"DENY"`)
			})
		}
		for _, proxy := range s.proxiesOf(t, "ratings") {
			s.waitConfig(t, proxy, "the allow-list", func(d dump) string {
				return d.lacks("envoy.filters.http.rbac", "policy[ratings-inside]", "10.0.0.0", "127.0.0.0")
			})
		}
	}, bearer("customer.jwt"))
}

// Test23MutualTLS: callers begin mutual TLS towards every subset, that which Sluice added too.
func Test23MutualTLS(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "23-mtls", apps: []string{"bookinfo.yaml"}, configuration: true})
	cluster := func(version string) string {
		return "outbound|9080|" + version + "|reviews." + s.Namespace + ".svc.cluster.local"
	}
	versions := []string{"v1"}
	s.release(t, func(t *testing.T) {
		t.Helper()
		if s.rollouts(t)[0].Spec.Version == "v3" {
			versions = []string{"v1", "v3"}
		}
		s.waitConfig(t, s.ClientProxyID(), fmt.Sprintf("mutual TLS towards %v", versions), func(d dump) string {
			for _, version := range versions {
				if problem := d.lacks(cluster(version), "envoy.transport_sockets.tls", "UpstreamTlsContext", "tlsCertificateSdsSecretConfigs"); problem != "" {
					return problem
				}
			}
			return ""
		})
	})
}

// Test26RateLimit: the pods of both versions get the filter.
func Test26RateLimit(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "26-rate-limit", apps: []string{"bookinfo.yaml"}, configuration: true})
	s.release(t, func(t *testing.T) {
		t.Helper()
		for _, proxy := range s.proxiesOf(t, "reviews") {
			s.waitConfig(t, proxy, "the limit", func(d dump) string {
				return d.lacks("envoy.filters.http.local_ratelimit", "reviews_rate_limit", "1000")
			})
		}
	})
}
