package gitserver

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Work is a clone of a repository with branch main checked out.
type Work struct{ Dir string }

// Clone clones url into dir, which must be missing or empty. An empty repository
// is fine: the first Push then makes its branch main.
func Clone(ctx context.Context, url, dir string) (*Work, error) {
	if _, err := git(ctx, "", "clone", "--quiet", url, dir); err != nil {
		return nil, fmt.Errorf("clone %s: %w", url, err)
	}
	w := &Work{Dir: dir}
	for key, value := range map[string]string{"user.name": "Ada", "user.email": "ada@example.com", "commit.gpgsign": "false"} {
		if _, err := w.Git(ctx, "config", key, value); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Write puts content into the file at path, relative to the clone, and stages it.
func (w *Work) Write(ctx context.Context, path, content string) error {
	full := filepath.Join(w.Dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		return err
	}
	_, err := w.Git(ctx, "add", "--", path)
	return err
}

// Push commits what is staged, empty or not, pushes main and returns the commit.
func (w *Work) Push(ctx context.Context, message string) (sha string, err error) {
	if _, err := w.Git(ctx, "commit", "--quiet", "--allow-empty", "--message", message); err != nil {
		return "", err
	}
	if _, err := w.Git(ctx, "push", "--quiet", "origin", "HEAD:main"); err != nil {
		return "", err
	}
	return w.Git(ctx, "rev-parse", "HEAD")
}

// Git runs any other git command in the clone and returns what it prints.
func (w *Work) Git(ctx context.Context, args ...string) (string, error) {
	return git(ctx, w.Dir, args...)
}
