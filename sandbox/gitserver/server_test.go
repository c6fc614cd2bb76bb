package gitserver_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"sluice.dev/sluice/sandbox/gitserver"
	"sluice.dev/sluice/sandbox/process"
)

func start(t *testing.T) *gitserver.Server {
	t.Helper()
	ports, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "git.log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	server, err := gitserver.Start(t.Context(), filepath.Join(t.TempDir(), "git"), process.Address(ports[0]), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	return server
}

func repositoryWithCommit(t *testing.T, server *gitserver.Server) (url, sha string) {
	t.Helper()
	url, err := server.CreateRepository(t.Context(), "bookinfo")
	if err != nil {
		t.Fatal(err)
	}
	work := clone(t, url)
	if err := work.Write(t.Context(), "apps/reviews/rollout.yaml", "kind: Rollout\n"); err != nil {
		t.Fatal(err)
	}
	sha, err = work.Push(t.Context(), "Roll out reviews v3")
	if err != nil {
		t.Fatal(err)
	}
	return url, sha
}

func clone(t *testing.T, url string) *gitserver.Work {
	t.Helper()
	work, err := gitserver.Clone(t.Context(), url, filepath.Join(t.TempDir(), "work"))
	if err != nil {
		t.Fatal(err)
	}
	return work
}

func TestPushAndClone(t *testing.T) {
	server := start(t)
	url, sha := repositoryWithCommit(t, server)
	work := clone(t, url)
	content, err := os.ReadFile(filepath.Join(work.Dir, "apps/reviews/rollout.yaml"))
	if err != nil || string(content) != "kind: Rollout\n" {
		t.Errorf("cloned file %q, %v", content, err)
	}
	log, err := work.Git(t.Context(), "log", "-1", "--format=%H %an %s")
	if want := sha + " Ada Roll out reviews v3"; err != nil || log != want {
		t.Errorf("cloned history %q, %v; want %q", log, err, want)
	}
	if err := work.Write(t.Context(), "apps/reviews/rollout.yaml", "kind: Rollout\nv: 3\n"); err != nil {
		t.Fatal(err)
	}
	second, err := work.Push(t.Context(), "Again")
	if err != nil || second == sha {
		t.Errorf("second push = %s, %v", second, err)
	}
}

func TestIntercept(t *testing.T) {
	server := start(t)
	url, _ := repositoryWithCommit(t, server)
	var requests atomic.Int32
	server.Intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			http.Error(w, "the disk is full", http.StatusInternalServerError)
		})
	})
	if _, err := gitserver.Clone(t.Context(), url, t.TempDir()); err == nil || !strings.Contains(err.Error(), "500") {
		t.Errorf("clone from a failing server: %v", err)
	}
	if requests.Load() == 0 {
		t.Error("the interceptor saw no request")
	}
	server.Intercept(nil)
	clone(t, url)
}

func TestStopAndStartKeepTheAddress(t *testing.T) {
	server := start(t)
	url, sha := repositoryWithCommit(t, server)
	server.Stop()
	if _, err := gitserver.Clone(t.Context(), url, t.TempDir()); err == nil {
		t.Error("clone from a stopped server succeeds")
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if head, err := clone(t, url).Git(t.Context(), "rev-parse", "HEAD"); err != nil || head != sha {
		t.Errorf("head after restart %s, %v; want %s", head, err, sha)
	}
	if err := server.Start(t.Context()); err == nil {
		t.Error("Start of a running server gives no error")
	}
}

func TestCreateRepositoryRefuses(t *testing.T) {
	server := start(t)
	if _, err := server.CreateRepository(t.Context(), "once"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "../up", "a/b", "-option", ".hidden", "once"} {
		if url, err := server.CreateRepository(t.Context(), name); err == nil {
			t.Errorf("CreateRepository(%q) = %s, want an error", name, url)
		}
	}
}
