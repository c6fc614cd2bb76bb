package analysis

import (
	"fmt"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/internal/pipeline"
)

// Query is the PromQL whose value a gate judges, as it is sent to Prometheus. An error tells the user what to change.
func Query(g pipeline.GateWatch) (string, error) {
	query, err := makeQuery(g)
	return query.value, err
}

// NeverPasses is why no value passes a gate, such as min above max; nil: some do.
func NeverPasses(g pipeline.GateWatch) error {
	l, err := makeLimits(g)
	switch {
	case err != nil:
		return err
	case l.max != nil && l.min != nil && *l.min > *l.max:
		return fmt.Errorf("gate %s: min %s is above max %s: no value passes", g.Name, g.Min, g.Max)
	case l.ratio && l.min != nil && *l.min > 1:
		return fmt.Errorf("gate %s: min %s: a share is never above 100%%, which is \"1\"", g.Name, g.Min)
	case (l.ratio || g.Metric == v1.MetricLatency) && l.max != nil && *l.max < 0:
		return fmt.Errorf("gate %s: max %s: %s is never below 0", g.Name, g.Max, g.Metric)
	}
	return nil
}

// AlwaysPasses is why every value of a built-in metric passes a gate, such as an error rate of at most "1", which is 100%; nil: some
// do not.
func AlwaysPasses(g pipeline.GateWatch) error {
	l, err := makeLimits(g)
	if err == nil && l.ratio && (l.max == nil || *l.max >= 1) && (l.min == nil || *l.min <= 0) {
		return fmt.Errorf("gate %s: every %s is within its limits, of which \"1\" is 100%%: write 1%% as \"1%%\" or \"0.01\"", g.Name, g.Metric)
	}
	return nil
}
