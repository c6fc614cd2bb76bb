package clustertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice.dev/sluice/sandbox/gitserver"
)

const (
	reviews = "http://reviews:9080/reviews/0"
	folder  = "deploy"
	// The examples' gates look at five seconds, for a Prometheus that scrapes every second. Istio's addon does every fifteen.
	sandboxWindow, window = "window: 5s,", "window: 1m,"
	// patience is the longest that anything takes, the images' download included.
	patience = 5 * time.Minute
)

// stage is a namespace that follows an example from Git.
type stage struct {
	namespace  string
	repository *gitserver.Work
}

// newStage brings bookinfo, the clients and an example up, and waits until reviews is Healthy on v1.
func newStage(t *testing.T, example string, more ...string) *stage {
	t.Helper()
	s := &stage{namespace: "sluice-" + example + "-" + strings.ToLower(rand.Text()[:5])}
	s.kubectl(t, "create", "namespace", s.namespace)
	t.Cleanup(func() { s.close(t) })
	s.kubectl(t, "label", "namespace", s.namespace, "istio-injection=enabled")
	for _, file := range append(more, "testdata/client.yaml", world.root+"/examples/rbac.yaml", world.root+"/examples/apps/bookinfo.yaml") {
		s.kubectl(t, "apply", "-f", file)
	}
	s.kubectl(t, "wait", "deployment", "--all", "--for=condition=Available", "--timeout="+patience.String())
	s.follow(t, example)
	s.waitHealthy(t, "v1")
	return s
}

// follow pushes an example's folder to a repository of its own, and has a GitSync apply it.
func (s *stage) follow(t *testing.T, example string) {
	t.Helper()
	url, err := world.git.CreateRepository(t.Context(), s.namespace)
	if err == nil {
		s.repository, err = gitserver.Clone(t.Context(), url, filepath.Join(world.dir, s.namespace))
	}
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(world.root, "examples", example)
	err = fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(name) != ".yaml" {
			return err
		}
		content, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return err
		}
		return s.repository.Write(t.Context(), folder+"/"+name, strings.ReplaceAll(string(content), sandboxWindow, window))
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.repository.Push(t.Context(), example); err != nil {
		t.Fatal(err)
	}
	sync := fmt.Sprintf("apiVersion: sluice.dev/v1\nkind: GitSync\nmetadata: {name: bookinfo, namespace: %s}\n"+
		"spec: {url: %q, path: %s, interval: 2s, serviceAccountName: bookinfo-deployer}\n", s.namespace, url, folder)
	file := filepath.Join(t.TempDir(), "gitsync.yaml")
	if err := os.WriteFile(file, []byte(sync), 0o600); err != nil {
		t.Fatal(err)
	}
	s.kubectl(t, "apply", "-f", file)
	s.kubectl(t, "wait", "gitsync/bookinfo", "--for=condition=Ready", "--timeout=1m")
}

// pushEdit replaces each occurrence of a text in a file of the example and pushes it.
func (s *stage) pushEdit(t *testing.T, file, old, replacement string) {
	t.Helper()
	path := filepath.Join(folder, file)
	content, err := os.ReadFile(filepath.Join(s.repository.Dir, path))
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.ReplaceAll(string(content), old, replacement)
	if edited == string(content) {
		t.Fatalf("%s has no %q", file, old)
	}
	if err := s.repository.Write(t.Context(), path, edited); err != nil {
		t.Fatal(err)
	}
	commit, err := s.repository.Push(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the GitSync applies "+commit, func() (bool, string) {
		revision := s.kubectl(t, "get", "gitsync/bookinfo", "-o", "jsonpath={.status.revision}")
		return strings.HasSuffix(revision, commit), revision
	})
}

// release pushes v3 while a user asks, looks at the mesh at half and after the end, and wants every answer to be 200.
func (s *stage) release(t *testing.T, look func(), headers ...string) {
	t.Helper()
	leave := s.users(t, headers...)
	s.pushEdit(t, "rollout.yaml", "\n  version: v1\n", "\n  version: v3\n")
	eventually(t, "step half is applied", func() (bool, string) {
		step := s.kubectl(t, "get", "rollout/reviews", "-o", "jsonpath={.status.step.name} {.status.step.applied}")
		return strings.HasPrefix(step, "half 2"), step
	})
	s.kubectl(t, "patch", "rollout/reviews", "--type=merge", "-p", `{"spec":{"suspend":true}}`)
	look()
	s.kubectl(t, "patch", "rollout/reviews", "--type=merge", "-p", `{"spec":{"suspend":false}}`)
	s.waitHealthy(t, "v3")
	look()
	if seen := leave(); seen.statuses["200"] != seen.total || seen.versions["v1"] == 0 || seen.versions["v3"] == 0 {
		t.Errorf("the users saw %v, want 200 alone, from v1 and v3", seen)
	}
}

func (s *stage) waitHealthy(t *testing.T, version string) {
	t.Helper()
	eventually(t, "reviews is Healthy on "+version, func() (bool, string) {
		status := s.kubectl(t, "get", "rollout/reviews", "-o", "jsonpath={.status.phase} {.status.stable} {.status.message}")
		return strings.HasPrefix(status, "Healthy "+version+" "), status
	})
}

// kubectl runs kubectl in the namespace.
func (s *stage) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := kubectl(t.Context(), append([]string{"--namespace=" + s.namespace}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// close tells what there was when the test failed, has the operator take the Rollouts back, and deletes the namespace.
func (s *stage) close(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	if t.Failed() {
		objects, err := kubectl(ctx, "get", "gitsyncs,rollouts,virtualservices,destinationrules,pods", "--namespace="+s.namespace, "-o", "yaml")
		log, unread := os.ReadFile(filepath.Join(world.dir, "operator.log"))
		t.Logf("%s\n%v\nthe end of the operator's log:\n%s%v", objects, err, log[max(0, len(log)-4000):], unread)
	}
	for _, args := range [][]string{
		{"delete", "gitsyncs,rollouts", "--all", "--namespace=" + s.namespace},
		{"delete", "namespace", s.namespace, "--wait=false"},
	} {
		if _, err := kubectl(ctx, args...); err != nil {
			t.Error(err)
		}
	}
}

// eventually asks each second until the answer is yes; what is there instead is told when it never is.
func eventually(t *testing.T, what string, is func() (bool, string)) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Second) {
		yes, instead := is()
		if yes {
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("never: %s; %s", what, instead)
		}
	}
}
