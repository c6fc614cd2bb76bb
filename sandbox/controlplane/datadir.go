package controlplane

import (
	"fmt"
	"os"
	"path/filepath"

	"sluice.dev/sluice/sandbox/internal/filelock"
)

// The folders below DataDir. Only these are ever removed, so that a mistaken
// DataDir costs nobody a file.
const (
	certificatesDir = "certificates"
	etcdDir         = "etcd"
	gitDir          = "git"
	kubeconfigsDir  = "kubeconfigs"
	logsDir         = "logs"
	prometheusDir   = "prometheus"
	targetsDir      = "targets"
	discoveryDir    = "istiod"
)

var ownedDirs = []string{certificatesDir, etcdDir, gitDir, kubeconfigsDir, logsDir, prometheusDir, targetsDir, discoveryDir}

// prepareDataDir makes the folders and keeps a second control plane out of them.
func (c *ControlPlane) prepareDataDir(dir string) (err error) {
	if dir == "" {
		c.temporary = true
		if dir, err = os.MkdirTemp("", "sluice-sandbox-"); err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
	}
	if c.DataDir, err = filepath.Abs(dir); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if err := os.MkdirAll(c.DataDir, 0o755); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if c.lock, err = filelock.Try(c.path("lock")); err != nil {
		return fmt.Errorf("data folder: %w: only one control plane may run in it", err)
	}
	for _, name := range ownedDirs {
		if err := os.RemoveAll(c.path(name)); err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
		if err := os.MkdirAll(c.path(name), 0o700); err != nil {
			return fmt.Errorf("data folder: %w", err)
		}
	}
	return nil
}
