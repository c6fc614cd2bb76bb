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

// onEgress: the calls of the one host outside lead to the egress gateway and from there out, nothing unknown is let out, and the
// proxies know no other namespace, while a run adds subsets.
func onEgress(t *testing.T, s *stage, at string) {
	t.Helper()
	if at == atRest {
		s.startEgressGateway(t)
	}
	ours := "." + s.Namespace + ".svc.cluster.local"
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
}

func (s *stage) startEgressGateway(t *testing.T) {
	t.Helper()
	gateway, err := sidecar.Start(t.Context(), sidecar.Options{
		Discovery: s.cluster.DiscoveryAddress, Kind: sidecar.Router, Pod: "egressgateway-0", Namespace: s.Namespace, Workload: "egressgateway",
		Labels: map[string]string{"istio": "egressgateway"}, Address: s.cluster.NewPodAddress(), Ports: []uint32{80},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gateway.Close)
}

// bearer is the header with the token in a file of examples/.
func (s *stage) bearer(t *testing.T, file string) string {
	t.Helper()
	return "Authorization: Bearer " + strings.TrimSpace(s.read(t, file))
}

// onPolicies: who is no customer is refused, and the pods of all versions have the filters that check tokens, roles and sources.
func onPolicies(t *testing.T, s *stage, _ string) {
	t.Helper()
	for who, header := range map[string]string{"a visitor": s.bearer(t, "22-authorization/visitor.jwt"), "someone without a token": "X-None: none"} {
		s.eventually(t, "a refusal of "+who, func() (bool, string) {
			seen := s.visit(t, 10, reviewsURL, header)
			return seen.statuses[http.StatusForbidden] == 10, seen.String()
		})
	}
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
}

// onMutualTLS: callers begin mutual TLS towards every subset, that which Sluice added too.
func onMutualTLS(t *testing.T, s *stage, at string) {
	t.Helper()
	versions := []string{"v1"}
	if at != atRest && at != returned {
		versions = append(versions, "v3")
	}
	s.waitConfig(t, s.ClientProxyID(), fmt.Sprintf("mutual TLS towards %v", versions), func(d dump) string {
		for _, version := range versions {
			cluster := "outbound|9080|" + version + "|reviews." + s.Namespace + ".svc.cluster.local"
			if problem := d.lacks(cluster, "envoy.transport_sockets.tls", "UpstreamTlsContext", "tlsCertificateSdsSecretConfigs"); problem != "" {
				return problem
			}
		}
		return ""
	})
}

// onRateLimit: the pods of all versions have the filter.
func onRateLimit(t *testing.T, s *stage, _ string) {
	t.Helper()
	for _, proxy := range s.proxiesOf(t, "reviews") {
		s.waitConfig(t, proxy, "the limit", func(d dump) string {
			return d.lacks("envoy.filters.http.local_ratelimit", "reviews_rate_limit", "1000")
		})
	}
}
