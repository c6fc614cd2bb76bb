package analysis

import "sluice.dev/sluice/internal/pipeline"

// Query is the PromQL whose value a gate judges, as it is sent to Prometheus. An error tells the user what to change.
func Query(g pipeline.GateWatch) (string, error) {
	query, err := makeQuery(g)
	return query.value, err
}
