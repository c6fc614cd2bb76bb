package gitsync

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/google/go-cmp/cmp"

	v1 "sluice.dev/sluice/api/v1"
)

func contents(files []File) map[string]string {
	all := map[string]string{}
	for _, file := range files {
		all[file.Path] = string(file.Content)
	}
	return all
}

func TestFetch(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.write("deploy/a.yaml", "a: 1\n")
	r.write("deploy/sub/b.json", "{}")
	r.write("deploy/README.md", "no manifest")
	r.write("deploy/.github/ci.yaml", "of another tool")
	r.write("other/c.yml", "c: 1\n")
	first := r.push()
	r.git("tag", "--annotate", "--message", "one", "v1.0")
	r.git("tag", "light")
	r.git("push", "--quiet", "origin", "v1.0", "light")
	r.write("deploy/a.yaml", "a: 2\n")
	second := r.push()
	r.git("push", "--quiet", "origin", "HEAD:refs/heads/feature/x")
	before, after := map[string]string{"deploy/a.yaml": "a: 1\n", "deploy/sub/b.json": "{}"}, map[string]string{"deploy/a.yaml": "a: 2\n", "deploy/sub/b.json": "{}"}

	for name, tc := range map[string]struct {
		ref    v1.GitRef
		path   string
		commit string
		files  map[string]string
	}{
		"default branch":  {path: "deploy", commit: second, files: after},
		"path written so": {path: "./deploy/", commit: second, files: after},
		"branch":          {ref: v1.GitRef{Branch: "feature/x"}, path: "deploy", commit: second, files: after},
		"annotated tag":   {ref: v1.GitRef{Tag: "v1.0"}, path: "deploy", commit: first, files: before},
		"light tag":       {ref: v1.GitRef{Tag: "light"}, path: "deploy", commit: first, files: before},
		"tip":             {ref: v1.GitRef{Commit: second}, path: "deploy", commit: second, files: after},
		"nested path":     {path: "deploy/sub", commit: second, files: map[string]string{"deploy/sub/b.json": "{}"}},
		"root":            {commit: second, files: map[string]string{"deploy/a.yaml": "a: 2\n", "deploy/sub/b.json": "{}", "other/c.yml": "c: 1\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			snapshot, err := (&Fetcher{}).Fetch(t.Context(), r.source(tc.path, tc.ref), "")
			if err != nil {
				t.Fatal(err)
			}
			if snapshot.Commit != tc.commit {
				t.Errorf("commit %s, want %s", snapshot.Commit, tc.commit)
			}
			if diff := cmp.Diff(tc.files, contents(snapshot.Files)); diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
		})
	}
}

// A commit that no ref names is found in the history when the server, as git does by default, does not give it alone.
func TestFetchOldCommit(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.write("a.yaml", "a: 1\n")
	old := r.push()
	r.write("a.yaml", "a: 2\n")
	r.push()
	for _, allowed := range []string{"false", "true"} {
		r.command(r.bare, "config", "uploadpack.allowReachableSHA1InWant", allowed)
		snapshot, err := (&Fetcher{}).Fetch(t.Context(), r.source("", v1.GitRef{Commit: old}), "")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"a.yaml": "a: 1\n"}, contents(snapshot.Files)); diff != "" {
			t.Errorf("allowReachableSHA1InWant=%s (-want +got):\n%s", allowed, diff)
		}
	}
	r.command(r.bare, "config", "uploadpack.allowReachableSHA1InWant", "false")
	_, err := (&Fetcher{}).Fetch(t.Context(), r.source("", v1.GitRef{Commit: strings.Repeat("1", 40)}), "")
	if err == nil || !strings.Contains(err.Error(), "is not there") {
		t.Errorf("a commit that is nowhere: %v", err)
	}
}

func TestFetchUnchangedCostsOneRequest(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.write("a.yaml", "a: 1\n")
	commit := r.push()
	r.takeRequests()
	snapshot, err := (&Fetcher{}).Fetch(t.Context(), r.source("", v1.GitRef{Branch: "main"}), commit)
	if err != nil || !snapshot.Unchanged || snapshot.Commit != commit {
		t.Fatalf("got %+v, %v", snapshot, err)
	}
	if diff := cmp.Diff([]string{"GET /app.git/info/refs"}, r.takeRequests()); diff != "" {
		t.Error(diff)
	}
	if snapshot, err = (&Fetcher{}).Fetch(t.Context(), r.source("", v1.GitRef{Commit: commit}), commit); err != nil || !snapshot.Unchanged {
		t.Fatalf("pinned: got %+v, %v", snapshot, err)
	}
	if asked := r.takeRequests(); len(asked) != 0 {
		t.Errorf("a pinned commit that is known was asked for: %v", asked)
	}
	r.git("reset", "--quiet", "--hard", commit)
	r.git("commit", "--quiet", "--amend", "--message", "forced")
	if forced := r.push(); forced == commit {
		t.Fatal("no new commit")
	}
	if snapshot, err = (&Fetcher{}).Fetch(t.Context(), r.source("", v1.GitRef{Branch: "main"}), commit); err != nil || snapshot.Unchanged {
		t.Errorf("after a force-push: got %+v, %v", snapshot, err)
	}
}

// Symbolic links and submodules are entries like others, and none of them is followed.
func TestFetchFollowsNothing(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.write("real/a.yaml", "a: 1\n")
	for link, to := range map[string]string{"deploy/passwd.yaml": "/etc/passwd", "deploy/up.yaml": "../../secret", "deploy/loop": "../deploy", "alias": "real"} {
		full := filepath.Join(r.work, link)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, full); err != nil {
			t.Fatal(err)
		}
	}
	r.write("deploy/b.yaml", "b: 1\n")
	r.git("update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("a", 40)+",deploy/module.yaml")
	r.git("add", "--all", "--", "real", "deploy/passwd.yaml", "deploy/up.yaml", "deploy/loop", "deploy/b.yaml", "alias")
	r.git("commit", "--quiet", "--message", "links")
	r.git("push", "--quiet", "origin", "HEAD:main")
	snapshot, err := (&Fetcher{}).Fetch(t.Context(), r.source("deploy", v1.GitRef{}), "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"deploy/b.yaml": "b: 1\n"}, contents(snapshot.Files)); diff != "" {
		t.Error(diff)
	}
	_, err = (&Fetcher{}).Fetch(t.Context(), r.source("alias", v1.GitRef{}), "")
	if err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a path through a link: %v", err)
	}
}

func TestFetchErrors(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.write("deploy/a.yaml", "a: 1\n")
	r.write("big/a.yaml", strings.Repeat("#", MaxFileBytes+1))
	r.write("kustomized/kustomization.yaml", "resources: [gone.yaml]\n")
	commit := r.push()
	for name, tc := range map[string]struct {
		ref     v1.GitRef
		path    string
		want    string
		content bool
	}{
		"no branch":     {ref: v1.GitRef{Branch: "gone"}, want: `branch "gone" is not there: the repository has main`},
		"no tag":        {ref: v1.GitRef{Tag: "v9"}, want: `tag "v9" is not there: the repository has none`},
		"no path":       {path: "deploi", want: `path "deploi" is not there`, content: true},
		"path is file":  {path: "deploy/a.yaml", want: `"a.yaml" is no folder`, content: true},
		"big file":      {path: "big", want: "big/a.yaml has 1048577 bytes", content: true},
		"kustomization": {path: "kustomized", want: "kustomized/kustomization.yaml: resources[0]: kustomized/gone.yaml is not in the repository", content: true},
	} {
		t.Run(name, func(t *testing.T) {
			snapshot, err := (&Fetcher{}).Fetch(t.Context(), r.source(tc.path, tc.ref), "")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want %q", err, tc.want)
			}
			if content := new(ContentError); errors.As(err, &content) != tc.content {
				t.Errorf("content error: %t, want %t", !tc.content, tc.content)
			}
			if tc.content && snapshot.Commit != commit {
				t.Errorf("commit %q, want %s", snapshot.Commit, commit)
			}
		})
	}
}

func TestFetchFromBadServers(t *testing.T) {
	t.Parallel()
	pack := func(damage func(http.ResponseWriter, *http.Request, []byte)) func(http.Handler) http.Handler {
		return func(git http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
				if request.Method == http.MethodGet {
					git.ServeHTTP(w, request)
					return
				}
				answer := httptest.NewRecorder()
				git.ServeHTTP(answer, request)
				w.Header().Set("Content-Type", answer.Header().Get("Content-Type"))
				damage(w, request, answer.Body.Bytes())
			})
		}
	}
	status := func(code int, body string) func(http.Handler) http.Handler {
		return func(http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(code)
				fmt.Fprint(w, body)
			})
		}
	}
	for name, tc := range map[string]struct {
		wrap func(http.Handler) http.Handler
		want string
	}{
		"500":          {status(500, "trouble"), "status code: 500"},
		"401":          {status(401, ""), "set secretRef"},
		"404":          {status(404, strings.Repeat("x", 1<<20)), "no such repository"},
		"no git":       {status(200, "<html>welcome</html>"), ""},
		"empty answer": {status(200, ""), ""},
		"cut pack":     {pack(func(w http.ResponseWriter, _ *http.Request, b []byte) { _, _ = w.Write(b[:len(b)*2/3]) }), ""},
		"flipped bytes": {pack(func(w http.ResponseWriter, _ *http.Request, b []byte) {
			at := bytes.Index(b, []byte("PACK"))
			for i := at + 12; i < len(b)-40; i += 7 {
				b[i] ^= 0x55
			}
			_, _ = w.Write(b)
		}), ""},
		"hang in mid-pack": {pack(func(w http.ResponseWriter, request *http.Request, b []byte) {
			_, _ = w.Write(b[:len(b)/2])
			w.(http.Flusher).Flush()
			<-request.Context().Done()
		}), "no complete answer within 1s"},
		"hang before": {func(http.Handler) http.Handler {
			return http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) { <-request.Context().Done() })
		}, "no complete answer within 1s"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRepository(t)
			r.write("a.yaml", strings.Repeat("some: text\n", 500))
			r.push()
			r.intercept(tc.wrap)
			start := time.Now()
			_, err := (&Fetcher{Timeout: time.Second}).Fetch(t.Context(), r.source("", v1.GitRef{}), "")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if len(fmt.Sprint(err)) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			if took := time.Since(start); took > 10*time.Second {
				t.Errorf("the worker was held for %s", took)
			}
		})
	}
}

func TestFetchBounds(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.write("a.yaml", strings.Repeat("bomb: bomb\n", 90_000)) // a megabyte that packs to a few kilobytes
	r.push()
	_, err := (&Fetcher{MaxBytes: 500_000}).Fetch(t.Context(), r.source("", v1.GitRef{}), "")
	if err == nil || !strings.Contains(err.Error(), "unpacks to more than 500000 bytes") {
		t.Errorf("inflating: %v", err)
	}
	_, err = (&Fetcher{MaxBytes: 600}).Fetch(t.Context(), r.source("", v1.GitRef{}), "")
	if err == nil || !strings.Contains(err.Error(), "larger than allowed") {
		t.Errorf("sent: %v", err)
	}
	if _, err = (&Fetcher{}).Fetch(t.Context(), r.source("", v1.GitRef{}), ""); err != nil {
		t.Errorf("within bounds: %v", err)
	}
}

// Credentials go to the origin alone, and no error repeats them, even if the server does.
func TestFetchCredentials(t *testing.T) {
	t.Parallel()
	const password = "s3cr3t-and-long"
	r := newRepository(t)
	r.write("a.yaml", "a: 1\n")
	r.push()
	r.intercept(func(git http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			if user, given, _ := request.BasicAuth(); user != "ada" || given != password {
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
			git.ServeHTTP(w, request)
		})
	})
	withPassword := func(password string) Source {
		source, err := r.source("", v1.GitRef{}).WithCredentials(Credentials{Username: "ada", Password: password})
		if err != nil {
			t.Fatal(err)
		}
		return source
	}
	if _, err := (&Fetcher{}).Fetch(t.Context(), withPassword(password), ""); err != nil {
		t.Errorf("right password: %v", err)
	}
	_, err := (&Fetcher{}).Fetch(t.Context(), withPassword("wrong-password"), "")
	if err == nil || !strings.Contains(err.Error(), "refuses the credentials") || strings.Contains(err.Error(), "wrong-password") {
		t.Errorf("wrong password: %v", err)
	}

	var leaked []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, request *http.Request) {
		leaked = append(leaked, request.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	r.intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			http.Redirect(w, request, strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)+request.URL.String(), http.StatusFound)
		})
	})
	_, err = (&Fetcher{}).Fetch(t.Context(), withPassword(password), "")
	if err == nil || !strings.Contains(err.Error(), "redirect") || len(leaked) != 0 {
		t.Errorf("redirect to another host: %v; it saw %q", err, leaked)
	}
	r.intercept(func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			line := "ERR you sent " + request.Header.Get("Authorization") + " " + password + "\n"
			fmt.Fprintf(w, "%04x%s0000", len(line)+4, line)
		})
	})
	_, err = (&Fetcher{}).Fetch(t.Context(), withPassword(password), "")
	if err == nil || strings.Contains(err.Error(), password) || strings.Contains(err.Error(), basicValue(Credentials{Username: "ada", Password: password})) {
		t.Errorf("a server that echoes: %v", err)
	}
}

func TestFetchIsCancelled(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.write("a.yaml", "a: 1\n")
	r.push()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (&Fetcher{}).Fetch(ctx, r.source("", v1.GitRef{}), ""); err == nil {
		t.Error("a fetch outlived its context")
	}
	r.command(filepath.Dir(r.bare), "init", "--quiet", "--bare", r.bare+"2")
	source := r.source("", v1.GitRef{})
	source.URL = mustParse(t, strings.Replace(r.URL, "app.git", "app.git2", 1))
	if _, err := (&Fetcher{}).Fetch(t.Context(), source, ""); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("an empty repository: %v", err)
	}
}

// A server whose certificate nobody else trusts is trusted by the Secret's ca.crt, and a repository may move within its host.
func TestFetchOverTLS(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.write("a.yaml", "a: 1\n")
	commit := r.push()
	proxy := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		if rest, moved := strings.CutPrefix(request.URL.Path, "/old"); moved {
			http.Redirect(w, request, rest+"?"+request.URL.RawQuery, http.StatusMovedPermanently)
			return
		}
		httputil.NewSingleHostReverseProxy(mustParse(t, strings.TrimSuffix(r.URL, "/app.git"))).ServeHTTP(w, request)
	}))
	proxy.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(proxy.Close)
	source := r.source("", v1.GitRef{})
	source.URL = mustParse(t, proxy.URL+"/old/app.git")
	if _, err := (&Fetcher{}).Fetch(t.Context(), source, ""); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority: %v", err)
	}
	source.Credentials = Credentials{CA: []byte("no PEM")}
	if _, err := (&Fetcher{}).Fetch(t.Context(), source, ""); err == nil || !strings.Contains(err.Error(), "ca.crt holds no certificate") {
		t.Errorf("a ca.crt without a certificate: %v", err)
	}
	source.Credentials = Credentials{
		Username: "ada", Password: "hush",
		CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: proxy.Certificate().Raw}),
	}
	if snapshot, err := (&Fetcher{}).Fetch(t.Context(), source, ""); err != nil || snapshot.Commit != commit {
		t.Errorf("with ca.crt: %v, %v", snapshot.Commit, err)
	}
}

// A part of a commit that the server does not send is no fault of the commit: it is asked for again.
func TestFetchOfACommitInPart(t *testing.T) {
	t.Parallel()
	r := newRepository(t)
	r.write("deploy/a.yaml", "a: 1\n")
	commit := r.push()
	part := &packBuilder{}
	for _, o := range []struct {
		kind       plumbing.ObjectType
		what, name string
	}{{plumbing.CommitObject, "commit", "HEAD"}, {plumbing.TreeObject, "tree", "HEAD^{tree}"}, {plumbing.TreeObject, "tree", "HEAD:deploy"}} {
		cmd := exec.CommandContext(t.Context(), "git", "-C", r.work, "cat-file", o.what, o.name)
		content, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		part.add(o.kind, uint64(len(content)), 0, content)
	}
	line := func(text string) string { return fmt.Sprintf("%04x%s", len(text)+4, text) }
	r.intercept(func(git http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			if request.Method == http.MethodGet {
				git.ServeHTTP(w, request)
				return
			}
			w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
			_, _ = io.WriteString(w, line("shallow "+commit)+"0000"+line("NAK\n")+line("\x01"+string(part.pack()))+"0000")
		})
	})
	snapshot, err := (&Fetcher{}).Fetch(t.Context(), r.source("deploy", v1.GitRef{}), "")
	if content := new(ContentError); err == nil || !strings.Contains(err.Error(), "the server left out a part of commit "+commit) || errors.As(err, &content) || snapshot.Commit != "" {
		t.Errorf("got %+v, %v", snapshot, err)
	}
}
