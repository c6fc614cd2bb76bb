package capabilities

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	v1 "sluice.dev/sluice/api/v1"
)

const jasonHeader = "end-user: jason"

// waitTakes waits until an answer of 200 takes at least so long, and less than two seconds more: what the faults here differ by.
func (s *stage) waitTakes(t *testing.T, least time.Duration, target string, headers ...string) answer {
	t.Helper()
	var a answer
	s.eventually(t, fmt.Sprintf("%s %q takes %s", target, headers, least), func() (bool, string) {
		a = s.get(t, target, headers...)
		return a.status == http.StatusOK && a.took >= least && a.took < least+2*time.Second, fmt.Sprintf("%d after %s", a.status, a.took)
	})
	return a
}

// waitQuick waits until an answer of 200 comes without any of the faults' delays.
func (s *stage) waitQuick(t *testing.T, target string, headers ...string) answer {
	t.Helper()
	var a answer
	s.eventually(t, fmt.Sprintf("%s %q is quick", target, headers), func() (bool, string) {
		a = s.get(t, target, headers...)
		return a.status == http.StatusOK && a.took < 1500*time.Millisecond, fmt.Sprintf("%d after %s", a.status, a.took)
	})
	return a
}

// waitStatus waits until a version, empty for a fault, answers with a status.
func (s *stage) waitStatus(t *testing.T, status int, target string, headers ...string) answer {
	t.Helper()
	var a answer
	s.eventually(t, fmt.Sprintf("%s %q answers %d", target, headers, status), func() (bool, string) {
		a = s.get(t, target, headers...)
		return a.status == status, fmt.Sprintf("%d from %q", a.status, a.version)
	})
	return a
}

// waitGone waits until there is no VirtualService of a name.
func (s *stage) waitGone(t *testing.T, name string) {
	t.Helper()
	s.eventually(t, "VirtualService "+name+" is gone", func() (bool, string) {
		err := s.cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: s.Namespace, Name: name}, &networking.VirtualService{})
		return apierrors.IsNotFound(err), fmt.Sprint(err)
	})
}

// Test07FaultDelay: each delay hits whom it is for, on a dependency and on the host itself, and goes with its step.
func Test07FaultDelay(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "07-fault-delay", apps: []string{"bookinfo.yaml"}})
	s.pushVersion(t, "rollout.yaml", "v2")
	s.stayIn(t, "reviews", "jason-7s")
	if a := s.waitTakes(t, 7*time.Second, reviewsURL, jasonHeader); a.version != "v2" {
		t.Errorf("jason was answered by %s, want v2", a.version)
	}
	if a := s.waitQuick(t, reviewsURL); a.version != "v1" {
		t.Errorf("all others were answered by %s, want v1", a.version)
	}
	s.waitQuick(t, "http://ratings:9080/ratings/0", jasonHeader) // the fault is for the canary's calls only
	s.goOn(t, "reviews")
	s.stayIn(t, "reviews", "everyone-2s")
	for _, headers := range [][]string{nil, {jasonHeader}} {
		s.waitTakes(t, 2*time.Second, "http://ratings:9080/ratings/0", headers...)
	}
	s.eventually(t, "v2 takes 2s and v1 does not", func() (bool, string) {
		took := map[string]time.Duration{}
		for range 12 {
			a := s.get(t, reviewsURL)
			took[a.version] = a.took
		}
		return took["v2"] >= 2*time.Second && took["v1"] > 0 && took["v1"] < 1500*time.Millisecond, fmt.Sprint(took)
	})
	s.goOn(t, "reviews")
	s.stayIn(t, "reviews", "reviews-5s")
	s.waitGone(t, "reviews-fault-ratings")
	s.waitQuick(t, "http://ratings:9080/ratings/0")
	seen := map[string]bool{}
	s.eventually(t, "jason waits 5s for either version", func() (bool, string) {
		a := s.waitTakes(t, 5*time.Second, reviewsURL, jasonHeader)
		seen[a.version] = true
		return seen["v1"] && seen["v2"], fmt.Sprint(seen)
	})
	s.waitQuick(t, reviewsURL)
	s.goOn(t, "reviews")
	s.waitHealthy(t, "reviews", "v2")
	s.waitQuick(t, reviewsURL, jasonHeader)
	s.waitServed(t, "v2", reviewsURL)
}

// Test08FaultAbort: statuses and shares of the aborts, and a delay before one of them, as clients meet them.
func Test08FaultAbort(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "08-fault-abort", apps: []string{"bookinfo.yaml"}})
	s.pushVersion(t, "rollout.yaml", "v3")
	next := func(step string) {
		t.Helper()
		if step != "jason-503" {
			s.goOn(t, "reviews")
		}
		s.stayIn(t, "reviews", step)
	}
	next("jason-503")
	s.waitStatus(t, http.StatusServiceUnavailable, reviewsURL, jasonHeader)
	if seen := s.visit(t, 50, reviewsURL, jasonHeader); seen.statuses[http.StatusServiceUnavailable] != 50 {
		t.Errorf("jason saw %s, want 503 alone", seen)
	}
	s.waitServed(t, "v1", reviewsURL)

	next("jason-500-half")
	s.eventually(t, "jason meets 500 half of the time, and v3 else", func() (bool, string) {
		seen := s.visit(t, 200, reviewsURL, jasonHeader)
		half := seen.statuses[http.StatusInternalServerError]
		return half > 60 && half < 140 && seen.versions["v3"] == 200-half, seen.String()
	})
	s.waitServed(t, "v1", reviewsURL)

	next("jason-late-503")
	if a := s.waitStatus(t, http.StatusServiceUnavailable, reviewsURL, jasonHeader); a.took < 2*time.Second {
		t.Errorf("503 after %s, want the delay of 2s before it", a.took)
	}

	next("jason-grpc")
	s.eventually(t, "jason's answer has grpc-status 14", func() (bool, string) {
		a := s.get(t, reviewsURL, jasonHeader)
		return a.header.Get("Grpc-Status") == "14", fmt.Sprint(a.status, a.header)
	})

	next("everyone-400-rarely")
	var all tally
	s.eventually(t, "a few of very many are answered 400", func() (bool, string) {
		seen := s.crowd(t, 4, 250, reviewsURL)
		all.total += seen.total
		for _, status := range []int{http.StatusOK, http.StatusBadRequest} {
			all.count(status, seen.statuses[status])
		}
		rare := all.statuses[http.StatusBadRequest] // 0.1 %: no less than its half, no more than its double
		return all.total >= 5000 && rare*2000 > all.total && rare*500 < all.total && rare+all.statuses[http.StatusOK] == all.total, all.String()
	})
	s.goOn(t, "reviews")
	s.waitHealthy(t, "reviews", "v3")
	s.waitServed(t, "v3", reviewsURL, jasonHeader)
}

// count adds answers of a status.
func (c *tally) count(status, n int) {
	if c.statuses == nil {
		c.statuses = map[int]int{}
	}
	c.statuses[status] += n
}

// Test09TimeoutBug: the test finds the bug before anybody but the tester meets the version, and the mended one passes it.
func Test09TimeoutBug(t *testing.T) {
	t.Parallel()
	const page = "http://bookinfo.example.com/productpage"
	s := newStage(t, example{dir: "09-timeout-bug", apps: []string{"bookinfo.yaml"}, gateway: true})
	s.load(t, 20, reviewsURL)
	s.pushVersion(t, "rollout.yaml", "v2")
	s.eventually(t, "jason waits 6s, twice 3s, for a page without reviews", func() (bool, string) {
		a := s.atGateway(t, page, jasonHeader)
		got := a.page(t)
		return got.Reviews.Status == 0 && a.took >= 6*time.Second && a.took < 8*time.Second, fmt.Sprintf("%+v after %s", got, a.took)
	})
	rollout := s.waitRolledBack(t, "reviews", v1.ReasonProbe)
	if failure := rollout.Status.LastFailure; failure == nil || failure.Version != "v2" || !strings.Contains(rollout.Status.Message, "no answer within 5s") {
		t.Errorf("status.lastFailure %+v, message %q; want one of v2, whose page took longer than 5s", failure, rollout.Status.Message)
	}
	s.waitGone(t, "reviews-fault-ratings")
	s.eventually(t, "jason's page is complete again, by v1", func() (bool, string) {
		a := s.atGateway(t, page, jasonHeader)
		got := a.page(t)
		return got.Complete() && got.Reviews.Version == "v1" && a.took < 3*time.Second, fmt.Sprintf("%+v after %s", got, a.took)
	})
	s.pushVersion(t, "rollout.yaml", "v4")
	s.stayIn(t, "reviews", "ratings-slow")
	s.eventually(t, "jason's page has reviews without ratings in time", func() (bool, string) {
		a := s.atGateway(t, page, jasonHeader)
		got := a.page(t)
		return got.Complete() && got.Reviews.Version == "v4" && a.took >= 2*time.Second && a.took < 5*time.Second, fmt.Sprintf("%+v after %s", got, a.took)
	})
	s.goOn(t, "reviews")
	s.waitHealthy(t, "reviews", "v4")
	s.waitServed(t, "v4", reviewsURL, jasonHeader)
}
