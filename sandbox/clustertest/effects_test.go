package clustertest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Test21Egress: a call of the one host outside leaves by the egress gateway and no other way, what is in no registry and what another
// namespace has is not reached, and a run goes on within that scope.
func Test21Egress(t *testing.T) {
	s := newStage(t, "21-egress", "testdata/egressgateway.yaml")
	neighbour := s.namespace + "-neighbour"
	s.kubectl(t, "create", "namespace", neighbour)
	t.Cleanup(func() { (&stage{namespace: neighbour}).close(t) })
	s.kubectl(t, "create", "service", "clusterip", "neighbour", "--tcp=80:80", "--namespace="+neighbour)
	look := func() {
		s.waitAnswers(t, "client", "502", "http://unknown.example.org/")
		s.waitAnswers(t, "client", "502", "http://neighbour."+neighbour+"/") // in scope it were 503: it has no endpoint
	}
	look()
	s.release(t, look)
	s.ask(t, "client", 10, "http://news.example.com/") // whatever that answers
	eventually(t, "the gateway alone calls news.example.com", func() (bool, string) {
		calls := s.query(t, "source_workload", `sum by (source_workload) (istio_requests_total{reporter="source",source_workload_namespace="$NS",destination_service="news.example.com"})`)
		return len(calls) == 1 && calls["egressgateway"] > 0, fmt.Sprint(calls)
	})
}

// Test22Authorization: a customer is served by both versions, a visitor and someone without a token by none.
func Test22Authorization(t *testing.T) {
	s := newStage(t, "22-authorization")
	customer, visitor := token(t, "customer.jwt"), token(t, "visitor.jwt")
	look := func() {
		s.waitAnswers(t, "client", "200", reviews, customer)
		s.waitAnswers(t, "client", "403", reviews, visitor)
		s.waitAnswers(t, "client", "403", reviews)
		s.waitAnswers(t, "client", "401", reviews, customer+"x") // its signature is wrong
	}
	look()
	s.release(t, look, customer)
}

// token is the header with the token in a file of example 22.
func token(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(world.root, "examples", "22-authorization", file))
	if err != nil {
		t.Fatal(err)
	}
	return "Authorization: Bearer " + strings.TrimSpace(string(content))
}

// Test23MutualTLS: where nobody without a certificate is let in, the versions' pods get calls with one alone, the subset's that
// Sluice added too.
func Test23MutualTLS(t *testing.T) {
	s := newStage(t, "23-mtls")
	s.kubectl(t, "apply", "-f", "testdata/strict.yaml")
	look := func() {
		s.waitAnswers(t, "client", "200", reviews)
		s.waitAnswers(t, "outsider", "000", reviews)
	}
	look()
	s.release(t, look)
	eventually(t, "reviews got calls by mutual TLS alone", func() (bool, string) {
		const of = `istio_requests_total{reporter="destination",destination_workload_namespace="$NS",destination_app="reviews",source_workload="client"}`
		secured := s.query(t, "destination_version", strings.Replace("sum by (destination_version) ("+of+")", `",source`, `",connection_security_policy="mutual_tls",source`, 1))
		policies := s.query(t, "connection_security_policy", "sum by (connection_security_policy) ("+of+")")
		return secured["v1"] > 0 && secured["v3"] > 0 && len(policies) == 1, fmt.Sprint(secured, policies)
	})
}

// Test26RateLimit: the filter that Git brought limits the version that a run brought.
func Test26RateLimit(t *testing.T) {
	s := newStage(t, "26-rate-limit")
	s.release(t, func() { s.waitAnswers(t, "client", "200", reviews) })
	s.pushEdit(t, "filter.yaml", "1000", "2")
	eventually(t, "v3 answers 429 to who asks too often, and 200 at times", func() (bool, string) {
		answers := s.ask(t, "client", 40, reviews)
		return answers.statuses["429"] > 0 && answers.statuses["200"] > 0 && answers.statuses["429"]+answers.statuses["200"] == 40, answers.String()
	})
}
