package gitserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

var repositoryName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// Server serves the repositories of one folder, for reading and writing, to
// anyone who can reach the loopback address.
type Server struct {
	// URL is the address of the server without a trailing slash.
	URL string

	dir     string
	address string
	backend http.Handler

	mu        sync.Mutex
	intercept func(http.Handler) http.Handler
	onPush    func(Push)
	http      *http.Server
}

// Start serves dir, which it creates, at address (host:port). git's own messages
// go to log.
func Start(ctx context.Context, dir, address string, log *os.File) (*Server, error) {
	backend, err := backendPath(ctx)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("folder of the Git server: %w", err)
	}
	s := &Server{URL: "http://" + address, dir: dir, address: address, backend: &cgi.Handler{
		Path:   backend,
		Env:    append(environment(), "GIT_PROJECT_ROOT="+dir, "GIT_HTTP_EXPORT_ALL=1"),
		Stderr: log,
	}}
	if err := s.Start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// Start listens again, at the same address, after Stop.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		return fmt.Errorf("start Git server: it already listens at %s", s.address)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("start Git server: %w", err)
	}
	s.http = &http.Server{Handler: s} // no time-outs: a test may want a request that never ends
	go s.http.Serve(listener)         //nolint:errcheck // ends with ErrServerClosed in Stop
	return nil
}

// Stop closes the listener and all connections, so that clients are refused.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.http != nil {
		_ = s.http.Close()
		s.http = nil
	}
}

// Intercept puts wrap around the Git handler for all requests to come: it may
// fail, delay, cut off, count or authenticate them. Nil takes it away.
func (s *Server) Intercept(wrap func(git http.Handler) http.Handler) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = wrap
}

// ServeHTTP answers Git's smart HTTP protocol.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	wrap, tell := s.intercept, s.onPush
	s.mu.Unlock()
	backend := s.telling(s.backend, tell)
	if wrap == nil {
		backend.ServeHTTP(w, r)
		return
	}
	wrap(backend).ServeHTTP(w, r)
}

// CreateRepository makes an empty repository with main as its default branch and
// returns its URL.
func (s *Server) CreateRepository(ctx context.Context, name string) (url string, err error) {
	if !repositoryName.MatchString(name) {
		return "", fmt.Errorf("create repository: name %q must match %s", name, repositoryName)
	}
	path := s.RepositoryPath(name)
	if _, err := os.Stat(path); err == nil {
		return "", fmt.Errorf("create repository: %s is already there", name)
	}
	if _, err := git(ctx, "", "init", "--quiet", "--bare", "--initial-branch=main", path); err != nil {
		return "", fmt.Errorf("create repository: %w", err)
	}
	if _, err := git(ctx, path, "config", "http.receivepack", "true"); err != nil {
		return "", fmt.Errorf("create repository: %w", err)
	}
	return s.RepositoryURL(name), nil
}

// RepositoryURL is where clients find a repository.
func (s *Server) RepositoryURL(name string) string { return s.URL + "/" + name + ".git" }

// RepositoryPath is the bare repository's folder, for tests that damage it.
func (s *Server) RepositoryPath(name string) string { return filepath.Join(s.dir, name+".git") }

func backendPath(ctx context.Context) (string, error) {
	folder, err := git(ctx, "", "--exec-path")
	if err != nil {
		return "", fmt.Errorf("find git (Debian package git): %w", err)
	}
	path := filepath.Join(folder, "git-http-backend")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("find git's http-backend (part of Debian's package git): %w", err)
	}
	return path, nil
}

// git runs git in dir, apart from the user's own settings, and returns its
// standard output without the final newline.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), environment()...)
	stdout, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSuffix(string(stdout), "\n"), nil
}

func environment() []string {
	return []string{"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0"}
}
