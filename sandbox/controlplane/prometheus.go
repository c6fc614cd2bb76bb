package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"sluice.dev/sluice/sandbox/process"
)

// prometheusConfig scrapes every second, so that a gate sees a step's effect soon.
// A target's own job label wins over the job's name.
const prometheusConfig = `global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 1s
scrape_configs:
- job_name: kubernetes-pods
  file_sd_configs:
  - files: [%q]
    refresh_interval: 1s
`

// TargetGroup is what Prometheus scrapes, in the form of its file-based discovery.
type TargetGroup struct {
	// Targets are host:port pairs that serve /metrics.
	Targets []string `json:"targets"`
	// Labels are put on every series of these targets.
	Labels map[string]string `json:"labels,omitempty"`
}

func (c *ControlPlane) startPrometheus(ctx context.Context) (err error) {
	config := c.path(prometheusDir, "prometheus.yml")
	content := fmt.Sprintf(prometheusConfig, c.path(targetsDir, "*.json"))
	if err := os.WriteFile(config, []byte(content), 0o600); err != nil {
		return fmt.Errorf("configuration of Prometheus: %w", err)
	}
	address := process.Address(c.ports.prometheus)
	c.PrometheusURL = "http://" + address
	c.Prometheus, err = process.Start(ctx, process.Spec{
		Name: "prometheus",
		Path: c.binaries.Prometheus(),
		Args: []string{
			"--config.file", config,
			"--storage.tsdb.path", c.path(prometheusDir, "data"),
			"--storage.tsdb.retention.time", "6h",
			"--web.listen-address", address,
			"--web.enable-lifecycle",
			"--log.level", "warn",
		},
		LogDir:    c.path(logsDir),
		Ready:     process.HTTPReady(c.PrometheusURL + "/-/ready"),
		StopGrace: stopGrace,
		OnCrash:   c.crashed,
	})
	return err
}

// SetTargets replaces the scrape targets that were set under this name, which
// must be fit for a file name; none takes them away. Prometheus follows within
// about a second.
func (c *ControlPlane) SetTargets(name string, groups ...TargetGroup) error {
	path := c.path(targetsDir, name+".json")
	if len(groups) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("scrape targets: %w", err)
		}
		return nil
	}
	content, err := json.Marshal(groups)
	if err != nil {
		return fmt.Errorf("scrape targets: %w", err)
	}
	partial := c.path(targetsDir, "."+name+".partial") // Prometheus must not read half a file
	if err := os.WriteFile(partial, content, 0o600); err != nil {
		return fmt.Errorf("scrape targets: %w", err)
	}
	return os.Rename(partial, path)
}
