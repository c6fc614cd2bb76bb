package binaries

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"sluice.dev/sluice/sandbox/internal/filelock"
)

const lockPoll = 200 * time.Millisecond

// waitForLock takes the lock on path, and tells on out when that means waiting.
func waitForLock(ctx context.Context, path string, out io.Writer) (*filelock.Lock, error) {
	ticker := time.NewTicker(lockPoll)
	defer ticker.Stop()
	for told := false; ; {
		lock, err := filelock.Try(path)
		if !errors.Is(err, filelock.ErrHeld) {
			return lock, err
		}
		if !told {
			told = true
			fmt.Fprintln(out, "waiting for another process that builds the sandbox's servers")
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for %s: %w", path, context.Cause(ctx))
		case <-ticker.C:
		}
	}
}
