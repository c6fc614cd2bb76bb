package webhook

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// unknownProvider is the label of requests that no GitSync's provider could be told for.
const unknownProvider = "unknown"

var requests = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "sluice_webhook_requests_total",
	Help: "Requests to the hook port, by provider (unknown where no GitSync was found or looked for) and result, the reason code.",
}, []string{"provider", "result"})

func init() { metrics.Registry.MustRegister(requests) }
