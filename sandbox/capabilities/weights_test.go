package capabilities

import "testing"

const reviewsURL = "http://reviews:9080/reviews/0"

// Test05Weights: each step's share is what clients get, and at the end the new version alone answers.
func Test05Weights(t *testing.T) {
	t.Parallel()
	s := newStage(t, example{dir: "05-weights", apps: []string{"bookinfo.yaml"}})
	s.waitServed(t, "v1", reviewsURL)
	s.load(t, 80, reviewsURL) // the gate wants 20 requests to v3 in 5s, at a tenth
	s.pushVersion(t, "rollout.yaml", "v3")
	for _, step := range []struct {
		name  string
		share float64
	}{{"tenth", 0.1}, {"quarter", 0.25}, {"half", 0.5}} {
		s.stayIn(t, "reviews", step.name)
		s.waitSplit(t, map[string]float64{"v1": 1 - step.share, "v3": step.share}, reviewsURL)
		s.goOn(t, "reviews")
	}
	s.waitHealthy(t, "reviews", "v3")
	s.waitServed(t, "v3", reviewsURL)
}
