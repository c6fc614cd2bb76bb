package gitsync

import (
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "sluice.dev/sluice/api/v1"
)

// repository is a bare Git repository behind git's own http-backend, and a work tree that pushes to it.
type repository struct {
	t    *testing.T
	URL  string
	work string
	bare string

	mu       sync.Mutex
	wrap     func(http.Handler) http.Handler
	requests []string
}

func newRepository(t *testing.T) *repository {
	t.Helper()
	root := t.TempDir()
	r := &repository{t: t, work: filepath.Join(root, "work"), bare: filepath.Join(root, "app.git")}
	r.command(root, "init", "--quiet", "--bare", "--initial-branch=main", r.bare)
	r.command(root, "init", "--quiet", "--initial-branch=main", r.work)
	r.git("remote", "add", "origin", r.bare)
	backend := &cgi.Handler{
		Path: filepath.Join(r.command(root, "--exec-path"), "git-http-backend"),
		Env:  append(gitEnvironment(), "GIT_PROJECT_ROOT="+root, "GIT_HTTP_EXPORT_ALL=1"),
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.mu.Lock()
		r.requests = append(r.requests, request.Method+" "+request.URL.Path)
		wrap := r.wrap
		r.mu.Unlock()
		if wrap == nil {
			backend.ServeHTTP(w, request)
			return
		}
		wrap(backend).ServeHTTP(w, request)
	}))
	t.Cleanup(server.CloseClientConnections)
	t.Cleanup(server.Close)
	r.URL = server.URL + "/app.git"
	return r
}

func gitEnvironment() []string {
	return []string{
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com",
		"GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com",
	}
}

func (r *repository) command(dir string, args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), gitEnvironment()...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func (r *repository) git(args ...string) string {
	r.t.Helper()
	return r.command(r.work, args...)
}

func (r *repository) write(path, content string) {
	r.t.Helper()
	full := filepath.Join(r.work, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

// push commits the work tree to main and returns the commit.
func (r *repository) push() string {
	r.t.Helper()
	r.git("add", "--all")
	r.git("commit", "--quiet", "--allow-empty", "--message", "change")
	r.git("push", "--quiet", "--force", "origin", "HEAD:main")
	return r.git("rev-parse", "HEAD")
}

func (r *repository) intercept(wrap func(http.Handler) http.Handler) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrap = wrap
}

// takeRequests returns what was asked since the last call.
func (r *repository) takeRequests() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	requests := r.requests
	r.requests = nil
	return requests
}

func (r *repository) source(path string, ref v1.GitRef) Source {
	r.t.Helper()
	source, err := ParseSource(&v1.GitSyncSpec{URL: r.URL, Path: path, Ref: &ref})
	if err != nil {
		r.t.Fatal(err)
	}
	return source
}

func mustParse(t *testing.T, raw string) *url.URL {
	t.Helper()
	address, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return address
}
