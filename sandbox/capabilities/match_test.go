package capabilities

import "testing"

// Test03HeaderRouting: the named user gets the new version, beside the weights of all others too.
func Test03HeaderRouting(t *testing.T) {
	t.Parallel()
	const jason = "end-user: jason"
	s := newStage(t, example{dir: "03-header-routing", apps: []string{"bookinfo.yaml"}})
	s.load(t, 20, reviewsURL)
	s.load(t, 20, reviewsURL, jason)
	s.pushVersion(t, "rollout.yaml", "v2")
	s.stayIn(t, "reviews", "testers")
	s.waitServed(t, "v2", reviewsURL, jason)
	s.waitServed(t, "v1", reviewsURL)
	s.waitServed(t, "v1", reviewsURL, "end-user: jasonx")
	s.goOn(t, "reviews")
	s.stayIn(t, "reviews", "testers-and-some")
	s.waitServed(t, "v2", reviewsURL, jason)
	s.waitSplit(t, map[string]float64{"v1": 0.75, "v2": 0.25}, reviewsURL)
	s.goOn(t, "reviews")
	s.waitHealthy(t, "reviews", "v2")
	s.waitServed(t, "v2", reviewsURL)
}

// Test03HeaderRoutingKept: the route that Git pins for a user stays where it is while a Rollout moves the rest.
func Test03HeaderRoutingKept(t *testing.T) {
	t.Parallel()
	const jason = "end-user: jason"
	s := newStage(t, example{dir: "03-header-routing-kept", apps: []string{"bookinfo.yaml"}})
	s.load(t, 20, reviewsURL)
	s.waitServed(t, "v2", reviewsURL, jason)
	s.waitServed(t, "v1", reviewsURL)
	s.pushVersion(t, "rollout.yaml", "v3")
	s.stayIn(t, "reviews", "half")
	s.waitServed(t, "v2", reviewsURL, jason)
	s.waitSplit(t, map[string]float64{"v1": 0.5, "v3": 0.5}, reviewsURL)
	s.goOn(t, "reviews")
	s.waitHealthy(t, "reviews", "v3")
	s.waitServed(t, "v2", reviewsURL, jason)
	s.waitServed(t, "v3", reviewsURL)
}

// Test04UserAgent: regexes of the user agent choose who gets the new version.
func Test04UserAgent(t *testing.T) {
	t.Parallel()
	const (
		safari  = "User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 14_4) AppleWebKit/605.1.15 Version/17.4 Safari/605.1.15"
		firefox = "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:125.0) Gecko/20100101 Firefox/125.0"
		phone   = "User-Agent: Mozilla/5.0 (Android 14; Mobile; rv:125.0) Gecko/125.0 Firefox/125.0"
	)
	s := newStage(t, example{dir: "04-user-agent", apps: []string{"bookinfo.yaml"}})
	for _, agent := range []string{safari, firefox} {
		s.load(t, 20, reviewsURL, agent)
	}
	s.pushVersion(t, "rollout.yaml", "v3")
	s.stayIn(t, "reviews", "safari")
	s.waitServed(t, "v3", reviewsURL, safari)
	s.waitServed(t, "v1", reviewsURL, firefox)
	s.waitServed(t, "v1", reviewsURL, phone)
	s.goOn(t, "reviews")
	s.stayIn(t, "reviews", "safari-and-mobile")
	s.waitServed(t, "v3", reviewsURL, safari)
	s.waitServed(t, "v3", reviewsURL, phone)
	s.waitSplit(t, map[string]float64{"v1": 0.9, "v3": 0.1}, reviewsURL, firefox)
	s.goOn(t, "reviews")
	s.waitHealthy(t, "reviews", "v3")
	s.waitServed(t, "v3", reviewsURL, firefox)
}
