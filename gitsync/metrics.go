package gitsync

import (
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	v1 "sluice.dev/sluice/api/v1"
)

var (
	fetchSeconds = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "sluice_git_fetch_seconds", Help: "Time of fetches from Git, by result: unchanged, fetched or failed.",
		Buckets: []float64{0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60},
	}, []string{"result"})
	syncInfo = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "sluice_gitsync_info", Help: "1 for each GitSync, with the commit that is applied and the reason of its Ready condition.",
	}, []string{"namespace", "name", "revision", "reason"})
)

func init() { metrics.Registry.MustRegister(fetchSeconds, syncInfo) }

func observeSync(key types.NamespacedName, status v1.GitSyncStatus, reason string) {
	forgetSync(key)
	syncInfo.WithLabelValues(key.Namespace, key.Name, status.Revision, reason).Set(1)
}

func forgetSync(key types.NamespacedName) {
	syncInfo.DeletePartialMatch(prometheus.Labels{"namespace": key.Namespace, "name": key.Name})
}
