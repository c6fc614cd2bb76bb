package session

import (
	"context"
	"fmt"
	"time"

	promapi "github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// ask sends an instant query to Prometheus.
func (c *Cluster) ask(ctx context.Context, query string) (model.Value, error) {
	connection, err := promapi.NewClient(promapi.Config{Address: c.PrometheusURL})
	if err != nil {
		return nil, err
	}
	value, _, _, err := prometheus.NewAPI(connection).Query(ctx, query, time.Now())
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", query, err)
	}
	return value, nil
}

// Query asks Prometheus for one number now; no series is 0.
func (c *Cluster) Query(ctx context.Context, query string) (float64, error) {
	value, err := c.ask(ctx, query)
	if err != nil {
		return 0, err
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

// lostBy selects the requests to reviews that its callers' proxies lost with a response flag.
func (b *Bookinfo) lostBy(flag string) string {
	return fmt.Sprintf(
		`istio_requests_total{reporter="source",destination_service_name="reviews",destination_service_namespace=%q,response_flags=~"(.*,)?%s(,.*)?"}`,
		b.Namespace, flag)
}

// Lost is how many requests to reviews a response flag was put on in all: UO overflowed a pool, UH found no endpoint.
func (b *Bookinfo) Lost(ctx context.Context, flag string) (float64, error) {
	return b.cluster.Query(ctx, "sum("+b.lostBy(flag)+")")
}

// FirstLost is the time of the first sample that Prometheus has of requests with a response flag; zero without one.
func (b *Bookinfo) FirstLost(ctx context.Context, flag string) (time.Time, error) {
	value, err := b.cluster.ask(ctx, b.lostBy(flag)+"[10m]")
	if err != nil {
		return time.Time{}, err
	}
	matrix, ok := value.(model.Matrix)
	if !ok {
		return time.Time{}, fmt.Errorf("samples of requests with %s: got %s", flag, value.Type())
	}
	var first time.Time
	for _, series := range matrix {
		for _, sample := range series.Values {
			if at := sample.Timestamp.Time(); sample.Value > 0 && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
	}
	return first, nil
}
