package session

import (
	"context"
	"fmt"
	"time"

	promapi "github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// Query asks Prometheus for one number now; no series is 0.
func (c *Cluster) Query(ctx context.Context, query string) (float64, error) {
	connection, err := promapi.NewClient(promapi.Config{Address: c.PrometheusURL})
	if err != nil {
		return 0, err
	}
	value, _, _, err := prometheus.NewAPI(connection).Query(ctx, query, time.Now())
	if err != nil {
		return 0, fmt.Errorf("query %s: %w", query, err)
	}
	vector, ok := value.(model.Vector)
	switch {
	case !ok || len(vector) > 1:
		return 0, fmt.Errorf("query %s: want one number, got %s", query, value)
	case len(vector) == 0:
		return 0, nil
	}
	return float64(vector[0].Value), nil
}

// Received is how many requests a version of reviews received in all, mirrored ones included: its own proxies' count.
func (b *Bookinfo) Received(ctx context.Context, version string) (float64, error) {
	return b.cluster.Query(ctx, fmt.Sprintf(
		`sum(istio_requests_total{reporter="destination",destination_service_name="reviews",destination_service_namespace=%q,destination_version=%q})`,
		b.Namespace, version))
}

// Asked is how many requests to reviews its callers made in all: mirrored ones are not among them.
func (b *Bookinfo) Asked(ctx context.Context) (float64, error) {
	return b.cluster.Query(ctx, fmt.Sprintf(
		`sum(istio_requests_total{reporter="source",destination_service_name="reviews",destination_service_namespace=%q})`, b.Namespace))
}
