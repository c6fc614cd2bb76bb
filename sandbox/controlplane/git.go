package controlplane

import (
	"context"
	"fmt"
	"os"

	"sluice.dev/sluice/sandbox/gitserver"
	"sluice.dev/sluice/sandbox/process"
)

func (c *ControlPlane) startGit(ctx context.Context) error {
	log, err := os.Create(c.path(logsDir, "git.log"))
	if err != nil {
		return fmt.Errorf("log of the Git server: %w", err)
	}
	c.gitLog = log
	c.Git, err = gitserver.Start(ctx, c.path(gitDir), process.Address(c.ports.git), log)
	if err != nil {
		return err
	}
	c.GitURL = c.Git.URL
	return nil
}
